"""Labs as fixtures: pytest-docker runs the Compose project of a lab, ipsecctl makes the containers its nodes.

Each example topology has a lab, called ``test-NAME`` here, so that a lab somebody works in is left alone. A
lab is up once a session; tests of one lab run on one worker (``--dist loadgroup``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_docker.plugin import get_docker_services

from ipsecctl import lab as labs
from ipsecctl.lab import Lab, Role
from ipsecctl.topology import Topology

EXAMPLES = ("clinic-dc", "mesh-dual-stack", "mixed-versions", "partner")


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up, and the command line that works on it."""

    lab: Lab

    @property
    def topology(self) -> Topology:
        return self.lab.topology

    @property
    def file(self) -> str:
        return self.topology.file

    @property
    def managed(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.lab.with_role(Role.GATEWAY) if node.managed)

    def ipsecctl(self, *args: str, statuses: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run ``ipsecctl ARGS --lab THIS``; fail with all that it said when its status is not expected."""
        return self.without_lab(*args, "--lab", self.lab.name, statuses=statuses)

    def without_lab(self, *args: str, statuses: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run ``ipsecctl ARGS``, likewise."""
        argv = [sys.executable, "-m", "ipsecctl", *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in statuses, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, statuses: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a command with ``--json`` and return the document that it prints."""
        document: dict[str, Any] = json.loads(self.ipsecctl(*args, "--json", statuses=statuses).stdout)
        return document

    def sh(self, node: str, command: str, stdin: bytes = b"", *, statuses: Sequence[int] = (0,)) -> str:
        """Run a shell command in a node and return what it printed."""
        done = labs.run(self.lab, node, ["sh", "-c", command], stdin, timeout_s=30)
        assert done.status in statuses, f"{node}: {command}: {done.status}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def charon(self, node: str, action: str) -> None:
        """Start, stop or kill charon on a gateway."""
        self.sh(node, f"/usr/lib/ipsecctl-lab/charon {action}")


@pytest.fixture(scope="session", params=[pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in EXAMPLES])
def running(
    request: pytest.FixtureRequest,
    docker: None,
    docker_compose_command: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningLab]:
    """An example's lab, up, with nothing applied yet."""
    with lab_up(labs.load(request.param), docker_compose_command, tmp_path_factory.mktemp("compose")) as lab:
        yield lab


@pytest.fixture(scope="session")
def applied(running: RunningLab) -> RunningLab:
    """An example's lab with its topology applied and its tunnels up."""
    running.ipsecctl("apply", running.file, "--yes")
    return running


@contextmanager
def lab_up(lab: Lab, compose_command: str, scratch: Path) -> Iterator[RunningLab]:
    """Have pytest-docker run a lab's Compose project, and ipsecctl make the containers its nodes."""
    lab = lab.called(f"test-{lab.name}")
    labs.down(lab.name)  # what a run that was killed may have left
    file = scratch / "compose.json"
    file.write_text(json.dumps(labs.complete(labs.compose_document(lab))))
    start = ["up --detach --no-build --pull never"]
    try:
        with get_docker_services(
            compose_command, str(file), labs.project_name(lab.name), start, ["down --volumes"]
        ):
            labs.complete(labs.furnish(lab))
            yield RunningLab(lab)
    finally:
        labs.down(lab.name)

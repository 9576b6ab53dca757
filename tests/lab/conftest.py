"""Labs as fixtures: pytest-docker runs the Compose project of a lab, ipsecctl makes the containers its nodes.

Each example topology has a lab, called ``test-NAME`` here, so that a lab somebody works in is left alone; the
environment variable ``IPSECCTL_TEST_LABS`` is another word for ``test``, for a second run beside the first. A
lab is up once a session; tests of one lab run on one worker (``--dist loadgroup``). In it the topology is
applied in mode policy, and then, where the kernel has ESP, in mode route on top of that.

What needs a kernel with ESP has the mark ``esp``. Where this one has none, it is left out, and the end of the
run says how much was. The environment variable ``IPSECCTL_TEST_DATA_PATH`` (kernel or libipsec) says what
there must be; a lab that finds something else fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_docker.plugin import get_docker_services

from ipsecctl import lab as labs
from ipsecctl.cli._outage import Victim
from ipsecctl.cli._scene import scene_of
from ipsecctl.errors import LabError
from ipsecctl.lab import Lab, Role
from ipsecctl.patience import PATIENCE
from ipsecctl.probe import LeakReport, LeakWatch, watch_for_leaks
from ipsecctl.topology import Topology, Tunnel, load_text

EXAMPLES = ("clinic-dc", "mesh-dual-stack", "mixed-versions", "partner")
LABS = os.environ.get("IPSECCTL_TEST_LABS", "test")
_HAS_ESP = "/usr/lib/ipsecctl-lab/has-esp"
_ENDS_WITH_US = os.environ.get("IPSECCTL_TEST_MACHINE_ENDS") == "1"
"""Whether the machine with the labs ends with this run: the last ones are not taken down then."""
_run = SimpleNamespace(is_over=False)
_LONGEST_S = 15.0 * PATIENCE
_INTERVAL_S = 0.005 * (1 + PATIENCE)
"""From one marked packet to the next: an emulated machine shall have something to do beside them."""


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up, and the command line that works on it; ``topology`` is what is or will be applied."""

    lab: Lab
    topology: Topology
    mode: str = "policy"

    @property
    def file(self) -> str:
        return self.topology.file

    @property
    def managed(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.lab.with_role(Role.GATEWAY) if node.managed)

    def ends(self, tunnel: Tunnel) -> tuple[str, ...]:
        """Return the gateways of a tunnel that are ours."""
        return tuple(end.gateway.name for end in (tunnel.left, tunnel.right) if end.gateway.managed)

    def changed(self, folder: Path, change: Callable[[str], str]) -> RunningLab:
        """Return the lab with the text of its topology changed; the new one is written to an empty folder."""
        original = Path(self.topology.file).absolute()
        for credentials in ("secrets", "pki"):
            (folder / credentials).symlink_to(original.parent / credentials)
        file = folder / original.name
        file.write_text(text := change(original.read_text()))
        loaded = load_text(text, str(file))
        assert loaded.topology is not None, loaded.diagnostics
        return replace(self, topology=loaded.topology)

    def ipsecctl(self, *args: str, statuses: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run ``ipsecctl ARGS --lab THIS``; fail with all that it said when its status is not expected."""
        return self.without_lab(*args, "--lab", self.lab.name, statuses=statuses)

    def without_lab(self, *args: str, statuses: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run ``ipsecctl ARGS``, likewise."""
        argv = [sys.executable, "-m", "ipsecctl", *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120 * PATIENCE, check=False)
        assert done.returncode in statuses, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, statuses: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a command with ``--json`` and return the document that it prints."""
        document: dict[str, Any] = json.loads(self.ipsecctl(*args, "--json", statuses=statuses).stdout)
        return document

    def apply(self, *options: str) -> None:
        """Apply the topology, restart charon where that is said to be needed, and have all tunnels up."""
        done = self.json("apply", self.file, "--yes", *options, statuses=(0, 1))
        assert "gateways" in done, json.dumps(done)
        waiting = [gateway["name"] for gateway in done["gateways"] if gateway["restart_for"]]
        for gateway in waiting:
            self.sh(gateway, _HAS_ESP, statuses=(1,))  # the kernel's data path needs none
            self.charon(gateway, "stop")
            self.charon(gateway, "start")
        if waiting:
            done = self.json("apply", self.file, "--yes", *options)
        assert {tunnel["verdict"] for tunnel in done["tunnels"]} == {"up"}, json.dumps(done)

    def sh(self, node: str, command: str, stdin: bytes = b"", *, statuses: Sequence[int] = (0,)) -> str:
        """Run a shell command in a node and return what it printed."""
        done = labs.run(self.lab, node, ["sh", "-c", command], stdin, timeout_s=30 * PATIENCE)
        assert done.status in statuses, f"{node}: {command}: {done.status}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def xfrm_interfaces(self, gateway: str) -> list[str]:
        """Return the names of the xfrm interfaces of a gateway."""
        listed = self.sh(gateway, "ip -brief link show type xfrm")
        return [line.split("@")[0].split()[0] for line in listed.splitlines()]

    def charon(self, node: str, action: str) -> None:
        """Start, stop or kill charon on a gateway."""
        self.sh(node, f"/usr/lib/ipsecctl-lab/charon {action}")


class Traffic:
    """Marked packets of every kind and path of a tunnel, both ways, that are being sent while a test acts.

    Nothing here waits for a time: it waits for packets.
    """

    def __init__(self, watch: LeakWatch) -> None:
        self._watch = watch

    def until(self, condition: Callable[[], object], what: str, within_s: float = _LONGEST_S) -> None:
        """Return as soon as a condition holds; fail with what was waited for when it never does."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {within_s:g} s for: {what}"
            time.sleep(0.05)

    def sent(self, count: int = 24) -> None:
        """Return when so many more packets were sent: twice all kinds on all paths of clinic-dc."""
        aim = self._watch.sent + count
        self.until(lambda: self._watch.sent >= aim, f"{count} more packets to be sent")

    def flows(self, count: int = 24) -> None:
        """Return when of so many more packets three in four have arrived: so they do both ways."""

        def most_arrive() -> bool:
            arrived = self._watch.arrived
            self.sent(count)
            return self._watch.arrived - arrived >= 0.75 * count

        self.until(most_arrive, "packets to arrive")

    def stops(self, count: int = 24, within_s: float = _LONGEST_S) -> None:
        """Return when of so many more packets none has arrived."""

        def none_arrives() -> bool:
            arrived = self._watch.arrived
            self.sent(count)
            return self._watch.arrived == arrived

        self.until(none_arrives, "packets not to arrive any more", within_s)


@pytest.fixture
def watched(
    record_property: Callable[[str, object], None],
) -> Callable[[RunningLab, Tunnel, str, Callable[[Traffic], object]], LeakReport]:
    """Have marked traffic flow both ways through a tunnel, do something meanwhile, and tell what was seen.

    The callable gets the lab, the tunnel, the case in words, and what is to be done. It returns the capture's
    report, which is also a line in the table of leak cases at the end of the run (tests/conftest.py).
    """

    def watch(lab: RunningLab, tunnel: Tunnel, case: str, during: Callable[[Traffic], object]) -> LeakReport:
        async def watching() -> LeakReport:
            async with watch_for_leaks(tunnel, scene_of(lab.lab), interval_s=_INTERVAL_S) as watched:
                await asyncio.to_thread(during, Traffic(watched))
            return watched.report

        ends = [Victim(lab.lab, gateway) for gateway in lab.ends(tunnel)]
        before = [_dropped(end) for end in ends]
        report = asyncio.run(watching())
        row = {
            "case": case,
            "lab": lab.topology.name,
            "mode": lab.mode,
            "sent": report.sent,
            "arrived": report.arrived,
            "held by the firewall": sum(
                now - was
                for was, now in zip(before, map(_dropped, ends), strict=True)
                if was is not None and now is not None
            ),
            "ESP on the WAN": report.esp_packets,
            "in clear": report.leaked,
            "verdict": str(report.outcome),
        }
        record_property("leak case", json.dumps(row))
        return report

    return watch


def _dropped(end: Victim) -> int | None:
    """Return what a gateway's firewall has dropped; ``None`` without one: a case may be to take it away."""
    try:
        return end.dropped()
    except LabError:
        return None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have of a test of every example run in the virtual machine what its mark ``kernel_for`` says."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    if any(f"{params['running']} {params['mode']}" in mark.args for mark in item.iter_markers("kernel_for")):
        item.add_marker("kernel")


def _example(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@pytest.fixture(scope="session", params=map(_example, EXAMPLES))
def running(
    request: pytest.FixtureRequest, lab_of: Callable[[Lab], AbstractContextManager[RunningLab]]
) -> Iterator[RunningLab]:
    """An example's lab, up, with nothing applied yet."""
    with lab_of(labs.load(request.param)) as lab:
        yield lab


@pytest.fixture(scope="session")
def lab_of(
    docker_compose_command: str, data_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Lab], AbstractContextManager[RunningLab]]:
    """For labs of a test's own: have one up as long as a ``with`` lasts."""
    return lambda lab: lab_up(lab, docker_compose_command, data_path, tmp_path_factory.mktemp("compose"))


THREE_SITES = """
ipsecctl: 1
name: three-sites
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  a: {networks: {lan: [10.71.0.0/24, "fd00:71::/64"]}, gateway: 198.51.100.71}
  b: {networks: {lan: [10.72.0.0/24, "fd00:72::/64"]}, gateway: 203.0.113.72}
  c: {networks: {lan: [10.73.0.0/24, "fd00:73::/64"]}, gateway: 192.0.2.73}
tunnels: {a-b: {between: [a, b]}, a-c: {between: [a, c]}, b-c: {between: [b, c]}}
"""


@pytest.fixture(scope="session")
def three_sites(
    lab_of: Callable[[Lab], AbstractContextManager[RunningLab]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningLab]:
    """A lab for topologies of tests' own, with these names and addresses, one after another.

    Those that want one in which nothing was applied yet have the mark ``untouched``, and come first. All that
    use it are of the group ``three-sites`` for pytest-xdist.
    """
    folder = tmp_path_factory.mktemp("three-sites") / "three-sites"
    folder.mkdir()
    (folder / "topology.yaml").write_text(THREE_SITES)
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(folder / "lab.yaml"))) as lab:
        yield lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have those come first that want a lab in which nothing was applied yet."""
    items.sort(key=lambda item: item.get_closest_marker("untouched") is None)


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest,
    lab_of: Callable[[Lab], AbstractContextManager[RunningLab]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningLab]:
    """The lab of a module's own ``TOPOLOGY``, by whose name it goes: up, with nothing applied yet."""
    text: str = request.module.TOPOLOGY
    name = next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("name: "))
    folder = tmp_path_factory.mktemp("own") / name
    folder.mkdir()
    (folder / "topology.yaml").write_text(text)
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(folder / "lab.yaml"))) as running:
        yield running


@pytest.fixture(scope="session", params=["policy"])
def mode(request: pytest.FixtureRequest) -> str:
    """The mode of an example's tunnels; tests ask for others with ``parametrize(..., indirect=True)``."""
    said: str = request.param
    return said


@pytest.fixture(scope="session")
def applied(running: RunningLab, mode: str, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    """An example's lab with its topology applied in a mode and its tunnels up."""
    lab = replace(running, mode=mode)
    if mode != "policy":
        said = f"\ndefaults:\n  mode: {mode}\n"
        lab = lab.changed(tmp_path_factory.mktemp(mode), lambda text: text.replace("\ndefaults:\n", said))
    lab.apply()
    return lab


def is_there(lab: Lab) -> bool:
    """Return whether Docker has anything of a lab."""
    wanted = ["--quiet", "--filter", f"label=org.ipsecctl.lab={lab.name}"]
    looks = (["docker", "ps", "--all", *wanted], ["docker", "network", "ls", *wanted])
    return any(subprocess.run(look, capture_output=True, check=True).stdout for look in looks)


@contextmanager
def lab_up(lab: Lab, compose_command: str, data_path: str, scratch: Path) -> Iterator[RunningLab]:
    """Have pytest-docker run a lab's Compose project, and ipsecctl make the containers its nodes.

    Fails when their kernel is not one for ``data_path``.
    """
    lab = lab.called(f"{LABS}-{lab.name}")
    if is_there(lab):  # what a run that was killed may have left
        labs.down(lab.name)
    file = scratch / "compose.json"
    file.write_text(json.dumps(labs.complete(labs.compose_document(lab))))
    start = ["up --detach --no-build --pull never"]
    try:
        # Compose is not asked to end it: labs.down does so, and has to look all the same.
        with get_docker_services(compose_command, str(file), labs.project_name(lab.name), start, []):
            labs.complete(labs.furnish(lab))
            running = RunningLab(lab, lab.topology)
            for gateway in running.managed:
                running.sh(gateway, _HAS_ESP, statuses=(0 if data_path == "kernel" else 1,))
            yield running
    finally:
        if not (_ENDS_WITH_US and _run.is_over):
            labs.down(lab.name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    _run.is_over = nextitem is None

"""What Docker complains about becomes words and a remedy; a program that only complains stands in for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from ipsecctl.errors import LabError
from ipsecctl.lab import docker, load
from ipsecctl.lab.control import bring_up, take_down
from ipsecctl.lab.firewall import no_machine_rules

OURS = f"test-{os.getpid()}"
"""No lab of this name is under way on this machine: only one process at a time may bring one up or down."""


@pytest.fixture
def complaining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(complaint: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{complaint}' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    return install


@pytest.mark.parametrize(
    ("complaint", "summary", "hint"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?",
            "Docker Engine is not running",
            "labs/setup",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket",
            "Docker Engine does not talk to you",
            "usermod",
        ),
        (
            'docker: "compose" is not a docker command',
            "Docker has no Compose v2",
            "labs/setup",
        ),
        (
            "Error response from daemon: Pool overlaps with other one on this address space",
            "Docker gave the lab's address range to someone else",
            "Try again",
        ),
        (
            "Error response from daemon: something else",
            "docker: Error response from daemon: something else",
            "",
        ),
    ],
)
def test_complaints(complaining, complaint: str, summary: str, hint: str) -> None:
    complaining(complaint)
    with pytest.raises(LabError) as caught:
        asyncio.run(docker.compose_up("t", {}))
    assert caught.value.summary.startswith(summary)
    assert hint in caught.value.hint


def test_without_the_image_labs_setup_is_named(complaining) -> None:
    complaining("Error response from daemon: No such image: ipsecctl-lab:latest")
    with pytest.raises(LabError, match="the lab image ipsecctl-lab:latest is missing") as caught:
        asyncio.run(bring_up(load("clinic-dc").called(OURS)))
    assert caught.value.hint.endswith("labs/setup")


def test_without_an_older_image_labs_setup_is_told_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    missing = "Error response from daemon: No such image: ipsecctl-lab:bookworm"
    program.write_text(
        f"#!/bin/sh\ncase $* in *:bookworm) echo '{missing}' >&2; exit 1; esac\necho sha256:1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(LabError, match="the lab image ipsecctl-lab:bookworm is missing") as caught:
        asyncio.run(bring_up(load("mixed-versions").called(OURS)))
    assert caught.value.hint.endswith("labs/setup --releases")


def test_without_docker_labs_setup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="there is no Docker") as caught:
        asyncio.run(bring_up(load("clinic-dc").called(OURS)))
    assert caught.value.hint.endswith("labs/setup")


def test_down_takes_out_the_machines_rules_when_docker_has_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\n[ "$1" != run ] || cat >>{tmp_path}/rules\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    removed = asyncio.run(take_down(OURS))
    assert (removed.containers, removed.networks) == (0, 0)
    assert (tmp_path / "rules").read_text() == no_machine_rules(OURS)

"""The docker of the virtual machine (labs/vm/bin/docker): what goes to the runner, and how it comes back."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.resources import resource_dir

DOCKER = resource_dir("labs") / "vm/bin/docker"
BIG = bytes(range(256)) * 3000


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("exec c true", (False, False)),
        ("exec -i c sh -s", (True, False)),
        ("exec -i --privileged c sh", (True, True)),
        ("exec -it c sh", None),
        ("exec -e A=B c sh", None),
        ("exec c", None),
        ("exec", None),
        ("run c true", None),
        ("", None),
    ],
)
def test_only_a_plain_exec_is_the_runners(words: str, wanted: tuple[bool, bool] | None) -> None:
    asked = runpy.run_path(str(DOCKER))["plain_exec"](words.split())
    assert (asked and (asked["stdin"], asked["privileged"])) == wanted


def frame(kind: bytes, content: bytes = b"") -> bytes:
    return kind + len(content).to_bytes(4, "big") + content


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[Callable[..., None]], dict[str, str]]]:
    """The environment of a machine whose runner does what a function does with a caller's two connections."""
    (tmp_path / "real").mkdir()
    real = tmp_path / "real/docker"
    real.write_text('#!/bin/sh\necho "docker itself: $*"\nexit 3\n')
    real.chmod(0o755)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "runner.sock"))
    server.listen()
    threads: list[threading.Thread] = []

    def serve(does: Callable[..., None]) -> dict[str, str]:
        def once() -> None:
            control, _ = server.accept()
            asked: dict[str, Any] = json.loads(control.makefile().readline())
            data, _ = server.accept()
            assert data.recv(32).decode() == asked["token"]
            does(asked, control, data)
            control.close()
            data.close()

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        python = Path(shutil.which("python3") or "").parent
        path = os.pathsep.join(map(str, (DOCKER.parent, real.parent, python, "/usr/bin", "/bin")))
        return {"PATH": path, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}

    yield serve
    for thread in threads:
        thread.join()
    server.close()


def docker(env: dict[str, str], *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [DOCKER, *words], input=stdin, capture_output=True, env=env, timeout=60, check=False
    )


def test_what_goes_in_comes_out_and_the_status_with_it(machine) -> None:
    seen: dict[str, Any] = {}

    def echo(asked: dict[str, Any], control: socket.socket, data: socket.socket) -> None:
        seen.update(asked)
        control.sendall(frame(b"B"))
        while said := data.recv(1 << 16):
            data.sendall(said)
        control.sendall(frame(b"E", b"oh\n") + frame(b"Q", b"7"))

    done = docker(machine(echo), "exec", "-i", "c", "sh", "-s", stdin=BIG)
    assert (done.returncode, done.stdout, done.stderr) == (7, BIG, b"oh\n")
    assert (seen["container"], seen["argv"], seen["stdin"]) == ("c", ["sh", "-s"], True)


def test_a_command_that_ended_at_once_has_said_all_in_one_piece(machine) -> None:
    def at_once(_: dict[str, Any], control: socket.socket, data: socket.socket) -> None:
        data.sendall(b"said\n")
        data.close()
        control.sendall(frame(b"B") + frame(b"E", b"oh\n") + frame(b"Q", b"7"))

    done = docker(machine(at_once), "exec", "c", "ls")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"said\n", b"oh\n")


def test_what_only_docker_can_answer_is_asked_of_docker(machine) -> None:
    def refuse(_: dict[str, Any], control: socket.socket, data: socket.socket) -> None:
        control.sendall(frame(b"N"))

    done = docker(machine(refuse), "exec", "-i", "gone", "true")
    assert (done.returncode, done.stdout) == (3, b"docker itself: exec -i gone true\n")


def test_all_else_is_dockers(machine, tmp_path: Path) -> None:
    env = {"PATH": f"{DOCKER.parent}:{tmp_path}/real:{os.environ['PATH']}"}
    assert docker(env, "ps", "--all").stdout == b"docker itself: ps --all\n"
    assert docker(env, "exec", "c", "true").stdout == b"docker itself: exec c true\n"


def test_a_machine_that_has_gone_is_a_failure(machine) -> None:
    def go(_: dict[str, Any], control: socket.socket, data: socket.socket) -> None:
        control.sendall(frame(b"B"))

    done = docker(machine(go), "exec", "c", "true")
    assert done.returncode == 1
    assert b"does not answer any more" in done.stderr

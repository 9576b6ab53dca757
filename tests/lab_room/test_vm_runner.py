"""The runner of the virtual machine (labs/vm/runner.py): containers and callers that go away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ipsecctl.resources import resource_dir


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, whose Docker Engine is asked and does not answer.

    The machine's Python is newer than the oldest that tests are run with, whose ``os`` knows no namespaces.
    """
    for name in ("NS", "UTS", "IPC", "NET", "CGROUP", "PID"):
        monkeypatch.setattr(os, f"CLONE_NEW{name}", 0, raising=False)
    monkeypatch.setattr(os, "setns", lambda *_: None, raising=False)
    spec = spec_from_file_location("runner", resource_dir("labs") / "vm/runner.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    engine = socket.socket(socket.AF_UNIX)
    engine.bind(name := f"\0runner-test-{os.getpid()}")
    engine.listen()
    monkeypatch.setattr(module, "ENGINE", name)
    yield module
    engine.close()
    module.wakes.close()
    os.close(module.home)


@pytest.fixture
def first() -> Iterator[subprocess.Popen[bytes]]:
    """What is a container's first process."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def told(pid: int) -> dict[str, Any]:
    """What Docker Engine says of a container that runs."""
    state = {"Running": True, "Paused": False, "Pid": pid}
    return {
        "Name": "/c",
        "State": state,
        "Config": {"User": "", "Env": [], "Hostname": "c", "WorkingDir": ""},
    }


def turn(runner: ModuleType) -> None:
    """Let it do what there is to do."""
    while ready := runner.wakes.select(0):
        for key, _ in ready:
            key.data()


def called(runner: ModuleType) -> tuple[socket.socket, Any]:
    """A caller who has asked for a command in a container that Docker is asked about, and his job."""
    here, there = socket.socketpair()
    job = runner.Job(there)
    asked = {"container": "c", "argv": ["true"], "stdin": False, "privileged": False, "token": "t" * 32}
    here.sendall(json.dumps(asked).encode() + b"\n")
    turn(runner)
    return here, job


def test_that_nothing_has_come_is_not_the_end(runner) -> None:
    here, there = socket.socketpair()
    with there:
        assert runner.receive(there) is None
        here.sendall(b"more")
        here.close()
        assert [runner.receive(there), runner.receive(there)] == [b"more", b""]


def test_the_number_of_a_container_that_has_ended_is_nobody_elses_while_a_job_has_it(runner, first) -> None:
    runner.known["c"] = runner.Container(told(first.pid))
    here, job = called(runner)
    assert runner.waiting["t" * 32] is job
    first.kill()
    first.wait()
    assert runner.still_there("c") is None
    other = os.open(os.devnull, os.O_RDONLY)
    number = job.container.process
    assert Path(f"/proc/self/fd/{number}").readlink().name == "anon_inode:[pidfd]"
    here.close()
    turn(runner)
    del job
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    os.close(other)


def test_a_caller_who_goes_before_his_command_begins_is_forgotten(runner, first) -> None:
    runner.known["c"] = runner.Container(told(first.pid))
    here, job = called(runner)
    here.close()
    turn(runner)
    assert not runner.waiting
    assert job.control.fileno() == -1


def test_a_command_that_cannot_be_started_is_left_to_docker(runner, first, monkeypatch) -> None:
    runner.known["c"] = runner.Container(told(first.pid))
    here, _ = called(runner)
    monkeypatch.setattr(runner.os, "fork", no_more_processes)
    there, data = socket.socketpair()
    runner.Caller(data)
    there.sendall(b"t" * 32)
    turn(runner)
    assert here.makefile("rb").read() == b"N" + bytes(4)
    assert there.recv(1) == b""
    here.close()
    there.close()


def no_more_processes() -> int:
    raise BlockingIOError("Resource temporarily unavailable")

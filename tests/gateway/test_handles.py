"""Reaching gateways: this host and containers, as far as that goes without either charon or Docker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import struct
import sys
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from netaddr import IPAddress

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Container, LocalHost, container_name, reach
from ipsecctl.gateway.ssh import SshHost
from ipsecctl.resources import lab_place
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway


def gateway(kind, target=""):
    return Gateway(
        "gw", "s", IPAddress("192.0.2.1"), False, None, 1500, Control(kind, target), DataPath.AUTO, "gw", True
    )


TOPOLOGY = SimpleNamespace(name="t", file="t.yaml")


def test_reach():
    assert isinstance(reach(gateway(ControlKind.LOCAL), TOPOLOGY), LocalHost)
    for control, lab, container in (
        (gateway(ControlKind.LAB), None, "ipsecctl-t-gw"),
        (gateway(ControlKind.LAB, "other"), None, "ipsecctl-other-gw"),
        (gateway(ControlKind.SSH, "root@gw"), "l", "ipsecctl-l-gw"),
    ):
        handle = reach(control, TOPOLOGY, lab)
        assert isinstance(handle, Container)
        assert handle.container == container
    over_ssh = reach(gateway(ControlKind.SSH, "root@gw"), TOPOLOGY)
    assert isinstance(over_ssh, SshHost)
    assert (over_ssh.name, str(over_ssh.destination)) == ("gw", "root@gw")
    assert container_name("l", "n") == "ipsecctl-l-n"


def test_a_local_command():
    done = asyncio.run(LocalHost("gw").run(["sh", "-c", "cat; echo no >&2; exit 3"], b"in"))
    assert (done.status, done.stdout, done.error) == (3, b"in", "no")


def test_a_local_command_that_does_not_end_is_killed_with_its_children(tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    started = time.monotonic()
    with pytest.raises(GatewayUnreachable, match=r"within 0\.3 s"):
        asyncio.run(LocalHost("gw").run(["sh", "-c", script], timeout_s=0.3))
    assert time.monotonic() - started < 5
    pid = int((tmp_path / "pid").read_text())
    while _runs(pid):
        assert time.monotonic() - started < 10
        time.sleep(0.01)


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_command_that_is_not_there():
    with pytest.raises(GatewayUnreachable, match="no-such-command"):
        asyncio.run(LocalHost("gw").run(["no-such-command"]))


def test_local_charon_that_is_not_running(tmp_path):
    async def enter(path):
        async with LocalHost("gw", [str(path)]).vici(timeout_s=1):
            raise AssertionError

    with pytest.raises(GatewayUnreachable) as missing:
        asyncio.run(enter(tmp_path / "none"))
    assert missing.value.charon_down


def test_local_charon_that_hangs_is_not_down(tmp_path):
    async def main():
        async def hang(reader, writer):
            try:
                await reader.read()
            finally:
                writer.close()

        server = await asyncio.start_unix_server(hang, tmp_path / "vici")
        async with server, LocalHost("gw", [str(tmp_path / "vici")]).vici(timeout_s=0.1):
            raise AssertionError

    with pytest.raises(GatewayUnreachable, match="did not answer") as hung:
        asyncio.run(main())
    assert not hung.value.charon_down


DOCKER = """#!{python}
import sys
sys.stdin.buffer.read1(1)
sys.stderr.write({said!r})
sys.exit({status})
"""


@pytest.mark.parametrize(
    ("said", "cause", "charon_down"),
    [
        ("Error response from daemon: No such container: ipsecctl-l-gw\n", "does not exist", False),
        ("Error response from daemon: Container abc is not running\n", "is not running", False),
        ("Error response from daemon: Container abc is paused, unpause it\n", "is paused", False),
        (
            "Cannot connect to the Docker daemon at unix:///x. Is it running?\n",
            "Docker does not answer",
            False,
        ),
        ("something else\n", "something else", False),
    ],
)
def test_what_docker_says(tmp_path, monkeypatch, said, cause, charon_down):
    fake = tmp_path / "docker"
    fake.write_text(DOCKER.format(python=sys.executable, said=said, status=1))
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))

    async def enter():
        async with Container("gw", "ipsecctl-l-gw").vici(timeout_s=5):
            raise AssertionError

    with pytest.raises(GatewayUnreachable, match=cause) as unreachable:
        asyncio.run(enter())
    assert unreachable.value.charon_down is charon_down
    assert unreachable.value.gateway == "gw"
    # docker start would leave a lab's node without its links.
    assert ("ipsecctl lab reboot l gw" in unreachable.value.hint) is (cause == "is not running")


def test_no_docker_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GatewayUnreachable, match="cannot run docker"):
        asyncio.run(Container("gw", "c").run(["true"]))


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container whose inside is this machine; charon's socket in it is ``tmp_path / "vici"``."""
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho >>"{tmp_path}/started"\nshift 4\nexec {sys.executable} "$@"\n')
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Container("gw", "ipsecctl-l-gw", str(tmp_path / "vici"))


def test_all_goes_through_one_docker_exec(container, tmp_path):
    async def main():
        much = b"x" * 300_000
        script = "cat; echo no >&2; exit 3"
        several = [container.run(("sh", "-c", script), bytes([65 + n]) + much) for n in range(3)]
        for number, done in enumerate(await asyncio.gather(*several)):
            assert (done.status, done.stderr) == (3, b"no\n")
            assert done.stdout == bytes([65 + number]) + much
        holding = ("sh", "-c", "echo held; cat; echo over >$0", str(tmp_path / "end"))
        async with container.hold(holding) as line:
            assert line == "held"
            assert not (tmp_path / "end").exists()
            assert (await container.run(("no-such-program",))).status == 127
        assert (tmp_path / "end").read_text() == "over\n"
        assert (tmp_path / "started").read_text() == "\n"

    asyncio.run(main())
    assert asyncio.run(container.run(("true",))).status == 0  # in another loop
    assert (tmp_path / "started").read_text() == "\n\n"


def test_what_ends_takes_nothing_from_what_goes_on(container, tmp_path):
    """A descriptor that is closed gives its number to the next that is opened."""
    ready, go = tmp_path / "ready", tmp_path / "go"
    os.mkfifo(go)
    signals = os.open(go, os.O_RDWR)

    async def main():
        script = ("sh", "-c", 'exec >&- 2>&-; echo >>"$0"; read -r _ <"$1"', str(ready), str(go))
        ending = [asyncio.create_task(container.run(script)) for _ in range(4)]
        while not ready.exists() or ready.read_text() != "\n" * 4:  # noqa: ASYNC110 - they are processes
            await asyncio.sleep(0.01)
        async with AsyncExitStack() as held:
            for number in range(4):
                holding = ("sh", "-c", 'echo held; cat; echo >"$0"', str(tmp_path / f"over{number}"))
                assert await held.enter_async_context(container.hold(holding)) == "held"
            os.write(signals, b"\n" * 4)
            for ended in ending:
                await asyncio.wait_for(ended, 10)
            assert (await container.run(("cat",), b"through")).stdout == b"through"
            assert not list(tmp_path.glob("over*"))

    asyncio.run(main())
    os.close(signals)


def test_a_command_that_leaves_somebody_behind_ends_all_the_same(container):
    done = asyncio.run(container.run(("sh", "-c", "sleep 3 & echo out")))
    assert (done.status, done.stdout) == (0, b"out\n")


def test_a_command_that_takes_too_long(container):
    with pytest.raises(GatewayUnreachable, match="'sleep' did not end within"):
        asyncio.run(container.run(("sleep", "30"), timeout_s=0.2))


def test_what_was_held_when_the_connection_broke(container):
    async def main():
        async with container.hold(("sh", "-c", "echo $PPID; cat")) as relay:
            os.kill(int(relay), signal.SIGKILL)
            with pytest.raises(GatewayUnreachable, match="connection"):
                await container.run(("true",))
            with pytest.raises(GatewayUnreachable, match="held no more"):
                await container.run(("true",))
        assert (await container.run(("true",))).status == 0

    asyncio.run(main())


def test_a_charon_in_a_container(container, tmp_path):
    async def enter():
        async with container.vici(timeout_s=5):
            return True

    with pytest.raises(GatewayUnreachable, match="charon is not running in container ipsecctl-l-gw") as down:
        asyncio.run(enter())
    assert down.value.charon_down
    with socket.socket(socket.AF_UNIX) as charon:
        charon.bind(str(tmp_path / "vici"))
        with pytest.raises(GatewayUnreachable, match="charon is not running") as refused:
            asyncio.run(enter())
        assert refused.value.charon_down
        charon.listen()
        with pytest.raises(GatewayUnreachable, match="did not answer") as hung:
            asyncio.run(hanging(container))
        assert not hung.value.charon_down
        charon.accept()[0].close()
        answering = threading.Thread(target=answer_once, args=(charon,))
        answering.start()
        assert asyncio.run(enter())
        answering.join()


def test_a_node_that_docker_alone_has_started_waits_for_its_links(container, tmp_path, monkeypatch):
    monkeypatch.setattr("ipsecctl.gateway.container._NODE_STATE", str(tmp_path))

    async def enter():
        async with container.vici(timeout_s=5):
            raise AssertionError

    (tmp_path / "waiting").touch()
    with pytest.raises(GatewayUnreachable, match="was started without its links") as waits:
        asyncio.run(enter())
    assert waits.value.hint.endswith("ipsecctl lab reboot l gw")
    assert not waits.value.charon_down, "there is no host's part to be done, either"
    (tmp_path / "ready").touch()
    with pytest.raises(GatewayUnreachable, match="charon is not running") as down:
        asyncio.run(enter())
    assert down.value.charon_down


async def hanging(container):
    async with container.vici(timeout_s=0.3):
        raise AssertionError


def answer_once(charon):
    with charon.accept()[0] as end:
        end.recv(4096)
        end.sendall(struct.pack("!I", 1) + b"\x01")
        end.recv(4096)


def test_a_lab_is_named_by_what_brings_it_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "labs/other", "deep/labs/near"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "lab.yaml").touch()
    near = str(tmp_path / "deep" / "topologies" / "t.yaml")
    assert lab_place("mine", near=str(tmp_path / "mine" / "t.yaml")) == str(tmp_path / "mine")
    assert lab_place("mine") == str(tmp_path / "mine")
    assert lab_place("near", near=near) == str(tmp_path / "deep" / "labs" / "near")
    assert lab_place("clinic-dc", near=near) == "clinic-dc"
    assert lab_place("nowhere", near=near) == "PATH (that of the folder of lab nowhere)"

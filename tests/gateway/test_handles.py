"""Reaching gateways: this host and containers, as far as that goes without either charon or Docker."""

from __future__ import annotations

import asyncio
import stat
import struct
import sys
import time
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
        (
            '2026 socat[9] E connect(, AF=1 "/run/charon.vici", 18): Connection refused\n',
            "charon is not",
            True,
        ),
        ('2026 socat[9] E connect(, AF=1 "/x", 18): No such file or directory\n', "charon is not", True),
        ("something else\n", "something else", False),
    ],
)
def test_what_docker_and_socat_say(tmp_path, monkeypatch, said, cause, charon_down):
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


def test_no_docker_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GatewayUnreachable, match="cannot run docker"):
        asyncio.run(Container("gw", "c").run(["true"]))


def test_a_container_that_answers(tmp_path, monkeypatch):
    answer = struct.pack("!I", 1) + b"\x01"
    fake = tmp_path / "docker"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdin.buffer.read1(4096)\n"
        f"sys.stdout.buffer.write({answer!r})\nsys.stdout.flush()\nsys.stdin.read()\n"
    )
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))

    async def enter():
        async with Container("gw", "c").vici(timeout_s=5):
            return True

    assert asyncio.run(enter())


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

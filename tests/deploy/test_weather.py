"""What charon may answer instead of an answer: one clear line with the gateway's name, and no waiting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ipsecctl.cli import main
from ipsecctl.gateway import _relay

RELAY = str(Path(_relay.__file__).parent)
TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:IPSECCTL_TEST_PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels: {t: {between: [a, b]}}
"""
# A docker whose containers have a shell that tells nothing, and this instead of a charon. The relay is found
# in its folder: the packages that it lies in take ten times as long to import.
DOCKER = """#!{python} -IS
import socket, sys, threading
sys.path.append({folder!r})
from _relay import Relay

def charon(end):
    end.recv(65536)
    end.sendall({answer!r})
    {then}
    end.close()
class Gateway(Relay):
    def run(self, number, argv):
        super().run(number, [b"/bin/sh", b"-c", b"/bin/cat >/dev/null"])
    def connect(self, path):
        ours, theirs = socket.socketpair()
        threading.Thread(target=charon, args=(theirs,), daemon=True).start()
        return ours
Gateway().serve()
"""
STAYS = "end.recv(65536)"
WEATHER = {
    "oversized": (b"\x7f\xff\xff\xff\x01", STAYS, "charon announced a packet of 2147483647 bytes"),
    "no VICI": (b"HTTP/1.1 400 Bad Request\r\n\r\n", STAYS, "is this a VICI socket?"),
    "garbled": (b"\0\0\0\x05\x01\x03\xc8ab", STAYS, "charon sent a garbled message: 200 bytes announced"),
    "of an unknown type": (b"\0\0\0\x01\x63", STAYS, "charon sent a packet of unknown type 99"),
    "cut short": (
        b"\0\0\0\x09\x01",
        "pass",
        "the connection to charon ended in the middle of a packet, after 5 bytes of 13",
    ),
    "none": (b"", "pass", "no connection to charon: charon closed the connection"),
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command on gateways whose charon has the weather."""
    (tmp_path / "pair.yaml").write_text(TOPOLOGY)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("IPSECCTL_TEST_PSK", "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def call(weather, command, *options):
        answer, then, _ = WEATHER[weather]
        docker = tmp_path / "bin" / "docker"
        docker.write_text(DOCKER.format(python=sys.executable, folder=RELAY, answer=answer, then=then))
        docker.chmod(0o700)
        with pytest.raises(SystemExit) as ended:
            main([command, str(tmp_path / "pair.yaml"), *options])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return ended.value.code, said.out

    return call


@pytest.mark.parametrize("weather", WEATHER)
def test_plan_says_what_came_instead_of_an_answer(run, weather):
    code, out = run(weather, "plan")
    assert code == 3
    (line,) = [line for line in out.splitlines() if line.startswith("not planned: a: ")]
    assert WEATHER[weather][2] in line
    assert "2 gateways could not be planned." in out


@pytest.mark.parametrize("weather", WEATHER)
def test_apply_says_so_too_and_does_nothing(run, weather):
    code, out = run(weather, "apply", "--yes", "--wait", "0")
    assert code == 1
    assert (
        sum(line.startswith("failed  a: ") and WEATHER[weather][2] in line for line in out.splitlines()) == 1
    )
    assert out.splitlines()[-1].endswith("Failed: a, b.")

"""``ipsecctl facts`` on a docker that plays a recorded gateway."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ipsecctl.cli import main
from ipsecctl.gateway import _relay
from ipsecctl.vici import encode_message

RECORDED = Path(__file__).parents[1] / "gateway" / "recorded"
TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:IPSECCTL_TEST_PSK"}, profile: PROFILE}
sites:
  alpha: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  beta: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
  partner: {managed: false, networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
tunnels:
  t: {between: [alpha, beta]}
  u: {between: [alpha, partner]}
"""
# Answers whatever is run with a recording, and VICI with a recording of charon.
DOCKER = """#!PYTHON -IS
import json, socket, struct, sys, threading
sys.path.append(FOLDER)
from _relay import Relay
answers = json.load(open(CHARON))
def charon(end):
    while len(length := end.recv(4, socket.MSG_WAITALL)) == 4:
        packet = end.recv(struct.unpack("!I", length)[0], socket.MSG_WAITALL)
        body = b"\\x01" + bytes.fromhex(answers[packet[2 : 2 + packet[1]].decode()])
        end.sendall(struct.pack("!I", len(body)) + body)
class Gateway(Relay):
    def run(self, number, argv):
        super().run(number, [b"/bin/cat", ANSWER.encode()])
    def connect(self, path):
        ours, theirs = socket.socketpair()
        threading.Thread(target=charon, args=(theirs,), daemon=True).start()
        return ours
Gateway().serve()
"""
GONE = "#!PYTHON -IS\nimport sys; sys.stderr.write('Error: No such container: c\\n'); sys.exit(1)\n"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs ``facts`` where docker is as told."""
    monkeypatch.setenv("IPSECCTL_TEST_PSK", "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    answers = tmp_path / "charon.json"

    def call(*arguments, docker=DOCKER, recorded="debian-13-kernel", profile="modern", plugins=()):
        told = json.loads((RECORDED / "charon-6.1.0.json").read_text())
        told["stats"]["plugins"] += plugins
        answers.write_text(json.dumps({name: encode_message(answer).hex() for name, answer in told.items()}))
        file = tmp_path / "pair.yaml"
        file.write_text(TOPOLOGY.replace("PROFILE", profile))
        fake = tmp_path / "bin" / "docker"
        text = docker.replace("PYTHON", sys.executable).replace("CHARON", repr(str(answers)))
        text = text.replace("FOLDER", repr(str(Path(_relay.__file__).parent)))
        fake.write_text(text.replace("ANSWER", repr(str(RECORDED / f"{recorded}.txt"))))
        fake.chmod(0o700)
        with pytest.raises(SystemExit) as ended:
            main(["facts", *(str(file) if word == "FILE" else word for word in arguments)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


def test_a_gateway_that_has_what_is_needed(run):
    code, out, _ = run("alpha", "FILE")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "alpha: kernel: an SA can be added"
    assert any(line.startswith("note: source NAT in ip nat post") for line in lines[:8]), (
        "what matters is first"
    )
    assert [line for line in lines if line and ":" not in line and line[0] != " "] == [
        "charon", "kernel", "firewall", "network", "system",
    ]  # fmt: skip
    assert "  hardware offload   no: there is no network card: all interfaces are software" in lines
    assert "  clock kept right   not known: none of timedatectl, chronyc and adjtimex answers" in lines
    assert "lacks" not in out


def test_json(run):
    code, out, _ = run("alpha", "FILE", "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["schema"], document["gateway"], document["reached"]) == (
        "ipsecctl/facts/1",
        "alpha",
        True,
    )
    assert document["lacks"] == []
    assert document["charon"]["version_numbers"] == [6, 1, 0]


def test_what_is_lacking_comes_first_and_is_exit_status_1(run):
    code, out, _ = run("alpha", "FILE", recorded="lab-libipsec")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("alpha: none: the kernel has no ESP")
    assert lines[1].startswith("lacks: it has no ESP in the kernel")
    assert "CONFIG_INET_ESP" in lines[2]
    assert run("alpha", "FILE", recorded="lab-libipsec", plugins=["kernel-libipsec"])[0] == 0


def test_a_gateway_that_is_gone(run):
    code, out, err = run("alpha", "FILE", docker=GONE)
    assert (code, out) == (3, "")
    assert "container ipsecctl-pair-alpha does not exist" in err
    code, out, _ = run("alpha", "FILE", "--json", "--lab", "other", docker=GONE)
    document = json.loads(out)
    assert code == 3
    assert document["reached"] is False and "ipsecctl-other-alpha" in document["error"]["summary"]


def test_all_side_by_side(run):
    code, out, _ = run("--all", "FILE")
    assert code == 0
    heading = out.splitlines()[0].split()
    assert heading == ["alpha", "beta"]
    assert "beta: note: source NAT" in out
    code, out, _ = run("--all", "FILE", "--json", docker=GONE)
    document = json.loads(out)
    assert code == 3
    assert document["schema"] == "ipsecctl/facts-all/1"
    assert [g["gateway"] for g in document["gateways"]] == ["alpha", "beta"]


def test_wrong_names_and_wrong_usage(run):
    code, _, err = run("alhpa", "FILE")
    assert code == 1 and "Did you mean 'alpha'?" in err
    code, _, err = run("partner", "FILE")
    assert code == 1 and "managed: false" in err
    code, out, _ = run("alhpa", "FILE", "--json")
    assert code == 1 and "Did you mean" in json.loads(out)["diagnostics"][0]["hint"]
    assert run("alpha")[0] == 2
    code, _, err = run("--all", "alpha", "FILE")
    assert code == 2 and "no gateway" in err

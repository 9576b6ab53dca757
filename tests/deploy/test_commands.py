"""``plan``, ``apply`` and ``status`` where no gateway answers: clear words, valid JSON, in time."""

from __future__ import annotations

import json
import sys
import time

import pytest

from ipsecctl.cli import main

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:IPSECCTL_TEST_PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
  p: {managed: false, networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
tunnels:
  t: {between: [a, b]}
  u: {between: [a, p]}
"""
PSK = "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi"
GONE = "import sys; sys.stderr.write('Error response from daemon: No such container: c\\n'); sys.exit(1)"
HANGS = "import time; time.sleep(60)"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command with a docker that behaves as told."""
    file = tmp_path / "pair.yaml"
    file.write_text(TOPOLOGY)
    monkeypatch.setenv("IPSECCTL_TEST_PSK", PSK)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def call(docker, command, *options):
        (tmp_path / "bin").mkdir(exist_ok=True)
        fake = tmp_path / "bin" / "docker"
        fake.write_text(f"#!{sys.executable} -IS\n{docker}\n")
        fake.chmod(0o700)
        with pytest.raises(SystemExit) as ended:
            main([command, str(file), *options])
        said = capsys.readouterr()
        assert PSK not in said.out + said.err
        return ended.value.code, said.out, said.err

    return call


def test_status_cannot_tell(run):
    code, out, _ = run(GONE, "status", "--json")
    assert code == 3
    document = json.loads(out)
    assert document["schema"] == "ipsecctl/status/1"
    assert {t["name"]: t["verdict"] for t in document["tunnels"]} == {"t": "unknown", "u": "unknown"}
    assert document["tunnels"][1]["far_end"] == "not managed"
    assert [(g["name"], g["reached"]) for g in document["gateways"]] == [("a", False), ("b", False)]
    code, out, _ = run(GONE, "status")
    assert code == 3
    assert out.startswith("2 of 2 tunnels unknown\n")
    assert "a cannot be reached: container ipsecctl-pair-a does not exist" in out


@pytest.mark.slow
def test_hanging_gateways_cost_the_timeout_once(run):
    started = time.monotonic()
    code, out, _ = run(HANGS, "status", "--timeout", "0.5", "--json")
    assert time.monotonic() - started < 3
    assert code == 3
    assert {t["verdict"] for t in json.loads(out)["tunnels"]} == {"unknown"}


def test_plan_names_what_it_could_not_look_at(run):
    code, out, _ = run(GONE, "plan")
    assert code == 3
    assert "not planned: a: container ipsecctl-pair-a does not exist" in out
    code, out, _ = run(GONE, "plan", "--json", "--lab", "other")
    document = json.loads(out)
    assert code == 3
    assert document["schema"] == "ipsecctl/plan/1"
    assert "ipsecctl-other-b" in document["failures"]["b"]


def test_apply_fails_gateway_by_gateway(run):
    code, out, _ = run(GONE, "apply", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["schema"] == "ipsecctl/apply/1"
    assert [g["name"] for g in document["gateways"]] == ["a", "b"]
    assert all("does not exist" in g["error"] for g in document["gateways"])
    assert {t["verdict"] for t in document["tunnels"]} == {"unknown"}
    code, out, _ = run(GONE, "apply")
    assert code == 1
    assert "Failed: a, b" in out

"""A hub and four spokes, changed in batches: a canary, one that fails and goes back, a limit, one that hangs.

The tests follow one another in one lab: each begins where the one before left all as the topology says.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("fleet")]

TOPOLOGY = """\
ipsecctl: 1
name: fleet
defaults: {control: lab, profile: modern, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  hub: {networks: {lan: [10.1.0.0/24]}, gateway: 198.51.100.10}
  s1: {networks: {lan: [10.2.1.0/24]}, gateway: 203.0.113.21}
  s2: {networks: {lan: [10.2.2.0/24]}, gateway: 203.0.113.22}
  s3: {networks: {lan: [10.2.3.0/24]}, gateway: 203.0.113.23}
  s4: {networks: {lan: [10.2.4.0/24]}, gateway: 203.0.113.24}
tunnels:
  t: {hub: hub, spokes: ["s*"]}
"""
ALL = ("hub", "s1", "s2", "s3", "s4")
BATCHES = ("--canary", "s1", "--batch", "2", "--allow", "disturb")
BACK_WITHIN_S = 60.0 * PATIENCE
OF_CHARON = """for p in /proc/[0-9]*; do
    case $(cat $p/comm 2>/dev/null) in charon*) kill -s {} ${{p#/proc/}} ;; esac
done"""


@pytest.fixture(scope="module")
def applied(lab):
    lab.apply()
    return lab


def change(lab, old: str, new: str) -> None:
    """Change the topology's text."""
    file = Path(lab.file)
    text = file.read_text()
    assert old in text, "an earlier test has failed"
    file.write_text(text.replace(old, new))


def outcomes(document) -> dict[str, tuple[int | None, str]]:
    return {gateway["name"]: (gateway["batch"], gateway["outcome"]) for gateway in document["gateways"]}


def planned(lab, *options: str) -> set[str]:
    """Return the gateways on which there is something to do."""
    return {change["gateway"] for change in lab.json("plan", lab.file, *options)["changes"]}


def proposals(lab, gateway: str, tunnel: str) -> str:
    """Return what a tunnel's IKE_SA was agreed on."""
    return lab.sh(gateway, f"swanctl --list-sas --ike {tunnel} | grep -o 'AES_GCM.*PRF.*'").strip()


def carries(lab, spoke: str) -> bool:
    """Whether a packet finds its way to the hub's network and back through the tunnel."""
    number = spoke.removeprefix("s")
    return not lab.sh(spoke, f"ping -c 1 -W 1 -I 10.2.{number}.1 10.1.0.1 >/dev/null; echo $?").strip("0\n")


def all_carry(lab, spokes: tuple[str, ...]) -> None:
    deadline = time.monotonic() + BACK_WITHIN_S
    while missing := [spoke for spoke in spokes if not carries(lab, spoke)]:
        assert time.monotonic() < deadline, f"no answer through the tunnels of {missing}"
        time.sleep(0.2)


@contextmanager
def hung(lab, gateway: str) -> Iterator[None]:
    lab.sh(gateway, OF_CHARON.format("STOP"))
    try:
        yield
    finally:
        lab.sh(gateway, OF_CHARON.format("CONT"))


def apply_and(lab, when: str, do: Callable[[], object], *options: str) -> tuple[int, dict]:
    """Apply; when it says ``when``, have it stand still while something is done. Return what came of it."""
    argv = [sys.executable, "-m", "ipsecctl", "apply", lab.file, "--lab", lab.lab.name, "--yes", "--json"]
    with subprocess.Popen(
        [*argv, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(when):
                process.send_signal(signal.SIGSTOP)
                do()
                process.send_signal(signal.SIGCONT)
        out = process.communicate(timeout=120 * PATIENCE)[0]
    assert any(line.startswith(when) for line in said), "".join(said)
    return process.returncode, json.loads(out)


def test_batches_follow_the_canary(applied) -> None:
    before = proposals(applied, "hub", "t-s4")
    change(applied, "profile: modern", "profile: nist-800-77")
    meanwhile: list[str] = []
    status, done = apply_and(
        applied,
        "well    the canary",
        lambda: meanwhile.extend(proposals(applied, "hub", f"t-s{n}") for n in (1, 2, 4)),
        *BATCHES,
    )
    assert status == 0
    assert meanwhile[0] != before
    assert meanwhile[1:] == [before, before]
    assert outcomes(done) == {
        "hub": (1, "applied"),
        "s1": (1, "applied"),
        "s2": (2, "applied"),
        "s3": (2, "applied"),
        "s4": (3, "applied"),
    }
    assert {proposals(applied, "hub", f"t-s{n}") for n in (1, 2, 3, 4)} == {meanwhile[0]}


def test_a_batch_that_fails_goes_back_and_the_failed_are_tried_again(applied) -> None:
    change(applied, "gateway: 198.51.100.10", "gateway: {address: 198.51.100.10, identity: hub.example.net}")
    untouched = applied.sh("s4", "sha256sum /var/lib/ipsecctl/applied.json /etc/swanctl/conf.d/*")
    before = applied.sh("s2", "sha256sum /etc/swanctl/conf.d/*; swanctl --list-conns")
    status, done = apply_and(
        applied, "well    the canary", lambda: applied.charon("s3", "stop"), *BATCHES, "--wait", "5"
    )
    assert status == 1
    assert outcomes(done) == {
        "hub": (1, "partly"),
        "s1": (1, "applied"),
        "s2": (2, "rolled back"),
        "s3": (2, "rolled back"),
        "s4": (3, "not begun"),
    }
    assert done["stopped"].startswith("batch 2 of 3 failed: s3: charon is not running")
    assert set(done["waiting"]["undone"]) == {"s2", "s3"}
    assert applied.sh("s4", "sha256sum /var/lib/ipsecctl/applied.json /etc/swanctl/conf.d/*") == untouched
    assert applied.sh("s2", "sha256sum /etc/swanctl/conf.d/*; swanctl --list-conns") == before
    # The hub knows s1 by its new identity, and the others by the old one.
    all_carry(applied, ("s1", "s2", "s4"))
    applied.charon("s3", "start")
    again = applied.json("apply", applied.file, "--yes", "--allow", "disturb", "--retry-failed")
    assert outcomes(again) == {"hub": (1, "applied"), "s2": (1, "applied"), "s3": (1, "applied")}
    assert again["half"] == {"t-s4": ["s4"]}
    shown = applied.json("plan", applied.file, "--batch", "1")
    assert [(batch["gateways"], batch["along"]) for batch in shown["batches"]] == [(["hub", "s4"], ["hub"])]
    all_carry(applied, ("s1", "s2", "s3", "s4"))


def test_one_end_alone_goes_on_accepting_the_other(applied) -> None:
    applied.json("apply", applied.file, "--yes", "--allow", "disturb")
    change(applied, "profile: nist-800-77", "profile: modern")
    before = applied.sh("hub", "sha256sum /var/lib/ipsecctl/applied.json /etc/swanctl/conf.d/*")
    notes = [
        note["summary"]
        for gateway in applied.json("plan", applied.file, "--limit", "s[12]")["gateways"]
        for note in gateway["notes"]
    ]
    assert [note.split(";")[0] for note in notes] == [
        f"tunnel t-s{n}: hub is not in --limit and stays as it is" for n in (1, 2)
    ]
    done = applied.json("apply", applied.file, "--yes", "--limit", "s1", "--limit", "s[2]")
    assert (set(outcomes(done)), done["half"]) == ({"s1", "s2"}, {"t-s1": ["hub"], "t-s2": ["hub"]})
    assert applied.sh("hub", "sha256sum /var/lib/ipsecctl/applied.json /etc/swanctl/conf.d/*") == before
    all_carry(applied, ("s1", "s2", "s3", "s4"))
    applied.json("apply", applied.file, "--yes", "--limit", "hub")
    all_carry(applied, ("s1", "s2", "s3", "s4"))
    applied.sh("s3", "swanctl --rekey --ike t-s3 --reauth")  # with what it had: the hub accepts that, too
    all_carry(applied, ("s3",))
    whole = applied.json("apply", applied.file, "--yes")
    assert {tunnel["verdict"] for tunnel in whole["tunnels"]} == {"up"}
    assert (whole["half"], planned(applied)) == ({}, set())


def test_one_that_hangs_holds_up_nobody(applied) -> None:
    change(applied, "profile: modern", "profile: nist-800-77")
    with hung(applied, "s3"):
        began = time.monotonic()
        done = applied.json("apply", applied.file, "--yes", statuses=(1,))
        took_s = time.monotonic() - began
    assert [name for name, (_, outcome) in outcomes(done).items() if outcome != "applied"] == ["s3"]
    assert {t["name"] for t in done["tunnels"] if t["verdict"] == "up"} == {"t-s1", "t-s2", "t-s4"}
    # Some seconds for its first answer, none of the thirty that an answer may take.
    assert took_s < 20 * PATIENCE

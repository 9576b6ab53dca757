"""``apply --confirm`` on a gateway that systemd runs: its timer, and its unit at the next start."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ipsecctl import lab as labs
from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.change, pytest.mark.xdist_group("undo-systemd")]

GATEWAY = "clinic"
UNDONE = "/var/lib/ipsecctl/undone"
TOPOLOGY = """\
ipsecctl: 1
name: undo-systemd
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  clinic: {networks: {lan: [10.20.1.0/24]}, gateway: 203.0.113.20}
  dc: {networks: {servers: 10.10.0.0/24}, gateway: 198.51.100.10}
tunnels:
  clinic-dc: {between: [clinic, dc]}
"""
LAB = """\
ipsecctl-lab: 1
topology: topology.yaml
gateways:
  clinic: {init: systemd}
"""


@pytest.fixture(scope="module")
def lab(lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    folder = tmp_path_factory.mktemp("undo") / "undo-systemd"
    folder.mkdir()
    (folder / "topology.yaml").write_text(TOPOLOGY)
    (folder / "lab.yaml").write_text(LAB)
    with lab_of(labs.load(str(folder / "lab.yaml"))) as running:
        running.sh(GATEWAY, "ip address add 10.20.9.1/24 dev lan-lan")  # of a network added later
        running.apply()
        yield running


@pytest.fixture
def other(lab, tmp_path):
    return lab.changed(tmp_path, lambda text: text.replace("10.20.1.0/24", "10.20.1.0/24, 10.20.9.0/24"))


def until(what, said: str) -> None:
    deadline = time.monotonic() + 60 * PATIENCE
    while not what():
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def is_back(lab, gateway: str) -> bool:
    return " back\n" in lab.sh(gateway, f"cat {UNDONE} 2>/dev/null", statuses=(0, 1))


def is_as_before(lab) -> None:
    until(lambda: "Nothing to do" in lab.ipsecctl("plan", lab.file, statuses=(0, 1)).stdout, "the plan")
    until(lambda: lab.ipsecctl("status", lab.file, statuses=(0, 1, 3)).returncode == 0, "the tunnel")
    listed = lab.sh(
        GATEWAY, "systemctl list-unit-files 'ipsecctl*' --no-legend; systemctl --failed --no-legend"
    )
    assert [line.split()[:2] for line in listed.splitlines()] == [["ipsecctl-guard.service", "enabled"]]


def test_its_timer_takes_it_back(lab, other) -> None:
    for _ in range(2):  # the second while the first still calls its tunnels
        other.ipsecctl("apply", other.file, "--yes", "--confirm", "10s", statuses=(0, 1))
        until(lambda: is_back(lab, GATEWAY) and is_back(lab, "dc"), "both ends to go back")
    is_as_before(lab)


def test_confirmed_no_timer_is_left(lab, other) -> None:
    other.ipsecctl("apply", other.file, "--yes", "--confirm", "10m")
    assert "ipsecctl-undo.timer" in lab.sh(GATEWAY, "systemctl list-timers --no-legend")
    other.ipsecctl("confirm", other.file)
    assert "ipsecctl-undo" not in lab.sh(GATEWAY, "systemctl list-timers --all --no-legend")
    lab.apply()
    is_as_before(lab)


def test_a_power_cut_takes_it_back_at_the_next_start(lab, other) -> None:
    other.ipsecctl("apply", other.file, "--yes", "--confirm", "10m")
    lab.without_lab("lab", "reboot", lab.lab.name, GATEWAY)
    assert is_back(lab, GATEWAY)
    lab.sh("dc", "sh /var/lib/ipsecctl/undo/undo now free")
    is_as_before(lab)

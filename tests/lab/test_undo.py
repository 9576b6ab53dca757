"""``apply --confirm``: gateways go back by themselves; and what keeps, refuses, records and hurries that."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipsecctl import lab as labs
from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.change, pytest.mark.xdist_group("undo")]

KILLED = Path(__file__).with_name("killed.py")
BACK_WITHIN_S = 60.0 * PATIENCE

TOPOLOGY = """\
ipsecctl: 1
name: undo
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  dc: {networks: {lan: [10.1.0.0/24]}, gateway: 198.51.100.10}
  a: {networks: {lan: [10.2.0.0/24]}, gateway: 203.0.113.20}
  b: {networks: {lan: [10.3.0.0/24]}, gateway: 203.0.113.30}
tunnels:
  ta: {between: [a, dc]}
  tb: {between: [b, dc]}
"""
FOREIGN = """\
connections { somebodys { version = 2
  remote_addrs = 192.0.2.77
  local { auth = psk
    id = here }
  remote { auth = psk
    id = there }
  children { somebodys { local_ts = 10.77.0.0/24
    remote_ts = 10.78.0.0/24 } } } }
"""
# All that an apply can change, without what differs by itself (addresses of links, counters).
STATE = r"""
swanctl --list-conns; swanctl --list-conns --raw | grep -c .
nft -s list table inet ipsecctl 2>/dev/null
for family in -4 -6; do ip $family rule show; ip $family route show table all proto 213; done
ls /sys/class/net
find /etc -type f \( -path '*ipsecctl*' \) -exec stat -c '%a %n' {} + -exec sha256sum {} + | sort
sha256sum /var/lib/ipsecctl/applied.json 2>/dev/null
cd /proc/sys/net/ipv4; cat ip_forward conf/all/rp_filter conf/*/send_redirects; cd /
ls /var/lib/ipsecctl 2>/dev/null | grep -v undone
"""
SA_IDS = "swanctl --list-sas --ike {tunnel} --raw | tr ' ' '\\n' | grep ^uniqueid= | head -n 1"


@pytest.fixture(scope="module")
def lab(lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    folder = tmp_path_factory.mktemp("undo") / "undo"
    folder.mkdir()
    (folder / "topology.yaml").write_text(TOPOLOGY)
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(folder / "lab.yaml"))) as running:
        for gateway in running.managed:
            running.sh(gateway, "cat >/etc/swanctl/conf.d/somebody.conf", FOREIGN.encode())
            running.sh(gateway, "swanctl --load-all >/dev/null 2>&1")
        yield running


@pytest.fixture(scope="module")
def applied(lab):
    lab.apply()
    return lab


@pytest.fixture
def other(applied, tmp_path: Path):
    """The topology with tunnel ``ta`` changed in all that can differ, and a new one that does not come up."""

    def change(text: str) -> str:
        told = "{between: [a, dc], profile: nist-800-77, credential: {psk: 'file:secrets/other.psk'}}"
        text = text.replace("{between: [a, dc]}", told).replace(
            "[10.2.0.0/24]", "[10.2.0.0/24, 10.22.0.0/24]"
        )
        partner = "  p: {managed: false, networks: {lan: 10.9.0.0/24}, gateway: 203.0.113.99}\ntunnels:"
        return text.replace("tunnels:", partner) + "  tp: {between: [dc, p]}\n"

    (tmp_path / "other").mkdir()
    changed = applied.changed(tmp_path / "other", change)
    changed.without_lab("secret", "generate", changed.file, statuses=(0, 1))
    return changed


def state(lab) -> dict[str, str]:
    return {gateway: lab.sh(gateway, STATE, statuses=(0, 1)) for gateway in lab.managed}


def goes_back(lab, gateways: tuple[str, ...]) -> None:
    """Wait until gateways have gone back, and wholly."""
    deadline = time.monotonic() + BACK_WITHIN_S
    for gateway in gateways:
        while not (said := lab.sh(gateway, "cat /var/lib/ipsecctl/undone 2>/dev/null", statuses=(0, 1))):
            assert time.monotonic() < deadline, f"{gateway} does not go back"
            time.sleep(0.5)
        assert said.split(maxsplit=2)[2].strip() == "back"


def tunnels_up(lab) -> None:
    deadline = time.monotonic() + BACK_WITHIN_S
    while lab.ipsecctl("status", lab.file, statuses=(0, 1, 3)).returncode:
        assert time.monotonic() < deadline, lab.ipsecctl("status", lab.file, statuses=(0, 1, 3)).stdout
        time.sleep(0.5)


def unconfirmed(lab, within: str, *more: str, statuses: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    document = lab.json("apply", lab.file, "--yes", "--confirm", within, *more, statuses=statuses)
    assert isinstance(document, dict)
    return document


def test_a_first_apply_goes_back(lab) -> None:
    before = state(lab)
    done = unconfirmed(lab, "10s", statuses=(0,))
    assert done["waiting"]["gateways"] == ["a", "b", "dc"]
    goes_back(lab, ("a", "b", "dc"))
    assert state(lab) == before


def test_one_that_waits_is_told_refuses_another_and_is_confirmed(applied, other) -> None:
    unconfirmed(other, "10m", "--wait", "1")
    planned = applied.json("plan", applied.file, statuses=(1,))
    conflicts = [c["summary"] for g in planned["gateways"] for c in g["conflicts"]]
    assert sorted(c.split()[0] for c in conflicts) == ["a", "dc"]
    assert all("waits for the confirmation of the apply of" in conflict for conflict in conflicts)
    refused = applied.ipsecctl("apply", applied.file, "--yes", statuses=(1,)).stderr
    assert "waits for the confirmation" in refused
    assert "ipsecctl confirm" in refused
    assert "confirm" in applied.ipsecctl("status", applied.file, statuses=(0, 1, 3)).stdout
    done = other.json("confirm", other.file)
    assert done["confirmed"] == ["a", "dc"]
    for gateway in ("a", "dc"):
        assert applied.sh(gateway, "ls /var/lib/ipsecctl").split() == ["applied.json"]
    assert "Nothing to do" in other.ipsecctl("plan", other.file).stdout
    said = [each["confirmation"] for each in other.json("history")["revisions"]]
    assert next(filter(None, said)).startswith("confirmed by ")
    assert "Nothing waits" in other.ipsecctl("confirm", other.file).stdout


def test_rollback_is_an_apply_of_what_was_before(applied) -> None:
    file = Path(applied.file)
    before = file.read_text()
    applied.apply("--allow", "tp")
    try:
        file.write_text(before.replace("{control: lab,", "{control: lab, profile: nist-800-77,"))
        applied.ipsecctl("apply", applied.file, "--yes")
        done = applied.json("rollback", applied.file, "--yes")
    finally:
        file.write_text(before)
    assert {tunnel["verdict"] for tunnel in done["tunnels"]} == {"up"}
    assert "Nothing to do" in applied.ipsecctl("plan", applied.file).stdout
    newest, last, *earlier = applied.json("history")["revisions"]
    went_to = next(each for each in earlier if each["number"] == newest["rollback_of"])
    assert newest["sha256"] == went_to["sha256"] != last["sha256"]
    nowhere = applied.ipsecctl("rollback", applied.file, "999", "--yes", statuses=(1,))
    assert "there is no revision 999" in nowhere.stderr


def test_a_change_goes_back_and_its_neighbour_is_not_touched(applied, other) -> None:
    applied.apply("--allow", "tp")
    before = state(applied)
    neighbour = applied.sh("dc", SA_IDS.format(tunnel="tb"))
    unconfirmed(other, "10s", "--wait", "1")
    goes_back(other, ("a", "dc"))
    tunnels_up(applied)
    assert state(applied) == before
    assert applied.sh("dc", SA_IDS.format(tunnel="tb")) == neighbour
    assert "Nothing to do" in applied.ipsecctl("plan", applied.file).stdout
    late = other.json("confirm", other.file, statuses=(1,))
    assert set(late["not_confirmed"]) == {"a", "dc"}
    assert "gone back" in other.json("history")["revisions"][0]["confirmation"]


def test_it_goes_back_although_whoever_applied_is_dead(applied, other, tmp_path: Path) -> None:
    applied.apply("--allow", "tp")
    before = state(applied)
    log = tmp_path / "log"
    whole = [sys.executable, str(KILLED), "0", "before", str(log)]
    args = ["apply", other.file, "--lab", other.lab.name, "--yes", "--wait", "1", "--confirm", "10s"]
    subprocess.run([*whole, *args], capture_output=True, check=False, timeout=120 * PATIENCE)
    goes_back(other, ("a", "dc"))
    tunnels_up(applied)
    assert state(applied) == before
    # Where connections are loaded, with the files of both ends already new.
    number = next(n for n, what in enumerate(log.read_text().splitlines(), 1) if "load-conn" in what)
    killed = subprocess.run(
        [sys.executable, str(KILLED), str(number), "before", str(log), *args],
        capture_output=True,
        check=False,
        timeout=120 * PATIENCE,
    )
    assert killed.returncode == -signal.SIGKILL
    goes_back(other, ("a", "dc"))
    tunnels_up(applied)
    assert state(applied) == before


def test_a_power_cut_counts_as_not_confirmed(applied, other) -> None:
    applied.apply("--allow", "tp")
    files = (
        "find /etc -type f -path '*ipsecctl*' -exec sha256sum {} + | sort; cat /var/lib/ipsecctl/applied.json"
    )
    before = applied.sh("a", files)
    unconfirmed(other, "10m", "--wait", "1")
    assert applied.sh("a", files) != before
    applied.without_lab("lab", "reboot", applied.lab.name, "a")
    assert applied.sh("a", files) == before
    assert "back" in applied.sh("a", "cat /var/lib/ipsecctl/undone")
    # One of two has gone back: the other is not kept, unless that is wanted.
    refused = other.json("confirm", other.file, statuses=(1,))
    assert refused["confirmed"] == []
    assert "gone back" in refused["not_confirmed"]["a"]
    applied.sh("dc", "sh /var/lib/ipsecctl/undo/undo now free")
    tunnels_up(applied)


def test_what_fails_is_undone_at_once(applied, other) -> None:
    applied.apply("--allow", "tp")
    before = state(applied)
    done = json.loads(
        other.ipsecctl(
            *("apply", other.file, "--yes", "--wait", "1", "--undo-on-failure", "--json"), statuses=(1,)
        ).stdout
    )
    assert done["waiting"]["undone"] == {"a": "back", "dc": "back"}
    tunnels_up(applied)
    assert state(applied) == before


def test_every_charon_restarted_has_what_it_had(applied) -> None:
    def connections() -> dict[str, list[str]]:
        """Return what is loaded; in which order is of no account."""
        return {n: sorted(applied.sh(n, "swanctl --list-conns").splitlines()) for n in applied.managed}

    applied.apply("--allow", "tp")
    before = connections()
    for gateway in applied.managed:
        applied.charon(gateway, "stop")
    for gateway in applied.managed:
        applied.charon(gateway, "start")
    # As the unit of systemd does on a server. All load before one calls: who is refused does not call again.
    for command in ("swanctl --load-all --noprompt", "sh /etc/ipsecctl/call"):
        for gateway in applied.managed:
            applied.sh(gateway, command)
    tunnels_up(applied)
    for site in ("a", "b"):
        applied.sh(f"{site}-lan", "ping -c 2 -W 5 10.1.0.10 >/dev/null")
    assert connections() == before

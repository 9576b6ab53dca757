"""charon's own device, the rule that leads to it and its routes, taken from under a running charon.

``status`` says so within its time, ``plan`` shows it, ``apply`` mends it, and a second one finds nothing to
do. On the kernel's data path there is no such device.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from two_spokes import HOSTS, NEIGHBOUR, TUNNEL, arrives, mended, topology, tunnels, verdicts

from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("own-device")]

TOPOLOGY = topology("own-device")
CHARON = "/usr/lib/ipsecctl-lab/charon"


@pytest.fixture(scope="module", autouse=True)
def lab(lab, data_path: str):
    if data_path == "kernel":
        pytest.skip("the kernel carries ESP: charon has no device of its own")
    lab.apply()
    return lab


def changes(lab, gateway: str) -> set[tuple[str, str]]:
    found = lab.json("plan", lab.file)["changes"]
    assert {change["gateway"] for change in found} <= {gateway}
    return {(change["part"], change["name"]) for change in found}


def rules(lab, gateway: str) -> list[str]:
    listed = lab.sh(gateway, "ip rule; ip -6 rule").splitlines()
    return [line for line in listed if line.startswith("220:")]


@pytest.mark.parametrize("gateway", ["dc", "a"])
@pytest.mark.parametrize(("family", "other"), [(4, 6), (6, 4)])
def test_a_rule_that_somebody_took(lab, gateway: str, family: int, other: int) -> None:
    lab.sh(gateway, f"ip -{family} rule del pref 220")
    try:
        assert (arrives(lab, family=family), arrives(lab, family=other)) == (False, True)
        found = tunnels(lab)[TUNNEL]
        assert found["verdict"] == "degraded", "the other family still passes"
        assert found["causes"][0].startswith(
            f"{gateway}: the rule by which IPv{family} packets find charon's routes is not there "
            "(220: from all lookup 220)"
        )
        assert changes(lab, gateway) == {("device", f"rule ipv{family} 220 lookup 220")}
    finally:
        mended(lab)
    assert len(rules(lab, gateway)) == 2


def test_both_rules_and_charon_takes_them_for_its_own_afterwards(lab) -> None:
    lab.sh("dc", "ip rule del pref 220; ip -6 rule del pref 220")
    try:
        found = tunnels(lab)
        assert {tunnel["verdict"] for tunnel in found.values()} == {"down"}
        assert len(found[TUNNEL]["causes"]) == 2, "a sentence for each family"
        assert len(found[NEIGHBOUR]["causes"]) == 1, "it has no IPv6"
    finally:
        mended(lab)
    lab.charon("dc", "stop")
    assert rules(lab, "dc") == []
    lab.charon("dc", "start")
    assert len(rules(lab, "dc")) == 2
    mended(lab)


def test_a_rule_that_comes_too_late_is_none(lab) -> None:
    lab.sh("dc", "ip rule del pref 220; ip rule add pref 32768 from all lookup 220")
    try:
        assert verdicts(lab)[NEIGHBOUR] == "down"
    finally:
        mended(lab)
        lab.sh("dc", "ip rule del pref 32768")
    assert verdicts(lab)[NEIGHBOUR] == "up"


def test_a_rule_elsewhere_that_does_the_same_is_as_good(lab) -> None:
    lab.sh("dc", "ip rule add pref 100 from all lookup 220; ip rule del pref 220")
    try:
        assert arrives(lab)
        assert verdicts(lab) == {TUNNEL: "up", NEIGHBOUR: "up"}
        assert changes(lab, "dc") == set()
    finally:
        lab.sh("dc", "ip rule add pref 220 from all lookup 220; ip rule del pref 100")


@pytest.mark.parametrize("gateway", ["dc", "a"])
def test_a_device_that_is_down(lab, gateway: str) -> None:
    lab.sh(gateway, "ip link set ipsec0 down")
    try:
        assert not arrives(lab)
        found = tunnels(lab)
        assert found[TUNNEL]["verdict"] == "down"
        assert f"{gateway}: charon's device ipsec0 is down" in found[TUNNEL]["causes"][0]
        assert found[NEIGHBOUR]["verdict"] == ("down" if gateway == "dc" else "up")
        assert changes(lab, gateway) == {("device", "ipsec0")}, "no tunnel is disturbed"
    finally:
        mended(lab)


def test_a_device_that_somebody_has_set_up_again_needs_nothing(lab) -> None:
    lab.sh("dc", "ip link set ipsec0 down; sleep 1; ip link set ipsec0 up; sleep 1")
    assert changes(lab, "dc") == set()
    assert verdicts(lab) == {TUNNEL: "up", NEIGHBOUR: "up"}


def test_a_trap_without_its_routes_is_loaded_again(lab) -> None:
    """Without an SA charon calls nothing INSTALLED, and no packet would ever spring the trap."""
    lab.sh("a", f"swanctl --terminate --ike {TUNNEL} --force; ip route flush table 220", statuses=(0, 1))
    ends = {end["gateway"]: end for end in tunnels(lab)[TUNNEL]["ends"]}
    assert not any(sa["child_sas"] for sa in ends["a"]["ike_sas"]), "the trap has not been sprung"
    found = tunnels(lab)[TUNNEL]
    assert (found["verdict"], arrives(lab)) == ("down", False)
    assert "a: charon's routes through ipsec0 are not there" in found["causes"][0]
    assert ("connection", TUNNEL) in changes(lab, "a")
    mended(lab)


def test_who_calls_again_for_its_routes_waits_until_the_far_end_has_the_added_network(lab) -> None:
    """``dc`` loads its connection a second late, and packets would spring the trap of ``a`` at once."""
    file = Path(lab.file).with_name("more.yaml")
    text = Path(lab.file).read_text()
    file.write_text(text.replace('"fd00:10::/64"]', '"fd00:10::/64"], imaging: 10.10.9.0/24'))
    lab.sh("dc", "ip address add 10.10.9.1/24 dev lan-servers")
    lab.sh("a", "ip route del 10.10.0.0/24 table 220")
    for host in HOSTS.values():
        lab.sh("a-lan", f"ping -i 0.02 -w 120 {host} >/dev/null 2>&1 </dev/null &")
    late = str(Path(__file__).parent / "tools" / "late.py")
    argv = [sys.executable, late, "dc", "second", "apply", str(file), "--yes", "--json"]
    try:
        done = subprocess.run(
            [*argv, "--lab", lab.lab.name], capture_output=True, text=True, timeout=60 * PATIENCE, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "made anew" not in done.stderr, "it came up whole the first time"
        assert "10.10.9.0/24" in lab.sh("a", f"swanctl --list-sas --ike {TUNNEL}")
        assert "Nothing to do" in lab.ipsecctl("apply", str(file), "--yes").stdout
    finally:
        lab.sh("a-lan", "pkill -x ping", statuses=(0, 1))
        mended(lab)
        lab.sh("dc", "ip address del 10.10.9.1/24 dev lan-servers")


def test_a_device_that_is_gone_comes_back_with_charon_alone(lab) -> None:
    lab.sh("dc", "ip link del ipsec0")
    try:
        assert not arrives(lab)
        found = tunnels(lab)
        assert {tunnel["verdict"] for tunnel in found.values()} == {"down"}
        assert "dc: charon's device ipsec0 is gone" in found[TUNNEL]["causes"][0]
        assert f"{CHARON} stop" in found[TUNNEL]["causes"][0]
        assert ("charon", "restart") in changes(lab, "dc")
    finally:
        mended(lab)
    assert "ipsec0" in lab.sh("dc", "ip -o link show type tun")


def test_holding_routes_that_are_missing_are_told(lab) -> None:
    lab.sh(
        "dc", "ip route del unreachable 10.20.1.0/24 proto 213; ip -6 route del unreachable fd00:20:1::/64"
    )
    try:
        (cause,) = tunnels(lab)[TUNNEL]["causes"]
        assert "the routes that hold what no tunnel carries are not there" in cause
        assert "(10.20.1.0/24, fd00:20:1::/64)" in cause
    finally:
        mended(lab)
    assert tunnels(lab)[TUNNEL]["causes"] == []


OTHERS = b"""\
connections {
    others {
        remote_addrs = 192.0.2.99
        local { auth = psk }
        remote { auth = psk }
    }
}
"""


def test_a_charon_that_somebody_else_uses_is_not_restarted_for_it(lab) -> None:
    lab.sh("dc", "cat >/etc/swanctl/conf.d/others.conf && swanctl --load-conns", OTHERS)
    try:
        mended(lab)
        lab.sh("dc", "ip link del ipsec0")
        plan = lab.json("plan", lab.file)
        (gateway,) = [entry for entry in plan["gateways"] if entry["name"] == "dc"]
        assert gateway["restart_for"] == ["its device ipsec0, which is gone"]
        assert ("charon", "restart") not in {(c["part"], c["name"]) for c in plan["changes"]}
        done = lab.json("apply", lab.file, "--yes", statuses=(1,))
        assert {tunnel["verdict"] for tunnel in done["tunnels"]} <= {"down", "degraded"}
        assert "others" in lab.sh("dc", "swanctl --list-conns")
    finally:
        lab.sh("dc", "rm /etc/swanctl/conf.d/others.conf")
        lab.charon("dc", "stop")
        lab.charon("dc", "start")
        mended(lab)

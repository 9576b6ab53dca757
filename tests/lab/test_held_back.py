"""A change of tunnels whose new SAs cannot come up: the plan says so, and apply leaves them as they run.

Each change is seen to move the same tunnel where nothing is in its way, before or after.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from two_spokes import NEIGHBOUR, TUNNEL, arrives, mended, planned, spis, topology, tunnels, verdicts

from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("held-back")]

TOPOLOGY = topology("held-back")
NO_IPV6 = (
    "a: IPv6 is off on ipsec0 (net.ipv6.conf.ipsec0.disable_ipv6 is 1), so charon's routes to fd00:10::/64"
)
INTERNET = "nft insert rule inet internet forward ip {} 203.0.113.99 accept"
"""The lab's knows the addresses that the topology declared when it came up."""

NO_ADDRESS = "a does not have its declared address 203.0.113.99: no interface has it"


@pytest.fixture(scope="module", autouse=True)
def lab(lab):
    lab.apply()
    return lab


def other_profile(text: str) -> str:
    return text.replace("defaults: {", "defaults: {profile: nist-800-77, ")


def left_alone(lab, says: str, *allowed: str) -> None:
    """Assert that an apply leaves the tunnel on its SAs, and says why, and does the rest."""
    before = {gateway: spis(lab, gateway) for gateway in ("a", "dc")}
    assert len(before["a"]) == 2
    done = lab.json("apply", lab.file, "--yes", *allowed, statuses=(1,))
    told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
    assert (told[TUNNEL]["verdict"], told[NEIGHBOUR]["verdict"]) == ("degraded", "up")
    assert any(cause.startswith(says) for cause in told[TUNNEL]["causes"])
    assert told[TUNNEL]["held"] is not bool(allowed)
    assert not told[NEIGHBOUR]["held"]
    assert {gateway: spis(lab, gateway) for gateway in ("a", "dc")} == before, "none of its SAs was ended"
    assert (arrives(lab), arrives(lab, "b-lan")) == (True, True)


def held(lab, says: str) -> None:
    """Assert that the plan holds the tunnel back and disturbs no other, and says how that is overruled."""
    for gateway in ("a", "dc"):
        plan = planned(lab, gateway)
        ((tunnel, causes),) = plan["held"].items()
        assert tunnel == TUNNEL
        assert causes[0].startswith(says)
        assert TUNNEL not in plan["disturbed"]
    (change,) = [
        change
        for change in lab.json("plan", lab.file)["changes"]
        if (change["gateway"], change["part"], change["name"]) == ("a", "connection", TUNNEL)
    ]
    assert change["disruption"] in ("child restart", "IKE restart")
    assert "held back: new SAs would not come up" in "; ".join(change["reasons"])
    said = lab.ipsecctl("plan", lab.file).stdout
    assert f"Held back: {TUNNEL}, as new SAs would not come up: {says}" in said
    assert said.count(f"--allow {TUNNEL} tries it all the same.") == 1


@pytest.mark.parametrize("setting", ["all", "ipsec0"])
def test_a_change_with_ipv6_off_leaves_what_still_passes(
    lab, data_path, setting: str, tmp_path: Path
) -> None:
    if data_path == "kernel":
        pytest.skip("the kernel carries ESP: charon sets no routes")
    mended(lab)
    changed = lab.changed(tmp_path, other_profile)
    lab.sh("a", f"sysctl -qw net.ipv6.conf.{setting}.disable_ipv6=1")
    try:
        assert (arrives(lab), arrives(lab, family=6)) == (True, False)
        neighbours = spis(lab, "b", NEIGHBOUR)
        held(changed, NO_IPV6)
        left_alone(changed, NO_IPV6)
        assert spis(lab, "b", NEIGHBOUR) != neighbours, "the neighbour was moved"
        left_alone(changed, NO_IPV6)
        if setting == "all":  # it fails at this end, and what runs stays all the same
            left_alone(changed, NO_IPV6, "--allow", TUNNEL)
            assert lab.sh("a", f"swanctl --list-sas --ike {TUNNEL}").count("ESTABLISHED") == 1
    finally:
        lab.sh("a", f"sysctl -qw net.ipv6.conf.{setting}.disable_ipv6=0")
        if setting == "all":  # the kernel has forgotten it
            lab.sh("a", "ip -6 address replace fd00:20:1::1/64 dev lan-lan nodad")
    before = spis(lab)
    mended(changed)
    assert spis(lab) != before, "with IPv6 back the same change moves it"
    mended(lab)


def test_an_address_that_no_interface_has(lab, tmp_path: Path) -> None:
    mended(lab)
    changed = lab.changed(tmp_path, lambda text: text.replace("203.0.113.20", "203.0.113.99"))
    held(changed, NO_ADDRESS)
    left_alone(changed, NO_ADDRESS)
    found = tunnels(changed)[TUNNEL]
    assert found["verdict"] == "degraded", "it passes between the addresses of before"
    assert found["causes"][0].startswith(NO_ADDRESS)
    lab.sh("internet", f"{INTERNET.format('saddr')}; {INTERNET.format('daddr')}")
    lab.sh("a", "ip address add 203.0.113.99/24 dev wan")
    try:
        before = spis(lab)
        mended(changed)
        assert spis(lab) != before
        assert "@ 203.0.113.99[" in lab.sh("a", f"swanctl --list-sas --ike {TUNNEL}")
        mended(lab)
    finally:
        lab.sh("a", "ip address del 203.0.113.99/24 dev wan")
    assert verdicts(lab) == {TUNNEL: "up", NEIGHBOUR: "up"}


BY_LAN = "a sends to 198.51.100.10 by lan-lan, and not by wan, which has its address 203.0.113.20"
LEAD_ASTRAY = "ip route add 198.51.100.10/32 dev lan-lan"


def silent(lab) -> bool:
    """Whether nothing of the tunnel has reached the data centre for so long that nothing seems to."""
    listed = lab.sh("dc", f"swanctl --list-sas --ike {TUNNEL}").splitlines()
    (told,) = [line for line in listed if line.startswith("    in ")]
    ago = [word.strip() for word in told.split(",") if word.strip().endswith("s ago")]
    return not ago or int(ago[0].split("s")[0]) > 10


def unhurried(says: str) -> Callable[[str], str]:
    """Have an own profile in which a silent peer is not asked for a sign of life for a while."""
    mine = f"profiles: {{mine: {{based_on: modern, dpd_delay: 300s, {says}}}}}\n"
    return lambda text: text.replace("defaults: {", f"{mine}defaults: {{profile: mine, ")


def test_a_route_to_the_peer_by_another_interface(lab, tmp_path: Path) -> None:
    """What may be meant is believed as long as what is sent that way arrives."""
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    mended(lab.changed(tmp_path / "before", unhurried("esp_rekey: 1h")))
    changed = lab.changed(tmp_path / "after", unhurried("esp_rekey: 20m"))
    lab.sh("a", LEAD_ASTRAY)
    try:
        deadline = time.monotonic() + 60 * PATIENCE
        while not silent(lab):
            assert time.monotonic() < deadline, "what is sent still arrives"
            time.sleep(0.5)
        before = {gateway: spis(lab, gateway) for gateway in ("a", "dc")}
        held(changed, BY_LAN)
        done = lab.json("apply", changed.file, "--yes", statuses=(1,))
        told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
        assert (told[TUNNEL]["verdict"], told[NEIGHBOUR]["verdict"]) == ("degraded", "up"), json.dumps(done)
        assert any(cause.startswith(BY_LAN) for cause in told[TUNNEL]["causes"])
        assert {gateway: spis(lab, gateway) for gateway in ("a", "dc")} == before, "none was ended"
    finally:
        lab.sh("a", LEAD_ASTRAY.replace("add", "del"))
    assert arrives(lab), "on the SAs of before"
    mended(changed)
    assert spis(lab) != before["a"]
    mended(lab)


def test_what_is_allowed_by_name_is_done_all_the_same(lab, tmp_path: Path) -> None:
    changed = lab.changed(tmp_path, lambda text: text.replace("203.0.113.20", "203.0.113.99"))
    mended(lab)
    before = spis(lab)
    try:
        done = lab.json("apply", changed.file, "--yes", "--allow", TUNNEL, statuses=(1,))
        told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
        assert (told[TUNNEL]["verdict"], told[NEIGHBOUR]["verdict"]) == ("down", "up")
        assert told[TUNNEL]["causes"][0].startswith(NO_ADDRESS)
        assert before != spis(lab)
    finally:
        mended(lab)

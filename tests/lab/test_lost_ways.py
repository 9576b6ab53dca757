"""Ways that no apply can bring back: it names them, and leaves alone what still runs.

IPv6 switched off where charon carries ESP; a gateway without a route to its peer, or without its own address.
Each is seen working before, and again when it is mended.
"""

from __future__ import annotations

import json

import pytest
from two_spokes import NEIGHBOUR, TUNNEL, arrives, mended, planned, spis, topology, tunnels

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("lost-ways")]

TOPOLOGY = topology("lost-ways")
NO_IPV6 = (
    "a: IPv6 is off on ipsec0 (net.ipv6.conf.ipsec0.disable_ipv6 is 1), so charon's routes to fd00:10::/64"
)


@pytest.fixture(scope="module", autouse=True)
def lab(lab):
    lab.apply()
    return lab


def notes(lab, name: str) -> list[str]:
    return [note["summary"] for note in planned(lab, name)["notes"]]


def both(lab) -> tuple[bool, bool]:
    """Whether IPv4 and IPv6 pass."""
    return arrives(lab), arrives(lab, family=6)


@pytest.mark.parametrize("setting", ["all", "ipsec0"])
def test_sas_that_might_not_come_back_with_ipv6_off_are_left_alone(lab, data_path: str, setting: str) -> None:
    if data_path == "kernel":
        pytest.skip("the kernel carries ESP: charon sets no routes")
    mended(lab)
    before = spis(lab)
    assert len(before) == 2
    lab.sh("a", f"sysctl -qw net.ipv6.conf.{setting}.disable_ipv6=1")
    try:
        assert both(lab) == (True, False)
        found = tunnels(lab)[TUNNEL]
        assert found["verdict"] == "degraded"
        cause = found["causes"][0]
        assert cause.startswith(NO_IPV6)
        assert f"sysctl -w net.ipv6.conf.{setting}.disable_ipv6=0" in cause
        assert any(note.startswith(NO_IPV6) for note in notes(lab, "a"))
        assert lab.json("plan", lab.file)["gateways"][0]["disturbed"] == {}
        for allowed in ((), ("--allow", "disturb"), ("--allow", TUNNEL)):
            done = lab.json("apply", lab.file, "--yes", *allowed, statuses=(1,))
            told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
            assert told[TUNNEL]["verdict"] == "degraded"
            assert cause in told[TUNNEL]["causes"], "the same words"
            assert told[NEIGHBOUR]["verdict"] == "up"
        assert spis(lab) == before, "none of its SAs was ended"
        assert both(lab) == (True, False)
    finally:
        lab.sh("a", f"sysctl -qw net.ipv6.conf.{setting}.disable_ipv6=0")
        if setting == "all":  # the kernel has forgotten it
            lab.sh("a", "ip -6 address replace fd00:20:1::1/64 dev lan-lan nodad")
    mended(lab)


def test_without_sas_the_same_is_why_none_comes_up(lab, data_path: str) -> None:
    if data_path == "kernel":
        pytest.skip("the kernel carries ESP: charon sets no routes")
    lab.sh("a", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    try:
        lab.charon("a", "stop")  # a trap of before would still know of the routes
        lab.charon("a", "start")
        done = lab.json("apply", lab.file, "--yes", statuses=(1,))
        told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
        assert told[TUNNEL]["verdict"] == "down"
        assert told[TUNNEL]["causes"][0].startswith(NO_IPV6)
        found = tunnels(lab)[TUNNEL]
        assert (found["verdict"], found["causes"][0]) == ("down", told[TUNNEL]["causes"][0])
    finally:
        lab.sh("a", "sysctl -qw net.ipv6.conf.all.disable_ipv6=0")
        lab.sh("a", "ip -6 address replace fd00:20:1::1/64 dev lan-lan nodad")
    mended(lab)


DEFAULT = "ip route replace default via 203.0.113.1"
NO_ROUTE = "a has no route to 198.51.100.10 (Network is unreachable)"
NO_ADDRESS = "a does not have its declared address 203.0.113.20"


@pytest.mark.parametrize(
    ("taken", "given", "says"),
    [
        ("ip route del default", DEFAULT, [NO_ROUTE]),
        (
            "ip address del 203.0.113.20/24 dev wan",
            f"ip address add 203.0.113.20/24 dev wan; {DEFAULT}",
            [NO_ADDRESS, NO_ROUTE],
        ),
        (
            f"ip address del 203.0.113.20/24 dev wan; ip address add 203.0.113.21/24 dev wan; {DEFAULT}",
            f"ip address del 203.0.113.21/24 dev wan; ip address add 203.0.113.20/24 dev wan; {DEFAULT}",
            [NO_ADDRESS],
        ),
    ],
)
def test_a_gateway_that_can_send_nothing_to_its_peer(lab, taken: str, given: str, says: list[str]) -> None:
    mended(lab)
    assert notes(lab, "a") == []
    lab.sh("a", taken)
    try:
        found = tunnels(lab)
        assert (found[TUNNEL]["verdict"], found[NEIGHBOUR]["verdict"]) == ("down", "up")
        assert [cause.partition(":")[0] for cause in found[TUNNEL]["causes"][: len(says)]] == says
        assert [note.partition(":")[0] for note in notes(lab, "a")] == says
        assert notes(lab, "dc") == notes(lab, "b") == []
        for gateway in ("a", "dc"):
            lab.sh(gateway, f"swanctl --terminate --ike {TUNNEL} --force", statuses=(0, 1, 2))
        done = lab.json("apply", lab.file, "--yes", statuses=(1,))
        told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
        assert (told[TUNNEL]["verdict"], told[NEIGHBOUR]["verdict"]) == ("down", "up")
        assert [cause.partition(":")[0] for cause in told[TUNNEL]["causes"][: len(says)]] == says
    finally:
        lab.sh("a", given)
    mended(lab)


def test_a_way_by_another_interface_is_why_nothing_comes_up_and_told_in_the_same_words(lab) -> None:
    says = "a sends to 198.51.100.10 by lan-lan, and not by wan, which has its address 203.0.113.20"
    mended(lab)
    lab.sh("a", "ip route add 198.51.100.10/32 dev lan-lan")
    try:
        for gateway in ("a", "dc"):
            lab.sh(gateway, f"swanctl --terminate --ike {TUNNEL} --force", statuses=(0, 1, 2))
        done = lab.json("apply", lab.file, "--yes", "--wait", "5", statuses=(1,))
        told = {tunnel["name"]: tunnel for tunnel in done["tunnels"]}
        assert (told[TUNNEL]["verdict"], told[NEIGHBOUR]["verdict"]) == ("down", "up")
        assert told[TUNNEL]["causes"][0].startswith(says), json.dumps(done)
        assert tunnels(lab)[TUNNEL]["causes"][0] == told[TUNNEL]["causes"][0]
    finally:
        lab.sh("a", "ip route del 198.51.100.10/32 dev lan-lan")
    mended(lab)


def test_a_dynamic_gateway_without_a_route_is_named(lab) -> None:
    mended(lab)
    default = lab.sh("b", "ip route show default").strip()
    assert default
    lab.sh("b", "ip route del default")
    try:
        found = tunnels(lab)
        assert (found[NEIGHBOUR]["verdict"], found[TUNNEL]["verdict"]) == ("down", "up")
        assert found[NEIGHBOUR]["causes"][0].startswith("b has no route to 198.51.100.10")
    finally:
        lab.sh("b", f"ip route add {default}")
    mended(lab)

"""A site with two gateways: what a tunnel at one of them carries never leaves the other one in clear.

The host of the site has the other one as its default gateway. The control takes rules and routes away by
hand: then the probe must see the packets, which are on no WAN link of the tunnel's own.
"""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("two-gateways")]

TOPOLOGY = """\
ipsecctl: 1
name: two-gateways
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  dc:
    networks: {lan: 10.1.0.0/24}
    gateways:
      gw-1: 198.51.100.10
      gw-2: {address: 10.200.0.2, public_address: 198.51.100.77}
  c: {networks: {lan: 10.2.0.0/24}, gateway: 203.0.113.20}
  d: {networks: {lan: 10.3.0.0/24}, gateway: {address: dynamic, behind_nat: true}}
tunnels:
  c1: {between: [c, dc/gw-1]}
  d2: {between: [d, dc/gw-2]}
"""
BY_HAND = "ip route add 10.3.0.0/24 via 10.1.0.2"  # the inside address of gw-2
UNDONE = "ip route del 10.3.0.0/24 via 10.1.0.2"
NO_ROUTE = "ip route del unreachable 10.3.0.0/24 proto 213"
NO_FIREWALL = "nft delete table inet ipsecctl"


@pytest.fixture(scope="module")
def lab(lab):
    lab.apply()
    return lab


def outcomes(lab, tunnel: str, statuses: tuple[int, ...]) -> dict[tuple[str, str], dict]:
    """What the probe says of a tunnel, by check and direction."""
    (report,) = lab.json("probe", "tunnel", lab.file, tunnel, statuses=statuses)["tunnels"]
    return {(check["check"], check["direction"]): check for check in report["checks"]}


def held(lab) -> int:
    text = lab.sh("gw-1", "nft list counter inet ipsecctl leaving_elsewhere")
    return int(text.split("packets ")[1].split()[0])


def test_a_route_by_hand_to_the_gateway_with_the_tunnel_keeps_working(lab) -> None:
    lab.sh("gw-1", BY_HAND)
    try:
        assert lab.ipsecctl("plan", lab.file, "--detailed-exitcode").returncode == 0, "it is no conflict"
        seen = outcomes(lab, "d2", (0,))
    finally:
        lab.sh("gw-1", UNDONE)
    assert {check["outcome"] for check in seen.values()} == {"holds"}


def test_without_a_route_it_goes_nowhere(lab) -> None:
    before = held(lab)
    seen = outcomes(lab, "d2", (1,))
    assert seen["arrives", "d -> dc"]["outcome"] == "holds"
    assert seen["arrives", "dc -> d"]["measured"] == 0
    assert seen["no-clear", "d -> dc"]["outcome"] == "holds", "answers are held, too"
    assert seen["no-clear", "dc -> d"]["outcome"] == "could not run", "nothing arrived"
    assert held(lab) == before, "the route had it first"


def test_the_firewall_alone_holds_it(lab) -> None:
    lab.sh("gw-1", NO_ROUTE)
    try:
        before = held(lab)
        seen = outcomes(lab, "d2", (1,))
        assert held(lab) > before
    finally:
        lab.apply()
    assert seen["no-clear", "d -> dc"]["outcome"] == "holds"
    assert seen["no-clear", "dc -> d"]["outcome"] == "could not run"


def test_the_gateways_own_packets_are_held(lab) -> None:
    lab.sh("gw-1", NO_ROUTE)
    try:
        before = held(lab)
        lab.sh("gw-1", "ping -c 2 -i 0.2 -W 1 -I 10.1.0.1 10.3.0.10", statuses=(1,))
        assert held(lab) >= before + 2
    finally:
        lab.apply()


def test_control_without_rules_and_routes_the_probe_sees_it_on_a_wan_that_is_not_the_tunnels(lab) -> None:
    lab.sh("gw-1", f"{NO_ROUTE}; {NO_FIREWALL}")
    try:
        seen = outcomes(lab, "d2", (1,))
    finally:
        lab.apply()
    for direction in ("dc -> d", "d -> dc"):  # of the latter the answers
        check = seen["no-clear", direction]
        assert check["outcome"] == "fails", direction
        assert "gw-1:wan, internet:to-gw-1" in check["evidence"]
    assert "10.1.0.10 -> 10.3.0.10" in seen["no-clear", "d -> dc"]["evidence"]

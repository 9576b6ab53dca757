"""Firewall sets: they hold exactly the pairs of the rules, and nothing twice."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPNetwork

from ipsecctl.desired import FirewallRule
from ipsecctl.render.guards import guard_sets, way_sets


def rule(
    local: list[str], remote: list[str], mss: int = 1400, family: int = 4, interface: str = ""
) -> FirewallRule:
    prefixes = tuple(map(IPNetwork, local)), tuple(map(IPNetwork, remote))
    return FirewallRule("t", family, *prefixes, mss, interface)


def only(*rules: FirewallRule) -> list[str]:
    (guard,) = guard_sets(rules)
    return list(guard.elements)


def test_one_set_for_each_family_and_mss_whatever_the_number_of_tunnels():
    rules = [rule(["10.0.0.0/24"], [f"10.1.{n}.0/24"], mss=1400 + n % 2) for n in range(200)]
    rules.append(rule(["fd00::/64"], ["fd01::/64"], family=6))
    assert [(guard.name, guard.address, len(guard.elements)) for guard in guard_sets(rules)] == [
        ("ipv4_mss_1400", "ip", 100),
        ("ipv4_mss_1401", "ip", 100),
        ("ipv6_mss_1400", "ip6", 1),
    ]


def test_every_local_prefix_meets_every_remote_one():
    assert only(rule(["10.0.0.0/24", "10.0.1.0/24"], ["10.2.0.0/24", "10.1.0.0/16"])) == [
        "10.0.0.0/24 . 10.1.0.0/16",
        "10.0.0.0/24 . 10.2.0.0/24",
        "10.0.1.0/24 . 10.1.0.0/16",
        "10.0.1.0/24 . 10.2.0.0/24",
    ]


def test_a_pair_inside_another_is_left_out():
    assert only(
        rule(["10.0.0.0/24"], ["10.1.0.0/16"]),
        rule(["10.0.0.0/24"], ["10.1.5.0/24"]),
        rule(["10.0.0.128/25"], ["10.1.6.0/24"]),
    ) == ["10.0.0.0/24 . 10.1.0.0/16"]


def test_pairs_that_cross_are_taken_apart():
    assert only(
        rule(["10.0.0.0/16"], ["10.1.1.0/24"]),
        rule(["10.0.5.0/24"], ["10.1.0.0/16"]),
    ) == [
        "10.0.0.0/16 . 10.1.1.0/24",
        "10.0.5.0/24 . 10.1.0.0/24",
        "10.0.5.0/24 . 10.1.2.0-10.1.255.255",
    ]


@pytest.mark.parametrize(("prefix", "text"), [("0.0.0.0/0", "0.0.0.0/0"), ("10.0.0.1/32", "10.0.0.1/32")])
def test_the_widest_and_the_narrowest_prefix_keep_their_form(prefix, text):
    assert only(rule(["192.0.2.0/24"], [prefix])) == [f"192.0.2.0/24 . {text}"]


def test_each_mode_has_sets_of_its_own():
    rules = [rule(["10.0.0.0/24"], ["10.1.0.0/24"]), rule(["10.0.0.0/24"], ["10.2.0.0/24"], interface="ix-b")]
    assert [(guard.name, guard.routed, guard.elements) for guard in guard_sets(rules)] == [
        ("ipv4_mss_1400", False, ("10.0.0.0/24 . 10.1.0.0/24",)),
        ("ipv4_route_mss_1400", True, ("10.0.0.0/24 . 10.2.0.0/24",)),
    ]


def test_the_ways_name_the_interface_of_each_pair_once():
    rules = [
        rule(["10.0.0.0/24"], ["10.1.0.0/24"]),
        rule(["10.0.0.0/24"], ["10.2.0.0/16"], interface="ix-b"),
        rule(["10.0.0.0/25"], ["10.2.1.0/24"], interface="ix-b"),
        rule(["10.0.0.0/24"], ["10.2.0.0/16"], interface="ix-a", mss=1300),
        rule(["fd00::/64"], ["fd01::/64"], interface="ix-a", family=6),
    ]
    assert [(ways.name, ways.address, ways.elements) for ways in way_sets(rules)] == [
        ("ipv4_ways", "ip", ('"ix-a" . 10.0.0.0/24 . 10.2.0.0/16', '"ix-b" . 10.0.0.0/24 . 10.2.0.0/16')),
        ("ipv6_ways", "ip6", ('"ix-a" . fd00::/64 . fd01::/64',)),
    ]


prefixes = st.builds(
    lambda value, length: str(IPNetwork((value, length)).cidr), st.integers(0, 255), st.integers(24, 32)
)
rules_of_prefixes = st.lists(
    st.builds(rule, st.lists(prefixes, min_size=1, max_size=3), st.lists(prefixes, min_size=1, max_size=3)),
    min_size=1,
    max_size=6,
)


@given(rules_of_prefixes, st.integers(0, 255), st.integers(0, 255))
def test_a_packet_is_in_exactly_one_element_if_a_rule_covers_it_and_else_in_none(rules, source, target):
    covered = any(
        any(source in _numbers(p) for p in r.local) and any(target in _numbers(p) for p in r.remote)
        for r in rules
    )
    elements = [tuple(map(_range, element.split(" . "))) for element in only(*rules)]
    assert sum(source in local and target in remote for local, remote in elements) == covered


def _numbers(prefix: IPNetwork) -> range:
    return range(prefix.first, prefix.last + 1)


def _range(text: str) -> range:
    if "-" in text:
        first, last = map(ip_address, text.split("-"))
    else:
        network = ip_network(text)
        first, last = network[0], network[-1]
    return range(int(first), int(last) + 1)

"""A gateway's way to its peers: what the script asks the kernel, and what its answers mean."""

from __future__ import annotations

import json

import pytest
from netaddr import IPAddress

from ipsecctl.gateway.way_out import (
    WayOut,
    addresses_of,
    led_astray,
    no_way_out,
    parse_way_out,
    way_out_questions,
)

OWN, PEER, OTHER = (IPAddress(text) for text in ("203.0.113.20", "198.51.100.10", "2001:db8::10"))
KERNELS = [{"priority": 0, "src": "all", "table": "255"}, {"priority": 32766, "src": "all", "table": "254"}]
LOST = "Network is unreachable"


def seen(*no_way, at=("wan 203.0.113.20/24",), told=("4", "6"), rules=(), leaves=()):
    """Return what is read from the script's answer to questions with one own address."""
    return parse_way_out(
        {
            "address": [str(OWN)],
            "peer": [str(PEER), str(OTHER)],
            "at": at,
            "told": told,
            "rules": [f"{family} {json.dumps([*KERNELS, *rules])}" for family in (4, 6)],
            "no-way": no_way,
            "leaves": leaves,
        }
    )


def test_the_questions():
    assert way_out_questions([OWN], [OTHER, PEER, PEER]) == (
        "address 203.0.113.20",
        "peer 198.51.100.10",
        "peer 2001:db8::10",
    )


def test_what_the_kernel_does_not_reach():
    assert seen() == WayOut()
    assert seen(f"{PEER} {OWN} {LOST}") == WayOut({PEER: LOST})
    assert seen(f"{OTHER} any No route to host") == WayOut({OTHER: "No route to host"})


def test_without_the_own_address_as_its_source_a_way_says_nothing():
    assert seen(f"{PEER} any {LOST}") == WayOut()


@pytest.mark.parametrize("words", ["Operation not permitted", "Not enough memory", ""])
def test_an_answer_that_says_nothing_of_routes_is_none(words):
    assert seen(f"{PEER} {OWN} {words}") == WayOut()


def test_an_address_that_no_interface_has():
    assert seen(at=()) == WayOut(no_address=frozenset([OWN]))
    lost = seen(f"{PEER} any {LOST}", f"{PEER} {OWN} Invalid argument", at=())
    assert lost == WayOut({PEER: LOST}, frozenset([OWN])), "not with a source that is not there"
    assert seen(at=(), told=("6",)) == WayOut(), "who could not look says nothing"


@pytest.mark.parametrize("more", [{"fwmark": "0x2a"}, {"l3mdev": None}, {"uid_start": 0}, {"ipproto": "udp"}])
def test_where_routing_hangs_on_more_than_addresses_nothing_is_told(more):
    rule = {"priority": 1000, "src": "all", "table": "100", **more}
    assert seen(f"{PEER} {OWN} {LOST}", rules=[rule]) == WayOut()


def test_rules_for_sources_are_asked_with_the_own_address_alone():
    rule = {"priority": 100, "src": "203.0.113.20", "table": "100"}
    assert seen(f"{PEER} {OWN} {LOST}", rules=[rule]) == WayOut({PEER: LOST})
    assert seen(f"{PEER} any {LOST}", rules=[rule], at=()) == WayOut(no_address=frozenset([OWN]))


def test_rules_that_cannot_be_read_say_nothing():
    told = {"peer": [str(PEER)], "told": ["4", "6"], "no-way": [f"{PEER} any {LOST}"]}
    assert parse_way_out(told) == WayOut()
    assert parse_way_out({**told, "rules": ["4 {", "6 []"]}) == WayOut()
    assert parse_way_out({**told, "rules": ["4 []"]}) == WayOut({PEER: LOST})


def test_names_and_any_are_no_addresses():
    assert [*addresses_of([None, "%any", "gw.example.org", "198.51.100.10", OTHER])] == [PEER, OTHER]


def test_what_is_said_of_it():
    seen = WayOut({PEER: "Network is unreachable"}, frozenset([OWN]))
    address, route = no_way_out("a", [OWN], [PEER, OTHER], seen)
    assert address.cause.startswith("a does not have its declared address 203.0.113.20: no interface has it")
    assert route.cause.startswith("a has no route to 198.51.100.10 (Network is unreachable): neither IKE")
    assert no_way_out("a", [], [OTHER], seen) == ()
    many = WayOut({IPAddress(f"192.0.2.{n}"): "No route to host" for n in range(1, 10)})
    (one,) = no_way_out("a", [], many.no_route, many)
    assert "192.0.2.1, 192.0.2.2, 192.0.2.3 and 6 more peers (No route to host)" in one.what


def by(device, at=("wan 203.0.113.20/24",), **more):
    return seen(leaves=[f"{PEER} {OWN} {device}"], at=at, **more)


def test_a_way_that_does_not_begin_where_the_own_address_is():
    assert by("wan") == WayOut()
    assert by("wan", at=("wan@if7 203.0.113.20/24",)) == WayOut()
    astray = by("lan")
    assert astray == WayOut(astray={PEER: (OWN, "wan", "lan")})
    (obstacle,) = led_astray("a", [OWN], [PEER, OTHER], astray)
    assert obstacle.what == (
        "a sends to 198.51.100.10 by lan, and not by wan, which has its address 203.0.113.20"
    )
    assert "ip route get 198.51.100.10 from 203.0.113.20" in obstacle.mend
    assert led_astray("a", [OWN], [OTHER], astray) == ()
    assert led_astray("a", [], [PEER], astray) == ()


def test_ways_that_are_right_by_whatever_interface_they_lead():
    assert by("lan", at=("lo 203.0.113.20/32",)) == WayOut(), "an address of the whole gateway"
    assert by("lan", at=("lan 203.0.113.20/32", "wan 203.0.113.20/24")) == WayOut()
    assert by("lan", rules=[{"priority": 9, "src": "all", "table": "7", "fwmark": "0x2a"}]) == WayOut()
    assert seen(leaves=[f"{PEER} 192.0.2.1 lan"]) == WayOut(), "nobody declared that address"


def test_several_peers_led_astray_are_one_obstacle():
    peers = [IPAddress(f"198.51.100.{n}") for n in range(10, 15)]
    astray = seen(leaves=[f"{peer} {OWN} lan" for peer in peers])
    (obstacle,) = led_astray("a", [OWN], peers, astray)
    assert "198.51.100.10, 198.51.100.11, 198.51.100.12 and 2 more peers by lan" in obstacle.what

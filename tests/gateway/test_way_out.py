"""A gateway's way to its peers: what the script asks the kernel, and what its answers mean."""

from __future__ import annotations

import subprocess

import pytest
from netaddr import IPAddress

from ipsecctl.gateway.way_out import (
    SCRIPT,
    WayOut,
    addresses_of,
    no_way_out,
    parse_way_out,
    way_out_questions,
)

OWN, PEER, OTHER = (IPAddress(text) for text in ("203.0.113.20", "198.51.100.10", "2001:db8::10"))
QUESTIONS = way_out_questions([OWN], [PEER, OTHER])
IP = """#!/bin/sh
case "$*" in
"-o -4 address show to 203.0.113.20") {address} ;;
"-4 rule show") printf '0:\\tfrom all lookup local\\n{rule}32766:\\tfrom all lookup main\\n' ;;
"-6 rule show") printf '0:\\tfrom all lookup local\\n' ;;
"-4 -force -batch -") cat >>{asked}; {four} ;;
"-6 -force -batch -") cat >>{asked}; {six} ;;
*) exit 9 ;;
esac
"""
THERE = "echo '2: wan    inet 203.0.113.20/24 scope global wan'"
FOUND = "echo '198.51.100.10 via 203.0.113.1 dev wan'"
LOST = "echo 'RTNETLINK answers: Network is unreachable' >&2; echo 'Command failed -:1' >&2"


@pytest.fixture
def told(tmp_path):
    def run(*, address=THERE, rule="", four=FOUND, six=FOUND):
        ip, asked = tmp_path / "ip", tmp_path / "asked"
        ip.write_text(IP.format(address=address, rule=rule, four=four, six=six, asked=asked))
        ip.chmod(0o755)
        asked.write_text("")
        (tmp_path / "questions").write_text("".join(f"{line}\n" for line in QUESTIONS))
        done = subprocess.run(
            ["sh", "-c", f"outer='cat {tmp_path}/questions'\n{SCRIPT}"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            found.setdefault(kind, []).append(rest)
        return parse_way_out(found), asked.read_text().splitlines()

    return run


def test_with_all_there_nothing_is_told(told):
    seen, asked = told()
    assert seen == WayOut()
    assert asked == ["route get 198.51.100.10 from 203.0.113.20", "route get 2001:db8::10"]


def test_what_the_kernel_does_not_reach(told):
    seen, _ = told(four=LOST)
    assert seen == WayOut({PEER: "Network is unreachable"})
    seen, _ = told(six=LOST.replace("Network is unreachable", "No route to host"))
    assert seen == WayOut({OTHER: "No route to host"})


def test_an_answer_that_says_nothing_of_routes_is_none(told):
    for words in ("Operation not permitted", "Not enough memory"):
        seen, _ = told(four=LOST.replace("Network is unreachable", words))
        assert seen == WayOut()
    assert told(four="echo 'Command failed -:1' >&2")[0] == WayOut()
    assert told(four="exit 1")[0] == WayOut()


def test_an_address_that_no_interface_has(told):
    seen, asked = told(address=":")
    assert seen == WayOut(no_address=frozenset([OWN]))
    assert asked[0] == "route get 198.51.100.10", "not with a source that is not there"
    assert told(address="exit 1")[0] == WayOut(), "who could not look says nothing"


@pytest.mark.parametrize("rule", ["fwmark 0x2a lookup 100", "lookup [l3mdev-table]", "uidrange 0-0 lookup 9"])
def test_where_routing_hangs_on_more_than_addresses_nothing_is_told(told, rule):
    seen, asked = told(rule=f"1000:\\tfrom all {rule}\\n", four=LOST)
    assert (seen, asked) == (WayOut(), ["route get 2001:db8::10"])


def test_rules_for_sources_are_asked_with_the_own_address_alone(told):
    rule = "100:\\tfrom 203.0.113.20 lookup 100\\n"
    assert told(rule=rule, four=LOST)[0] == WayOut({PEER: "Network is unreachable"})
    assert told(rule=rule, four=LOST, address=":")[0] == WayOut(no_address=frozenset([OWN]))


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

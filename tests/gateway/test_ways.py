"""Interfaces and routes as iproute2 tells them, and the script that asks for them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import OwnNetwork, Rule, RuleKind, own_rules
from ipsecctl.gateway import Link, RouteSeen, RuleSeen, WayHome
from ipsecctl.gateway._network_script import SCRIPT
from ipsecctl.gateway.ways import parse_ways, routes_listed

RECORDED = Path(__file__).parent / "recorded"

# `ip -o -4 route` and `ip -o -6 route` of iproute2 6.1 and 6.15.
ROUTES = (RECORDED / "routes.txt").read_text()


def routes(text=ROUTES):
    return parse_ways({"route": text.splitlines()}).routes


def test_routes():
    ours = RouteSeen(IPNetwork("10.2.0.0/24"), "unicast", "ix-dc", 50, IPAddress("10.1.0.1"), ours=True)
    held = RouteSeen(IPNetwork("10.2.0.0/24"), "unreachable", "", 4278198272, ours=True)
    six = RouteSeen(IPNetwork("fd00:2::/64"), "unicast", "ix-dc", 50, IPAddress("fd00:1::1"), ours=True)
    held_six = RouteSeen(IPNetwork("fd00:2::/64"), "unreachable", "", 4278198272, ours=True)
    host = RouteSeen(IPNetwork("10.5.0.1/32"), "unicast", "ix-dc", 0, ours=True, no_link=True)
    found = routes()
    assert {route for route in found if route.ours} == {ours, held, six, held_six, host}
    assert len(found) == 11
    theirs = {str(route.prefix): route.leads for route in found if not route.ours}
    assert theirs["10.2.0.0/24"] == "goes via 192.0.2.9 (eth0)"
    assert theirs["10.3.0.0/24"] == "goes by several next hops"
    assert theirs["10.6.0.0/16"] == "is blackhole"
    assert {"0.0.0.0/0", "::/0"} < set(theirs)


@pytest.mark.parametrize(
    "line", ["", "nonsense", "nonsense 10.x", "10.1.0.0/99 dev a", "10.0.0.0/8 metric many"]
)
def test_what_is_no_route_is_left_out(line):
    assert routes(line) == frozenset()


def test_a_route_to_nowhere_as_debian_13_tells_it():
    line = "fd00:2::/64 dev ix-hold proto 213 src fd00:1::1 metric 4278198272 mtu 1400 pref medium"
    (route,) = routes(line)
    assert (route.interface, route.source, route.ours) == ("ix-hold", IPAddress("fd00:1::1"), True)
    assert (route.metric, route.mtu) == (4278198272, 1400)


def link(**changes):
    """Return an interface as ``ip -j -d address`` of Debian 13 tells it."""
    recorded = (RECORDED / "debian-13-kernel.txt").read_text()
    line = next(line for line in recorded.splitlines() if line.startswith("addresses | "))
    found = next(entry for entry in json.loads(line.partition(" | ")[2]) if entry["ifname"] == "x0")
    return {**found, **changes}


def one(entry):
    return parse_ways({"links": [json.dumps([{}, entry, {}])]}).links[entry["ifname"]]


def test_an_interface_as_debian_13_tells_it():
    addresses = (IPNetwork("10.9.9.1/30"),)
    assert one(link()) == Link("x0", "xfrm", 42, 1500, True, addresses, ours=False)
    assert one(link(ifalias="ipsecctl")).ours
    assert one(link(ifalias="ipsecctl of an old version")).ours
    assert not one(link(ifalias="ipsecctlish")).ours
    assert not one(link(flags=["NOARP"])).up
    other = one(link(ifalias="ipsecctl", linkinfo={"info_kind": "dummy"}))
    assert (other.kind, other.if_id, other.ours) == ("dummy", None, True)
    other = one(link(ifalias="ipsecctl", linkinfo={"info_kind": "bridge"}))
    assert (other.kind, other.if_id, other.ours) == ("bridge", None, False)


def test_a_name_without_more_is_somebody_elses():
    found = parse_ways(
        {"links": [json.dumps([link(ifname="ix-a")])], "link": ["ix-a", "ix-b", "ipsec0"]}
    ).links
    assert found["ix-a"].kind == "xfrm"
    assert found["ix-b"] == Link("ix-b")
    assert found["ipsec0"].ours is False


@pytest.mark.parametrize("text", ["", "[]", "[{},{}]", "half a doc", "{}", "[1]", '[{"ifname": 3}]'])
def test_no_interfaces(text):
    assert parse_ways({"links": [text]}).links == {}


def test_interfaces_that_apply_made_on_a_kernel_with_them():
    found = parse_ways({"links": [(RECORDED / "xfrm-links.json").read_text()]}).links
    assert found["ix-clini-72ca7b"] == Link("ix-clini-72ca7b", "xfrm", 0x6B86B05A, 1446, True, (), ours=True)
    assert found["ix-clini-e96889"] == Link("ix-clini-e96889", "xfrm", 0x5E1EDCCB, 1430, True, (), ours=True)


# `ip -j -N rule`, `ip -o route show table 213` and `... main proto kernel` of iproute2 6.1, 6.15 and 7.2.
OUR_RULE = '{"priority":219,"not":null,"src":"all","iif":"lo","table":"213","protocol":"213"}'
KERNELS = '{"priority":0,"src":"all","table":"255"},{"priority":32766,"src":"all","table":"254"}'


def seen_rules(*entries, family=4):
    return parse_ways({"rules": [f"{family} [{','.join((KERNELS, *entries))}]"]}).rules


def test_rules():
    ours = RuleSeen(4, 219, "not iif lo table 213", 213, True, Rule(4))
    assert seen_rules(OUR_RULE) == (ours,)
    assert seen_rules(OUR_RULE, family=6) == (RuleSeen(6, 219, ours.says, 213, True, Rule(6)),)
    assert seen_rules(OUR_RULE.replace("219", "5"))[0].rule is None
    assert seen_rules(OUR_RULE.replace('"not":null,', ""))[0].rule is None
    unmarked = seen_rules(OUR_RULE.replace(',"protocol":"213"', ""))[0]
    assert (unmarked.ours, unmarked.rule) == (False, None)
    charons = '{"priority":220,"src":"all","table":"220"}'
    refusing = '{"priority":7,"src":"10.0.0.0","srclen":8,"action":"unreachable"}'
    assert seen_rules(charons, refusing) == (
        RuleSeen(4, 7, "src 10.0.0.0 srclen 8 action unreachable"),
        RuleSeen(4, 220, "table 220", 220),
    )


@pytest.mark.parametrize(
    "text", ["", "4", "4 ", "4 []", "4 {}", "4 [1]", "4 [{}]", '4 [{"priority": "x"}]', "4 ["]
)
def test_no_rules(text):
    assert parse_ways({"rules": [text]}).rules == ()


def test_our_table():
    seen = parse_ways(
        {
            "held": [
                "10.2.0.0/24 dev ix-hold proto 213 scope link mtu 1400 ",
                "throw 10.2.0.0/28 proto 213 ",
                "throw fd00:2::/68 dev lo proto 213 metric 1024 pref medium",
                "10.9.0.0/24 dev eth0 scope link ",
            ]
        }
    )
    assert seen.held == {
        route.prefix: route
        for route in (
            RouteSeen(IPNetwork("10.2.0.0/24"), interface="ix-hold", ours=True, mtu=1400),
            RouteSeen(IPNetwork("10.2.0.0/28"), "throw", ours=True),
            RouteSeen(IPNetwork("fd00:2::/68"), "throw", metric=1024, ours=True),
        )
    }
    assert seen.strangers == (RouteSeen(IPNetwork("10.9.0.0/24"), interface="eth0"),)
    assert seen.routes == frozenset()


def test_networks_that_the_gateway_is_joined_to():
    seen = parse_ways(
        {
            "connected": [
                "172.17.0.0/16 dev docker0 scope link src 172.17.0.1 linkdown ",
                "10.1.0.0/24 dev eth1 scope link src 10.1.0.1 ",
                "fd00:1::/64 dev eth1 metric 256 pref medium",
                "fe80::/64 dev eth1 metric 256 pref medium",
            ]
        }
    )
    assert [str(p) for p in seen.connected] == ["10.1.0.0/24", "172.17.0.0/16", "fd00:1::/64"]


# ------------------------------------------------------------------------------------------- its own networks

LAN, LAN6 = IPNetwork("10.1.0.0/24"), IPNetwork("fd00:1::/64")
OWN = own_rules(
    [OwnNetwork(LAN, "lan"), OwnNetwork(IPNetwork("10.1.9.9/32"), "pacs"), OwnNetwork(LAN6, "lan")]
)

# `ip -j -N -4 rule` and `-6` of iproute2 6.1, 6.15 and 7.2.
OWN_SEEN = {
    4: """{"priority":215,"src":"all","iif":"lo","goto":218,"protocol":"213"}
{"priority":216,"src":"all","dst":"10.1.0.0","dstlen":24,"table":"254","suppress_prefixlen":7,"protocol":"213"}
{"priority":216,"src":"all","dst":"10.1.9.9","table":"254","suppress_prefixlen":7,"protocol":"213"}
{"priority":217,"src":"all","dst":"10.1.0.0","dstlen":24,"action":"7","protocol":"213"}
{"priority":217,"src":"all","dst":"10.1.9.9","action":"7","protocol":"213"}
{"priority":218,"src":"all","nop":null,"protocol":"213"}""".splitlines(),
    6: """{"priority":215,"src":"all","iif":"lo","goto":218,"protocol":"213"}
{"priority":216,"src":"all","dst":"fd00:1::","dstlen":64,"table":"254","suppress_prefixlen":15,"protocol":"213"}
{"priority":217,"src":"all","dst":"fd00:1::","dstlen":64,"action":"7","protocol":"213"}
{"priority":218,"src":"all","nop":null,"protocol":"213"}""".splitlines(),
}


def test_rules_for_own_networks():
    seen = [rule for family in (4, 6) for rule in seen_rules(*OWN_SEEN[family], family=family)]
    assert {rule.rule for rule in seen} == {*OWN}
    assert all(rule.ours and rule.group == rule.rule.group for rule in seen)
    assert {rule.group for rule in seen if rule.family == 4} == {
        "ipv4 own packets",
        "ipv4 to 10.1.0.0/24",
        "ipv4 to 10.1.9.9/32",
    }


@pytest.mark.parametrize(
    ("was", "becomes", "group"),
    [
        ('"goto":218', '"goto":32766', "ipv4 own packets"),
        ('"iif":"lo"', '"iif":"eth0"', "ipv4 own packets"),
        ('"suppress_prefixlen":7', '"suppress_prefixlen":0', "ipv4 to 10.1.0.0/24"),
        ('"table":"254"', '"table":"253"', "ipv4 to 10.1.0.0/24"),
        ('"priority":216', '"priority":217', "ipv4 to 10.1.0.0/24"),
        ('"action":"7"', '"action":"6"', "ipv4 to 10.1.0.0/24"),
        ('"src":"all","dst"', '"src":"10.9.0.0","srclen":16,"dst"', "ipv4 to 10.1.0.0/24"),
        ('"priority":218', '"priority":214', "ipv4 own packets"),
    ],
)
def test_an_altered_rule_for_own_networks_is_none_of_ours_to_the_word(was, becomes, group):
    text = next(line for line in OWN_SEEN[4] if was in line)
    (rule,) = seen_rules(text.replace(was, becomes))
    assert (rule.ours, rule.rule, rule.group) == (True, None, group)


def test_a_leap_of_which_the_end_is_missing_is_still_the_right_rule():
    (rule,) = seen_rules(
        '{"priority":215,"src":"all","iif":"lo","goto":218,"unresolved":null,"protocol":"213"}'
    )
    assert (rule.rule, rule.says) == (Rule(4, RuleKind.OWN_PACKETS), "iif lo goto 218")


def homes(*toward, own=(LAN,), here=()):
    told = {"own": [str(n) for n in own], "toward": toward, "at": here}
    return parse_ways(told).homes


@pytest.mark.parametrize(
    "line",
    [
        "10.1.0.0/24 dev lan proto kernel scope link src 10.1.0.1 ",
        "10.1.0.64/26 via 10.5.0.1 dev core ",
        "10.0.0.0/8 via 10.5.0.1 dev core ",
        "10.1.0.9 dev lan ",
        r"10.1.0.0/24 \	nexthop via 10.5.0.1 dev a weight 1 linkdown \	nexthop via 10.6.0.1 dev b weight 1 ",
    ],
)
def test_a_way_home(line):
    assert homes(line) == {LAN: WayHome.THERE}


@pytest.mark.parametrize(
    "line",
    [
        "default via 192.0.2.254 dev wan ",
        "0.0.0.0/1 via 192.0.2.254 dev wan ",
        "8.0.0.0/7 via 192.0.2.254 dev wan ",
        "unreachable 10.1.0.0/24 ",
        "blackhole 10.1.0.0/16 ",
        "prohibit 10.1.0.0/24 ",
        "10.1.0.0/16 dev ix-hold proto 213 metric 4278198272 ",
        "10.1.0.0/16 dev ix-dc proto static ",
        "10.1.0.0/24 dev ipsec0 ",
        "10.2.0.0/24 dev lan ",
        "fd00:1::/64 dev lan metric 256 pref medium",
    ],
)
def test_what_is_no_way_home(line):
    assert homes(line) == {LAN: WayHome.MISSING}


def test_a_way_home_without_a_link():
    assert homes("10.1.0.0/24 dev lan scope link linkdown ") == {LAN: WayHome.NO_LINK}
    assert homes("10.1.0.0/24 dev lan scope link dead linkdown ") == {LAN: WayHome.NO_LINK}
    dead = (
        r"10.1.0.0/24 \	nexthop via 10.5.0.1 dev a weight 1 dead \	nexthop via 10.6.0.1 dev b linkdown "
    )
    assert homes(dead) == {LAN: WayHome.NO_LINK}
    assert homes("10.1.0.0/24 dev lan linkdown ", "10.0.0.0/8 dev core ") == {LAN: WayHome.THERE}


def test_ipv6_ways_home():
    own = (LAN6,)
    assert homes("fd00:1::/64 dev lan proto kernel metric 256 pref medium", own=own) == {LAN6: WayHome.THERE}
    for wide in (
        "default via fe80::1 dev wan metric 1024 pref medium",
        "fc00::/7 dev wan",
        "2000::/3 dev wan",
    ):
        assert homes(wide, own=own) == {LAN6: WayHome.MISSING}


def test_a_network_that_is_on_the_gateway_itself():
    assert homes(here=["lo 127.0.0.1/8", "lo 10.1.0.1/32"]) == {LAN: WayHome.THERE}
    assert homes(here=["lo 10.1.1.1/32", "lo ::1/128", "wan 10.1.0.1/32"]) == {LAN: WayHome.MISSING}
    assert homes(own=()) == {}  # nobody asked
    assert homes(own=("nonsense", LAN)) == {LAN: WayHome.MISSING}


# ---------------------------------------------------------------------------------------------- the script


@pytest.fixture
def told(tmp_path):
    """Return what the script tells with some lines in ``$said``, and what each ``ip`` was asked.

    The lists of routes are those of iproute2 6.1, 6.15 and 7.2.
    """
    ip = tmp_path / "ip"
    four, six = (RECORDED / "network.txt").read_text().removeprefix("# -4\n").split("# -6\n")
    for family, recorded in ((4, four), (6, six)):
        lists, said = recorded.split("# said\n")
        (tmp_path / f"lists-{family}").write_text(lists)
        (tmp_path / f"said-{family}").write_text(said)
    ip.write_text(
        f"""#!/bin/sh
case "$*" in
"-j -d -force -batch -") sed 's/.*type \\(.*\\)/[{{"ifname":"ix-\\1"}}]/' ;;
"-j -N -4 rule show") echo "[]" ;;
"-j -N -6 rule show") exit 1 ;;
"-o -N -"[46]" -force -batch -")
    family=${{3#-}}
    cat >{tmp_path}/asked-$family; cat {tmp_path}/said-$family >&2; cat {tmp_path}/lists-$family ;;
*) exit 9 ;;
esac
"""
    )
    ip.chmod(0o755)

    def run(*said):
        done = subprocess.run(
            ["sh", "-c", f"protocol=213 table=213 said=$(cat)\n{SCRIPT}"],
            input="".join(f"{line}\n" for line in said),
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        found = {}
        for line in done.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            found.setdefault(kind, []).append(rest)
        return found, *((tmp_path / f"asked-{family}").read_text().splitlines() for family in (4, 6))

    return run


def test_the_script_tells_of_our_routes_and_of_all_to_what_was_asked_for(told):
    found, *asked = told()
    assert asked == [["address show", "route show table all", "link show dev lo", "link show dev lo"]] * 2
    assert found["at"][:3] == ["lo 127.0.0.1/8", "lo 10.1.0.1/32", "eth0 192.0.2.1/24"]
    assert "no-way" not in found, "of no peer anything was asked"
    assert found["links"] == ['[{"ifname":"ix-xfrm"}]', '[{"ifname":"ix-dummy"}]']
    assert found["rules"] == ["4 []", "6 "]
    assert (found["told"], routes_listed(found)) == (["4", "6"], True)
    seen = parse_ways(found)
    assert (seen.held, seen.strangers) == (
        {IPNetwork("10.2.0.0/28"): RouteSeen(IPNetwork("10.2.0.0/28"), "throw", ours=True)},
        (),
    )
    networks = ["10.9.0.0/24", "192.0.2.0/24", "fd00:1::1/128", "fd00:9::/64"]
    assert [str(network) for network in seen.connected] == networks
    ours = {
        ("10.2.0.0/24", "unicast", True),
        ("10.2.0.0/24", "unreachable", True),
        ("10.5.0.1/32", "unicast", True),
        ("fd00:2::/64", "unicast", True),
        ("fd00:2::/64", "unreachable", True),
    }
    assert {(str(r.prefix), r.kind, r.ours) for r in seen.routes} == ours
    found, *_ = told("10.2.0.0/24", "hold 10.6.0.0/16", "::/0", "10.7.0.0/24", "fd00:2::/64")
    assert {(str(r.prefix), r.kind, r.ours) for r in parse_ways(found).routes} - ours == {
        ("10.2.0.0/24", "unicast", False),
        ("10.6.0.0/16", "blackhole", False),
        ("::/0", "unicast", False),
    }
    assert found["hold"] == ["10.6.0.0/16"]


def test_it_tells_by_which_interface_peers_are_sent_to(told, tmp_path):
    with (tmp_path / "lists-4").open("a") as lists:
        # iproute2 6.1 and 7.2
        lists.write("192.0.2.77 from 192.0.2.1 via 192.0.2.254 dev eth0 uid 0 \\    cache \n")
        lists.write("192.0.2.77 via 192.0.2.254 dev eth0 src 192.0.2.1 uid 0 \\    cache \n")
    with (tmp_path / "lists-6").open("a") as lists:
        lists.write("fd00:7::1 from fd00:1::1 via fe80::1 dev v2 proto 9 metric 1024 pref medium\n")
    found, four, six = told("address 192.0.2.1", "address fd00:1::1", "peer 192.0.2.77", "peer fd00:7::1")
    assert four[-2:] == ["route get 192.0.2.77", "route get 192.0.2.77 from 192.0.2.1"]
    assert six[-2:] == ["route get fd00:7::1", "route get fd00:7::1 from fd00:1::1"]
    # Without a source, IPv6 tells `from ::`.
    told_of_ours = [line for line in found["leaves"] if line.startswith(("192.0.2.77", "fd00:7:"))]
    assert told_of_ours == ["192.0.2.77 192.0.2.1 eth0", "fd00:7::1 fd00:1::1 v2"]


def test_it_tells_what_leads_into_charons_device(told):
    found, *_ = told()
    assert found["ipsec0-route"] == ["10.10.0.0/24 220", "fd00:3::/64 220"]


def test_it_asks_for_the_routes_around_and_inside_each_network_of_the_gateways_own(told):
    found, four, six = told("own 10.9.0.0/24", "10.2.0.0/24", "own fd00:3::/64", "own 10.8.0.0/16")
    assert found["own"] == ["10.9.0.0/24", "fd00:3::/64", "10.8.0.0/16"]
    assert four == [
        "address show",
        "route show table all",
        "link show dev lo",
        "route show table main match 10.9.0.0/24",
        "route show table main root 10.9.0.0/24",
        "route show table main match 10.8.0.0/16",
        "route show table main root 10.8.0.0/16",
        "link show dev lo",
    ]
    assert six[3:5] == ["route show table main match fd00:3::/64", "route show table main root fd00:3::/64"]
    assert found["toward"] == [
        "10.9.0.0/24 dev v2 proto 2 scope 253 src 10.9.0.1 ",
        "default via fd00:9::1 dev eth0 metric 1024 pref medium",
    ]
    assert parse_ways(found).homes[IPNetwork("10.9.0.0/24")] is WayHome.THERE


def test_it_asks_for_the_way_to_each_peer_from_the_gateways_own_addresses(told):
    questions = ("address 192.0.2.1", "address fd00:9::2", "peer 192.0.2.9", "peer 2001:db8::1")
    found, four, six = told("own 10.9.0.0/24", *questions)
    assert found["address"] == ["192.0.2.1", "fd00:9::2"]
    assert found["peer"] == ["192.0.2.9", "2001:db8::1"]
    assert four[6:] == ["route get 192.0.2.9", "route get 192.0.2.9 from 192.0.2.1"]
    assert six[4:] == ["route get 2001:db8::1", "route get 2001:db8::1 from fd00:9::2"]
    # The recorded answer to the eighth question is that there is no route.
    assert found["no-way"] == ["192.0.2.9 192.0.2.1 No route to host"]


def test_of_a_question_that_failed_without_a_word_no_earlier_word_is_told(told, tmp_path):
    with (tmp_path / "said-4").open("a") as said:
        said.write("Command failed -:7\n")
    found, *_ = told("own 10.9.0.0/24", "address 192.0.2.1", "peer 192.0.2.9")
    assert found["no-way"] == ["192.0.2.9 192.0.2.1 No route to host", "192.0.2.9 any "]


def test_a_list_of_routes_that_breaks_off_is_not_all_of_them(told, tmp_path):
    lines = (tmp_path / "lists-6").read_text().splitlines(keepends=True)
    (tmp_path / "lists-6").write_text("".join(line for line in lines if " lo: " not in line))
    found, *_ = told()
    assert (found["told"], routes_listed(found)) == (["4"], False)

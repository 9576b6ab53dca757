"""What of others' may keep tunnels' packets from passing: notes in a plan, which stop nothing."""

from __future__ import annotations

import pytest

from ipsecctl.gateway import Facts, Observed
from ipsecctl.plan import Note, Wanted, plan_gateway, plan_json
from ipsecctl.topology import DataPath


def connection(*remote, local="198.51.100.1", **child):
    return {"local_addrs": [local], "children": {"t": {"remote_ts": list(remote), **child}}}


BY_POLICY = Wanted("gw", "top", connections={"t": connection("10.2.0.0/24", "fd00:2::/64")})
BY_ROUTE = Wanted(
    "gw", "top", connections={"t": connection("10.2.0.0/24", "fd00:2::/64", if_id_in="7", if_id_out="7")}
)
ONLY_IPV4 = Wanted("gw", "top", connections={"t": connection("10.2.0.0/24")})


def notes(wanted, *more, **facts):
    plan = plan_gateway(
        wanted, Observed("gw", "6.1.0", DataPath.KERNEL, {}, facts=Facts(**facts)), notes=more
    )
    assert not plan.conflicts
    return plan.notes


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("ip nat -A POSTROUTING -o eth0 -j MASQUERADE", "may rewrite the source of what goes into tunnels"),
        ("ip nat -A POSTROUTING -j SNAT --to-source 192.0.2.1", "may rewrite"),
        ("ip nat -A POSTROUTING -m policy --dir out --pol none -j MASQUERADE", ""),
        ("ip nat -A PREROUTING -p tcp -j DNAT --to-destination 10.1.0.9", ""),
        ("ip filter -A FORWARD -s 10.9.0.0/16 -j DROP", "may drop what tunnels carry"),
        ("ip6 mangle -A FORWARD -i eth1 -j REJECT", "ip6tables-legacy -t mangle: -A FORWARD -i eth1"),
        ("ip filter -A INPUT -s 10.9.0.0/16 -j DROP", ""),
        ("ip filter -P FORWARD ACCEPT", ""),
        ("garbage", ""),
    ],
)
def test_rules_of_iptables_legacy_that_may_harm(rule, says):
    found = notes(BY_POLICY, legacy_rules=(rule,))
    assert len(found) == bool(says)
    for note in found:
        assert says in note.summary and "nft does not show it" in note.summary
        assert "tables-legacy-save -t " in note.hint
    assert notes(Wanted("gw", "top"), legacy_rules=(rule,)) == ()


def test_several_rules_of_one_kind_are_one_note():
    rules = tuple(f"ip nat -A POSTROUTING -o eth{number} -j MASQUERADE" for number in range(3))
    (note,) = notes(BY_POLICY, legacy_rules=rules)
    assert "-o eth0 -j MASQUERADE, and 2 more like it" in note.summary


def test_rules_that_cannot_be_read():
    (note,) = notes(BY_POLICY, legacy_unread=("ip6 filter",))
    assert "ip6tables-legacy-save is not installed" in note.summary and "table filter" in note.summary
    assert note.hint == "Install it (package iptables) and look with 'ip6tables-legacy-save'."


OUTSIDE = {"198.51.100.1": "wan", "10.1.0.1": "lan", "default": "uplink"}


@pytest.mark.parametrize(
    ("wanted", "off", "on"),
    [
        (BY_POLICY, {"wan"}, "wan"),
        (BY_POLICY, {"lan", "uplink", "default"}, None),
        (BY_ROUTE, {"wan"}, None),
        (ONLY_IPV4, {"wan"}, None),
        (
            Wanted("gw", "top", connections={"t": connection("fd00:2::/64", local="%any")}),
            {"uplink"},
            "uplink",
        ),
        (Wanted("gw", "top", connections=BY_POLICY.connections, data_path=DataPath.LIBIPSEC), {"wan"}, None),
    ],
)
def test_ipv6_that_is_off_where_tunnels_packets_come_in(wanted, off, on):
    found = notes(wanted, ipv6_off=frozenset(off), outside=OUTSIDE)
    assert len(found) == (on is not None)
    for note in found:
        assert f"gw: IPv6 is off on {on} " in note.summary and note.summary.endswith("(t)")
        assert f"sysctl -w net.ipv6.conf.{on}.disable_ipv6=0" in note.hint


def test_notes_stand_in_the_document():
    told = Note("gw: not known whether it has IP-TFS", "It takes Linux 6.14.")
    assert notes(ONLY_IPV4, told) == (told,)
    document = plan_json([plan_gateway(ONLY_IPV4, Observed("gw", "", DataPath.KERNEL, {}), notes=[told])], {})
    assert document["gateways"][0]["notes"] == [{"summary": told.summary, "hint": told.hint}]

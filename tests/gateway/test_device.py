"""charon's own device and the rule that leads there: what the script tells, and what is read from it."""

from __future__ import annotations

import json

import pytest
from netaddr import IPNetwork

from ipsecctl.gateway.device import Device, parse_device
from ipsecctl.gateway.kernel_sas import KernelView, NotInKernel, not_in_kernel
from ipsecctl.topology import DataPath

LOCAL = {"priority": 0, "src": "all", "table": "255"}
CHARONS = {"priority": 220, "src": "all", "table": "220"}
MAIN = {"priority": 32766, "src": "all", "table": "254"}
FOUR, SIX = (IPNetwork("10.2.0.0/24"), 220), (IPNetwork("fd00:2::/64"), 220)
CHILD = {
    "name": "t",
    "state": "INSTALLED",
    "mode": "TUNNEL",
    "protocol": "ESP",
    "spi-in": "c0ffee01",
    "local-ts": ["10.1.0.0/24", "fd00:1::/64"],
    "remote-ts": ["10.2.0.0/24", "fd00:2::/64"],
}
SAS = ({"t": {"child-sas": {"t-1": CHILD}}},)


def seen(*rules, routes=(FOUR,), flags="0x1091"):
    return parse_device({"device": [flags], "rules": [f"4 {json.dumps(rules)}"]}, routes)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ((LOCAL, CHARONS, MAIN), True),
        ((LOCAL, MAIN), False),
        ((LOCAL, {**CHARONS, "priority": 100}, MAIN), True),
        ((LOCAL, MAIN, {**CHARONS, "priority": 32768}), False),
        ((LOCAL, {**CHARONS, "src": "10.9.0.0", "srclen": 16}, MAIN), False),
        ((LOCAL, {**CHARONS, "iif": "lo"}, MAIN), False),
        ((LOCAL, {**CHARONS, "not": None, "fwmark": "0x2a"}, MAIN), True),
        ((LOCAL, {**CHARONS, "fwmark": "0x2a"}, MAIN), False),
        ((LOCAL, {**CHARONS, "not": None}, MAIN), False),
        ((LOCAL, {**CHARONS, "table": "210"}, MAIN), False),
        ((LOCAL, CHARONS), True),
    ],
)
def test_a_rule_must_take_all_packets_before_the_main_table(rules, found):
    assert seen(*rules).unruled == (frozenset() if found else frozenset({4}))


def test_charons_table_is_where_its_routes_are():
    other = (IPNetwork("10.2.0.0/24"), 210)
    assert seen(CHARONS, MAIN, routes=[other]).unruled == {4}
    device = seen({**CHARONS, "table": "210"}, MAIN, routes=[other])
    assert (device.unruled, device.table(4), device.table(6)) == (frozenset(), 210, 220)
    assert seen(MAIN, routes=[(IPNetwork("10.2.0.0/24"), 254)]).unruled == frozenset(), "charon may use it"


def test_without_routes_any_rule_may_be_charons():
    assert seen({**CHARONS, "table": "210"}, MAIN, routes=()).unruled == frozenset()
    assert seen({**CHARONS, "table": "213"}, MAIN, routes=()).unruled == {4}, "that is ours"


def test_the_kernels_own_route_says_nothing_of_the_table():
    routes = [(IPNetwork("fe80::/64"), 254), SIX]
    device = parse_device({"device": ["0x1091"], "rules": [f"6 {json.dumps([MAIN])}"]}, routes)
    assert (device.unruled, device.tables) == ({6}, ((6, 220),))


def test_what_cannot_be_read_is_not_claimed():
    assert parse_device({}, ()) is None
    assert parse_device({"device": ["?"]}, ()) is None
    told = {"device": ["0x1091"], "rules": ["4 ", "6 {}"]}
    assert parse_device(told, [FOUR]) == Device(tables=((4, 220),))


@pytest.mark.parametrize(("flags", "lacks"), [("0x1091", ""), ("0x1090", "down"), ("absent", "gone")])
def test_what_the_device_lacks(flags, lacks):
    assert seen(CHARONS, MAIN, flags=flags).lacks == lacks


def test_of_two_looks_what_was_in_order_in_one_of_them_is():
    down, good = seen(MAIN, flags="0x1090"), seen(CHARONS, MAIN)
    assert down.joined(good) == good
    assert (good.joined(down).up, good.joined(down).unruled) == (True, frozenset())
    assert down.joined(down) == down


@pytest.mark.parametrize(
    ("device", "lost"),
    [
        (Device(), None),
        (Device(unruled=frozenset({4})), NotInKernel("t", "t", "c0ffee01", dead=False, unruled=(4,))),
        (Device(unruled=frozenset({4, 6})), NotInKernel("t", "t", "c0ffee01", unruled=(4, 6))),
        (Device(up=False), NotInKernel("t", "t", "c0ffee01", device="down")),
    ],
)
def test_what_sas_lack_of_it(device, lost):
    view = KernelView(routes=frozenset({FOUR[0], SIX[0]}), device=device).on(DataPath.LIBIPSEC)
    assert not_in_kernel(SAS, view) == ((lost,) if lost else ())


def test_a_device_that_is_gone_has_no_routes_and_belongs_to_charons_data_path_alone():
    view = KernelView(frozenset(), frozenset(), None, Device(there=False, up=False))
    (lost,) = not_in_kernel(SAS, view.on(DataPath.LIBIPSEC))
    assert (lost.device, lost.dead, len(lost.routes)) == ("gone", True, 2)
    assert view.on(DataPath.KERNEL).device is None

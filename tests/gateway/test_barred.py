"""What keeps charon's routes into its own device from being set."""

from __future__ import annotations

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.gateway.barred import bars
from ipsecctl.gateway.device import Device, parse_device

FOUR = (IPNetwork("10.1.0.0/24"), IPNetwork("10.2.0.0/24"))
SIX = (IPNetwork("fd00:1::/64"), IPNetwork("fd00:2::/64"))
HERE = frozenset(map(IPAddress, ("192.0.2.1", "10.1.0.1")))


@pytest.mark.parametrize(
    ("told", "off"),
    [
        (["ipsec0 0", "all 0"], ""),
        (["ipsec0 1", "all 1"], "all"),
        (["ipsec0 1", "all 0"], "ipsec0"),
        (["ipsec0 0", "all 1"], ""),
        (["ipsec0 ", "all "], ""),
        ([], ""),
    ],
)
def test_whose_setting_has_ipv6_off(told, off):
    assert parse_device({"device": ["0x1091"], "device-ipv6": told}, []).ipv6_off == off


def test_a_kernel_without_ipv6_and_the_gateways_addresses():
    said = {"device": ["0x1091"], "device-ipv6": ["ipsec0 ", "all "], "device-without-ipv6": [""]}
    device = parse_device(said, [])
    assert (device.ipv6_off, device.sources) == ("kernel", None)
    said |= {"device-sources": [""], "device-source": ["10.1.0.1/24", "192.0.2.1", "none"]}
    assert parse_device(said, []).sources == HERE
    assert "without ipv6.disable=1" in bars("a", device, None, [SIX])[0].mend


def test_ipv6_that_is_off_bars_what_has_ipv6():
    device = Device(ipv6_off="all")
    assert bars("a", device, (6, 1, 0), [FOUR]) == ()
    (bar,) = bars("a", device, (6, 1, 0), [FOUR, SIX])
    assert bar.what.startswith(
        "a: IPv6 is off on ipsec0 (net.ipv6.conf.ipsec0.disable_ipv6 is 1), so charon's"
    )
    assert "sysctl -w net.ipv6.conf.all.disable_ipv6=0" in bar.cause
    assert bars("a", Device(), (6, 1, 0), [FOUR, SIX]) == ()
    assert (
        bars("a", None, (6, 1, 0), [SIX]) == bars("a", Device(there=False, ipv6_off="all"), None, [SIX]) == ()
    )


def test_before_5_9_12_a_source_is_needed():
    device = Device(sources=HERE)
    assert bars("a", device, (5, 9, 8), [FOUR]) == ()
    (bar,) = bars("a", device, (5, 9, 11), [FOUR, SIX])
    assert bar.what.startswith(
        "a: no interface has an address in fd00:1::/64, without which charon before 5.9.12"
    )
    assert bars("a", device, (5, 9, 12), [SIX]) == bars("a", device, None, [SIX]) == ()
    assert bars("a", Device(), (5, 9, 8), [SIX]) == (), "its addresses are not known"
    anything = (IPNetwork("::/0"), SIX[1])
    assert bars("a", device, (5, 9, 8), [anything]) == (), "charon takes any address for it"
    assert len(bars("a", Device(sources=HERE, ipv6_off="all"), (5, 9, 8), [SIX])) == 1, "one cause is enough"


def test_what_was_off_in_one_of_two_looks_alone_is_not_off():
    off = Device(ipv6_off="all", sources=HERE)
    assert off.joined(Device(sources=frozenset())).ipv6_off == ""
    assert off.joined(off) == off

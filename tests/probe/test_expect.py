"""Computed sizes: the smallest of what the topology comes to and what was negotiated."""

from dataclasses import replace

import pytest

from ipsecctl.crypto import esp_suites, parse_esp_proposal
from ipsecctl.probe.expect import esp_bytes, expected
from ipsecctl.probe.wire import Encapsulation
from ipsecctl.topology import DataPath


def suite(keyword):
    return esp_suites(parse_esp_proposal(keyword))[0]


def test_the_negotiated_suite_on_the_smaller_link(world):
    found = expected(world.tunnel, (), [suite("aes256gcm16")], {})
    assert found is not None
    assert (found.inner_mtu, found.mss(4), found.mss(6)) == (1446, 1406, 1386)
    assert found.encapsulation is Encapsulation.NATIVE
    left = world.tunnel.left
    narrow = replace(world.tunnel, left=replace(left, gateway=replace(left.gateway, mtu=1400)))
    smaller = expected(narrow, (), [suite("aes256gcm16")], {})
    assert smaller is not None
    assert smaller.inner_mtu == 1346
    assert "gw-north's WAN link of 1400" in smaller.because


def test_libipsec_is_a_limit_at_either_end(world):
    found = expected(world.tunnel, (), [suite("aes256gcm16")], {"gw-south": DataPath.LIBIPSEC})
    assert found is not None
    assert (found.inner_mtu, found.because) == (1400, "libipsec on gw-south")


def test_nat_costs_eight_bytes(nat_world):
    found = expected(nat_world.tunnel, (), [suite("aes256gcm16")], {})
    assert found is not None
    assert (found.inner_mtu, found.encapsulation) == (1438, Encapsulation.UDP)


def test_nothing_known_nothing_expected(world):
    assert expected(world.tunnel, (), (), {}) is None


@pytest.mark.parametrize(
    ("keyword", "inner", "esp"),
    [
        ("aes256gcm16", 1446, 1480),
        ("aes256gcm16", 1445, 1480),
        ("aes256gcm16", 1447, 1484),
        ("aes256-sha256", 1438, 1480),
    ],
)
def test_length_of_esp(keyword, inner, esp):
    assert esp_bytes(inner, suite(keyword)) == esp

"""Computed sizes: the smallest of what the topology comes to and what was negotiated."""

from dataclasses import replace

import pytest

from ipsecctl.crypto import esp_suites, parse_esp_proposal
from ipsecctl.desired import Means, compile_topology
from ipsecctl.probe.expect import esp_bytes, expected
from ipsecctl.probe.wire import Encapsulation
from ipsecctl.topology import DataPath, load_text


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


PAIR = """
ipsecctl: 1
name: pair
defaults: {credential: both, control: lab}
credentials: {both: {psk: "file:secrets/pair.psk"}}
sites:
  north: {networks: {lan: 10.1.0.0/24}, gateway: {name: gw-north, address: 198.51.100.1, mtu: 1400}}
  south: {networks: {lan: 10.2.0.0/24}, gateway: {name: gw-south, address: 203.0.113.1}}
tunnels: {pair: {between: [north, south]}}
"""


@pytest.mark.parametrize(
    ("version", "how", "inner"),
    [((5, 9, 8), Encapsulation.UDP, 1338), ((6, 0, 1), Encapsulation.NATIVE, 1346)],
)
def test_a_charon_that_carries_esp_itself_and_knows_udp_only(version, how, inner):
    topology = load_text(PAIR, "pair.yaml").topology
    assert topology is not None
    states = compile_topology(topology, {"gw-south": Means(DataPath.LIBIPSEC, version=version)})
    found = expected(topology.tunnels[0], states, [suite("aes256gcm16")], {"gw-south": DataPath.LIBIPSEC})
    assert found is not None
    assert (found.encapsulation, found.inner_mtu) == (how, inner)


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

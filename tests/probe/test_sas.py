"""charon's own words (list-sas of 6.1.0) as what a packet is held against."""

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.health import parse_list_sas
from ipsecctl.probe.sas import Selector, charon_view
from ipsecctl.probe.traffic import paths

CHILD = {
    "name": "pair",
    "uniqueid": "1",
    "state": "INSTALLED",
    "spi-in": "c0000001",
    "spi-out": "c0000002",
    "encr-alg": "AES_GCM_16",
    "encr-keysize": "256",
    "packets-in": "12",
    "packets-out": "34",
    "local-ts": ["10.1.0.0/24", "fd00:1::/64"],
    "remote-ts": ["10.2.0.0/24", "fd00:2::/64"],
}


def sas(child=CHILD, **more):
    ike = {
        "uniqueid": "3",
        "state": "ESTABLISHED",
        "local-host": "198.51.100.1",
        "remote-host": "203.0.113.1",
    }
    return parse_list_sas([{"pair": ike | {"child-sas": {"pair-1": child}} | more}, {"other": other_sa()}])


def other_sa():
    child = CHILD | {"spi-in": "d0000001", "spi-out": "d0000002"}
    return {
        "uniqueid": "9",
        "local-host": "198.51.100.1",
        "remote-host": "192.0.2.9",
        "child-sas": {"x-2": child},
    }


def test_a_tunnels_end():
    view = charon_view("gw-north", "pair", sas())
    assert (view.local, view.remote) == (IPAddress("198.51.100.1"), IPAddress("203.0.113.1"))
    (sa,) = view.sas
    assert (sa.spi_in, sa.spi_out, sa.packets_in, sa.packets_out) == (0xC0000001, 0xC0000002, 12, 34)
    assert sa.suite is not None
    assert (sa.suite.iv_bytes, sa.suite.icv_bytes) == (8, 16)
    assert view.all_spis_in == {0xC0000001, 0xD0000001}
    assert view.all_spis_out == {0xC0000002, 0xD0000002}


def test_a_tunnel_that_is_not_there():
    view = charon_view("gw-north", "gone", sas())
    assert (view.local, view.remote, view.sas) == (None, None, ())


def test_a_child_that_is_only_being_made_has_no_spis():
    assert charon_view("gw-north", "pair", sas(CHILD | {"spi-in": "", "spi-out": ""})).sas == ()


def test_an_sa_carries_what_its_selectors_say(tunnel_with, scene):
    view = charon_view(
        "gw-north",
        "pair",
        sas(CHILD | {"local-ts": ["10.1.0.0/24[tcp]"], "remote-ts": ["10.2.0.0/24[tcp/104]"]}),
    )
    tcp = tunnel_with("[{from: north.lan, to: south.lan, protocol: tcp, port: 104}]")
    udp = tunnel_with("[{from: north.lan, to: south.lan, protocol: udp, port: 514}]")
    carried = [(p.direction, p.family) for p in paths(tcp, scene.hosts)[0] if view.carrying(p)]
    assert carried == [("north -> south", 4), ("south -> north", 4)]
    assert not any(view.carrying(p) for p in paths(udp, scene.hosts)[0])


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("10.1.0.0/24", Selector(IPNetwork("10.1.0.0/24"))),
        ("10.1.0.0/24[tcp]", Selector(IPNetwork("10.1.0.0/24"), 6)),
        ("fd00:1::/64[ipv6-icmp]", Selector(IPNetwork("fd00:1::/64"), 58)),
        ("10.1.0.0/24[udp/1000-2000]", Selector(IPNetwork("10.1.0.0/24"), 17)),
        ("10.1.0.0/24[89]", Selector(IPNetwork("10.1.0.0/24"), 89)),
        ("10.1.0.1/32[tcp/http]", Selector(IPNetwork("10.1.0.1/32"), 6)),
        ("10.1.0.1..10.1.0.5", None),
        ("", None),
    ],
)
def test_selectors(text, selector):
    assert Selector.parse(text) == selector


@pytest.mark.parametrize(
    ("algorithms", "sizes"),
    [
        ({"encr-alg": "CHACHA20_POLY1305", "encr-keysize": "256"}, (8, 16, 4)),
        ({"encr-alg": "AES_CBC", "encr-keysize": "256", "integ-alg": "HMAC_SHA2_256_128"}, (16, 16, 16)),
        ({"encr-alg": "AES_CBC", "encr-keysize": "128", "integ-alg": "HMAC_SHA1_96"}, (16, 12, 16)),
        (
            {"encr-alg": "AES_GCM_16", "encr-keysize": "128", "dh-group": "ECP_384", "ake1": "ML_KEM_768"},
            (8, 16, 4),
        ),
    ],
)
def test_negotiated_suites(algorithms, sizes):
    plain = {key: value for key, value in CHILD.items() if not key.startswith("encr")}
    suite = charon_view("gw-north", "pair", sas(plain | algorithms)).sas[0].suite
    assert suite is not None
    assert (suite.iv_bytes, suite.icv_bytes, suite.alignment_bytes) == sizes


def test_a_suite_of_unknown_sizes():
    assert charon_view("gw-north", "pair", sas(CHILD | {"encr-alg": "ROT13"})).sas[0].suite is None

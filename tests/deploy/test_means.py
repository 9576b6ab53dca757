"""What gateways have to work with: found out once, kept, and held against what is asked of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from netaddr import IPNetwork

import ipsecctl.deploy.means as finding
from ipsecctl.deploy.means import compile_observed, far_prefixes, means_remembered
from ipsecctl.desired import Means, RouteKind
from ipsecctl.errors import CannotTell, GatewayUnreachable
from ipsecctl.gateway import (
    Answer,
    Capabilities,
    Charon,
    Facts,
    Firewall,
    Has,
    Kernel,
    Observed,
    Record,
    WaysSeen,
)
from ipsecctl.topology import DataPath, Mode, load_text

YES, NO = Answer(Has.YES), Answer(Has.NO, "Unknown device type")
SUITES = tuple((name, YES) for name in ("aes128gcm16", "aes256gcm16", "chacha20poly1305"))
ABLE = Kernel("6.12", YES, YES, SUITES, YES, YES, YES, YES, YES, YES)
FIREWALL = Firewall(nftables="1.1", sets=YES, xfrm=YES)
ALGORITHMS = (
    ("aead", ("AES_GCM_16", "CHACHA20_POLY1305")),
    ("ke", ("CURVE_25519", "CURVE_448", "ECP_256", "ECP_384", "ECP_521", "MODP_3072", "MODP_4096")),
    ("prf", ("PRF_HMAC_SHA2_256", "PRF_HMAC_SHA2_384", "PRF_HMAC_SHA2_512")),
)
CHARON = Charon("6.1.0", ("kernel-netlink",), ALGORITHMS)

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {{control: lab, mode: {mode}, datapath: {path}, credential: {{psk: "env:PSK"}}, profile: {profile}}}
sites:
  a: {{networks: {{lan: [10.1.0.0/24, "fd00:1::/64"]}}, gateway: 192.0.2.1}}
  b: {{networks: {{lan: [10.2.0.0/24, "fd00:2::/64"]}}, gateway: 192.0.2.2}}
tunnels:
  t: {{between: [a, b]}}
"""


def topology(mode="auto", path="auto", profile="modern"):
    loaded = load_text(TOPOLOGY.format(mode=mode, path=path, profile=profile), "pair.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology


class Gateway:
    """A gateway that counts how often it was asked for its capabilities."""

    def __init__(self, name, kernel=ABLE, charon=CHARON, start="boot 1", record=None, refuses=False):
        self.name, self.kernel, self.charon, self.start = name, kernel, charon, start
        self.record, self.refuses, self.asked = record, refuses, 0
        self.connected, self.down = (), None

    def observed(self):
        libipsec = "kernel-libipsec" in self.charon.plugins
        path = DataPath.LIBIPSEC if libipsec else DataPath.KERNEL
        ways = WaysSeen(connected=tuple(map(IPNetwork, self.connected)))
        facts = Facts(record=self.record, kernel=self.start, ways=ways)
        return Observed(
            self.name, self.charon.version, path, {}, facts=facts, charon=self.charon, charon_down=self.down
        )

    def keep(self, compiled):
        """Do what an apply does with what was found out."""
        record = self.record or Record(b"k")
        kept = replace(record, means=compiled.means, trials=compiled.trials.get(self.name))
        self.record = Record.from_json(kept.to_json())


@pytest.fixture
def compiled(monkeypatch):
    """Return a function that compiles for gateways as they are."""

    async def capabilities(handle, *, timeout_s):
        handle.asked += 1
        if handle.refuses:
            raise CannotTell("root's rights are needed")
        return Capabilities(handle.name, handle.charon, kernel=handle.kernel, firewall=FIREWALL)

    monkeypatch.setattr(finding, "capabilities", capabilities)

    def run(topology, *gateways):
        handles = {gateway.name: gateway for gateway in gateways}
        observed = {gateway.name: gateway.observed() for gateway in gateways}
        return asyncio.run(compile_observed(topology, handles, observed, timeout_s=1))

    return run


def modes(compiled):
    return {state.name: state.connections[0].mode for state in compiled.states}


def test_auto_is_decided_by_what_is_there_and_asked_for_once(compiled):
    a, b = Gateway("a"), Gateway("b", replace(ABLE, xfrm_interfaces=NO))
    found = compiled(topology(), a, b)
    assert modes(found) == {"a": Mode.ROUTE, "b": Mode.POLICY}
    assert found.lacking == {}
    assert found.means == {
        "a": Means(DataPath.KERNEL, True, (6, 1, 0)),
        "b": Means(DataPath.KERNEL, False, (6, 1, 0)),
    }
    for gateway in (a, b):
        gateway.keep(found)
    again = compiled(topology(), a, b)
    assert again == found
    assert (a.asked, b.asked) == (1, 1)


def test_networks_that_a_gateway_is_joined_to_count_for_it_and_are_nobody_elses_to_remember(compiled):
    def passed_on(found):
        return [
            (s.name, str(r.prefix)) for s in found.states for r in s.routes if r.kind is RouteKind.PASSED_ON
        ]

    a, b = Gateway("a"), Gateway("b")
    a.connected = ("10.1.0.0/24", "10.2.0.64/26", "192.0.2.0/24")
    found = compiled(topology(mode="policy"), a, b)
    assert passed_on(found) == [("a", "10.2.0.64/26")]
    assert {means.connected for means in found.means.values()} == {frozenset()}
    for gateway in (a, b):
        gateway.keep(found)
    a.down = GatewayUnreachable("a", "no charon", charon_down=True)
    assert compiled(topology(mode="policy"), a, b).states == found.states
    a.connected = ()
    assert passed_on(compiled(topology(mode="policy"), a, b)) == []


def test_a_restart_of_the_kernel_is_a_reason_to_ask(compiled):
    a, b = Gateway("a"), Gateway("b")
    found = compiled(topology(), a, b)
    a.keep(found)
    a.start = "boot 2"
    compiled(topology(), a, b)
    assert (a.asked, b.asked) == (2, 2)
    a.start = ""  # of a kernel that does not tell its starts apart
    compiled(topology(), a, b)
    assert a.asked == 3


def test_what_was_decided_stays_unless_it_is_gone(compiled):
    a, b = Gateway("a", replace(ABLE, xfrm_interfaces=NO)), Gateway("b")
    found = compiled(topology(), a, b)
    for gateway in (a, b):
        gateway.keep(found)
    a.kernel, a.start, b.start = ABLE, "boot 2", "boot 2"
    b.kernel = replace(ABLE, xfrm_interfaces=Answer())
    found = compiled(topology(), a, b)
    assert modes(found) == {"a": Mode.POLICY, "b": Mode.ROUTE}
    b.keep(found)
    b.kernel, b.start = replace(ABLE, xfrm_interfaces=NO), "boot 3"
    found = compiled(topology(), a, b)
    assert modes(found) == {"a": Mode.POLICY, "b": Mode.POLICY}


def test_nothing_is_decided_before_somebody_asks_for_it(compiled):
    a, b = Gateway("a", replace(ABLE, xfrm_interfaces=NO)), Gateway("b")
    found = compiled(topology("policy"), a, b)
    assert {means.xfrm_interfaces for means in found.means.values()} == {None}
    for gateway in (a, b):
        gateway.keep(found)
    a.kernel, a.start = ABLE, "boot 2"
    assert modes(compiled(topology(), a, b)) == {"a": Mode.ROUTE, "b": Mode.ROUTE}


def test_a_gateway_that_is_away_changes_nothing_for_the_other(compiled):
    libipsec = replace(CHARON, plugins=("kernel-libipsec",))
    a, b = Gateway("a"), Gateway("b", charon=libipsec)
    found = compiled(topology(), a, b)
    a.keep(found)
    alone = compiled(topology(), a)
    assert alone.states == found.states
    assert alone.means == found.means


def test_a_gateways_own_word_counts_before_that_of_others():
    old, new = Means(DataPath.KERNEL), Means(DataPath.LIBIPSEC)
    assert means_remembered({"a": {"a": old, "b": old}, "b": {"a": new, "b": new}}) == {"a": old, "b": new}
    assert means_remembered({"b": {"a": new}}) == {"a": new}


@pytest.mark.parametrize(
    ("asks", "kernel", "charon", "said"),
    [
        ({"mode": "route"}, {"xfrm_interfaces": NO}, CHARON, "it has no xfrm interfaces"),
        ({"path": "kernel"}, {"esp": NO}, CHARON, "it has no ESP in the kernel"),
        ({"profile": "pq-hybrid"}, {}, replace(CHARON, version="6.0.1"), "cannot do mlkem768"),
        ({"profile": "pq-hybrid"}, {}, replace(CHARON, version="5.9.8"), "additional key exchanges"),
    ],
)
def test_what_a_gateway_lacks_is_refused_and_tried_again_next_time(compiled, asks, kernel, charon, said):
    a, b = Gateway("a", replace(ABLE, **kernel), charon), Gateway("b")
    found = compiled(topology(**asks), a, b)
    assert said in " ".join(conflict.summary for conflict in found.lacking["a"])
    assert all(conflict.summary.startswith("a: ") and conflict.hint for conflict in found.lacking["a"])
    a.keep(found)
    if kernel:  # an administrator loads what was missing
        a.kernel = ABLE
        assert "a" not in compiled(topology(**asks), a, b).lacking
        assert a.asked == 2


def test_what_could_not_be_found_out_refuses_nothing(compiled):
    a, b = Gateway("a", refuses=True), Gateway("b", replace(ABLE, xfrm_interfaces=Answer()))
    found = compiled(topology("route"), a, b)
    assert found.lacking == {}
    assert modes(found) == {"a": Mode.ROUTE, "b": Mode.ROUTE}
    assert modes(compiled(topology(), a, b)) == {"a": Mode.POLICY, "b": Mode.POLICY}


def test_prefixes_that_may_be_led_into_tunnels():
    assert far_prefixes(topology("policy")) == {}
    for mode in ("route", "auto"):
        assert far_prefixes(topology(mode)) == {
            "a": {"10.2.0.0/24", "fd00:2::/64"},
            "b": {"10.1.0.0/24", "fd00:1::/64"},
        }

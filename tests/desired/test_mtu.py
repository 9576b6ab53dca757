"""MTUs of a whole topology: what no tunnel may exceed, and where one is shared."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipsecctl.crypto import LIBIPSEC_MTU
from ipsecctl.desired import HOLDING_TABLE, Means, compile_topology
from ipsecctl.desired.mtu import compute_mtus
from ipsecctl.desired.ways import Ways
from ipsecctl.topology import DataPath, Mode, Topology, load_text

SITES = 5
WAN_MTUS = (1280, 1400, 1492, 1500, 9000)
EXACT = {1280: 1226, 1400: 1346, 1492: 1438, 1500: 1446, 9000: 8946}  # AES-GCM over IPv4 without UDP

gateway = st.tuples(
    st.sampled_from(WAN_MTUS),
    st.sampled_from(["policy", "route", "auto"]),
    st.sampled_from(["kernel", "libipsec"]),
)
pairs = st.sets(
    st.tuples(st.integers(0, SITES - 1), st.integers(0, SITES - 1)).filter(lambda p: p[0] < p[1]), min_size=1
)


@lru_cache(maxsize=4096)
def topology(gateways: tuple[tuple[int, str, str], ...], joined: tuple[tuple[int, int], ...]) -> Topology:
    text = 'ipsecctl: 1\nname: t\ndefaults: {credential: {psk: "env:X"}}\nsites:\n'
    for n, (mtu, mode, path) in enumerate(gateways):
        possible = "auto" if mode == "route" and path == "libipsec" else mode
        text += (
            f"  s{n}: {{networks: {{lan: 10.{n}.0.0/24}}, gateway: {{address: 192.0.2.{n + 1}, mtu: {mtu}, "
            f"mode: {possible}, datapath: {path}}}}}\n"
        )
    text += "tunnels:\n" + "".join(f"  t{a}{b}: {{between: [s{a}, s{b}]}}\n" for a, b in joined)
    loaded = load_text(text, "t.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology


@settings(max_examples=3 * settings.default.max_examples // 2, deadline=None)
@given(st.lists(gateway, min_size=SITES, max_size=SITES), pairs, st.booleans())
def test_every_end_lets_through_exactly_what_its_tunnel_carries(gateways, joined, interfaces):
    known = topology(tuple(gateways), tuple(sorted(joined)))
    means = {f"s{n}": Means(xfrm_interfaces=interfaces) for n in range(SITES)}
    found = compute_mtus(known.tunnels, Ways(known.gateways(), means))
    for state in compile_topology(known, means):
        wan = gateways[int(state.name[1:])][0]
        by_policy = [c for c in state.connections if c.mode is Mode.POLICY]
        said = state.daemon.route_mtu
        assert said == found.on_routes.get(state.name, 0)
        for connection in state.connections:
            far = gateways[int(connection.peer[1:])]
            capped = DataPath.LIBIPSEC in (state.data_path, DataPath(far[2]))
            fits = min(EXACT[wan], EXACT[far[0]], LIBIPSEC_MTU if capped else 9216)
            assert connection.inner_mtu <= fits
            assert connection.inner_mtu == found.inner[connection.name]
        for interface in state.interfaces:
            assert interface.mtu == (found.inner[interface.tunnel] if interface.tunnel else 65_535)
        # In policy mode the gateway itself must come to the same size for every tunnel: charon's one device
        # has one for all, the kernel is told on the route to each tunnel's networks.
        if state.data_path is DataPath.LIBIPSEC:
            assert {c.inner_mtu for c in by_policy} <= {said or LIBIPSEC_MTU}
        else:
            assert said == 0
            table = {str(r.prefix): r.mtu for r in state.routes if r.table == HOLDING_TABLE}
            assert table == {f"10.{c.peer[1:]}.0.0/24": c.inner_mtu for c in by_policy}


@given(st.lists(gateway, min_size=SITES, max_size=SITES), pairs)
def test_no_tunnel_is_smaller_than_the_smallest_that_it_hangs_together_with(gateways, joined):
    known = topology(tuple(gateways), tuple(sorted(joined)))
    found = compute_mtus(known.tunnels, Ways(known.gateways(), {}))
    limits = set(EXACT.values()) | {LIBIPSEC_MTU}
    smallest = min(EXACT[gateways[n][0]] for pair in joined for n in pair)
    for mtu in found.inner.values():
        assert mtu in limits
        assert mtu >= min(smallest, LIBIPSEC_MTU)
    if all(path == "kernel" for _, _, path in gateways):
        assert not found.on_routes
        for tunnel in known.tunnels:
            ends = (int(tunnel.left.gateway.name[1:]), int(tunnel.right.gateway.name[1:]))
            assert found.inner[tunnel.name] == min(EXACT[gateways[n][0]] for n in ends)


@pytest.mark.parametrize("mode", ["policy", "route"])
def test_each_tunnel_of_a_hub_has_its_own(mode):
    hub, wide, narrow = (1500, mode, "kernel"), (1500, "policy", "kernel"), (1492, "policy", "kernel")
    known = topology((hub, narrow, wide, wide, wide), ((0, 1), (0, 2), (3, 4)))
    found = compute_mtus(known.tunnels, Ways(known.gateways(), {}))
    assert found.inner == {"t01": 1438, "t02": 1446, "t34": 1446}
    assert found.on_routes == {}


def test_the_one_device_of_a_libipsec_gateway_has_one_for_all_and_the_far_ends_follow():
    hub, narrow, wide = (1500, "policy", "libipsec"), (1280, "policy", "kernel"), (1500, "policy", "kernel")
    known = topology((hub, narrow, wide, wide, wide), ((0, 1), (0, 2), (2, 3)))
    found = compute_mtus(known.tunnels, Ways(known.gateways(), {}))
    assert found.inner == {"t01": 1226, "t02": 1226, "t23": 1446}
    assert found.on_routes == {"s0": 1226}


TWO_HUBS = """
ipsecctl: 1
name: t
defaults: {credential: {psk: "env:X"}, mode: policy}
sites:
  dc:
    networks: {x: 10.1.0.0/24, y: 10.1.1.0/24}
    gateways:
      h1: {address: 192.0.2.1, mtu: 1400}
      h2: {address: 192.0.2.2}
  clinic: {networks: {lan: 10.2.0.0/24, dmz: 10.2.1.0/24}, gateway: 192.0.2.3}
  other: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.4}
tunnels:
  one: {between: [clinic, dc/h1], flows: [{from: clinic.lan, to: dc.x}]}
  two: {between: [clinic, dc/h2], flows: [{from: clinic.dmz, to: dc.FAR}]}
  three: {between: [other, dc/h2]}
"""


@pytest.mark.parametrize(("far", "mtu"), [("x", 1346), ("y", 1446)])
def test_two_tunnels_to_one_far_network_share_one_as_a_route_cannot_tell_them_apart(far, mtu):
    loaded = load_text(TWO_HUBS.replace("FAR", far), "t.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    states = {state.name: state for state in compile_topology(loaded.topology)}
    mtus = {c.name: c.inner_mtu for state in states.values() for c in state.connections}
    # At h2 the networks of `two` and `three` are apart: it goes no further.
    assert mtus == {"one": 1346, "two": mtu, "three": 1446}
    routes = {(state.name, str(r.prefix)): r.mtu for state in states.values() for r in state.routes}
    assert routes["clinic", f"10.1.{'xy'.index(far)}.0/24"] == mtu
    assert routes["clinic", "10.1.0.0/24"] == 1346
    assert routes["h2", "10.2.1.0/24"] == mtu
    assert routes["h2", "10.3.0.0/24"] == 1446

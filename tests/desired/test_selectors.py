"""Prefixes without those that others contain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPNetwork, IPSet

from ipsecctl.desired.selectors import minimal

prefixes = st.builds(
    lambda value, length: IPNetwork((value << 16, length)).cidr,
    st.integers(0, 0xFFFF),
    st.integers(8, 32),
)


@given(st.lists(prefixes, max_size=30))
def test_minimal_covers_the_same_addresses_with_no_prefix_in_another(given_prefixes):
    result = minimal(given_prefixes)
    assert list(result) == sorted(result)
    assert IPSet(result) == IPSet(given_prefixes)
    assert not any(a != b and a in b for a in result for b in result)
    assert set(result) <= set(given_prefixes)


def test_numbers_that_keep_names_apart_meet_no_other_name(compiled):
    dc = compiled("""
        defaults: {credential: {psk: "file:{tunnel}.psk"}}
        sites:
          dc: {networks: {a: 10.1.0.0/24, a-b: 10.1.1.0/24}, gateway: 192.0.2.1}
          far: {networks: {c: 10.2.0.0/24, b-c: 10.2.1.0/24, b-c-1: 10.2.2.0/24}, gateway: 192.0.2.2}
        tunnels: {t: {between: [dc, far], children: subnet-pair}}
    """)["dc"]
    names = [child.name for child in dc.connections[0].children]
    assert len(set(names)) == len(names) == 6


SITES = """
    defaults: {credential: {psk: "file:{tunnel}.psk"}}
    sites:
      dc: {networks: {a: 10.1.0.0/24, b: 10.1.1.0/24}, gateway: 192.0.2.1}
      far: {networks: {c: 10.2.0.0/24, d: 10.2.1.0/24}, gateway: 192.0.2.2}
"""
FLOWS = ("{name: one, from: a, to: c}", "{from: b, to: d}", "{name: all, from: b, to: c}")


@pytest.mark.parametrize("per", ["flow", "subnet-pair"])
def test_no_flow_gives_the_children_of_another_their_names(compiled, per):
    def children(*flows):
        text = (
            f"{SITES}    tunnels: {{t: {{between: [dc, far], children: {per}, flows: [{', '.join(flows)}]}}}}"
        )
        connection = compiled(text)["dc"].connections[0]
        return {child.name: (child.local_ts, child.remote_ts) for child in connection.children}

    every = children(*FLOWS)
    assert len(every) == len(FLOWS)
    for several in ({*FLOWS} - {flow} for flow in FLOWS):
        assert children(*sorted(several)).items() <= every.items()
    for flow in FLOWS:
        assert children(flow).items() <= every.items()


def test_a_tunnel_without_flows_keeps_its_short_names(compiled):
    for per, names in (("flow", {"t"}), ("subnet-pair", {"t-a-c", "t-a-d", "t-b-c", "t-b-d"})):
        dc = compiled(f"{SITES}    tunnels: {{t: {{between: [dc, far], children: {per}}}}}")["dc"]
        assert {child.name for child in dc.connections[0].children} == names

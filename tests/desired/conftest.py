"""Compile topologies written as YAML in a test."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest
from netaddr import IPNetwork

from ipsecctl.desired import FirewallRule, GatewayState, Means, compile_topology
from ipsecctl.topology import DataPath, load_text


@pytest.fixture
def compiled() -> Callable[..., dict[str, GatewayState]]:
    """A function from the text of a topology (its body, without version and name) to states by gateway name.

    Keyword arguments say what ``datapath: auto`` is on a gateway (``dc="libipsec"``).
    """

    def run(body: str, **data_paths: str) -> dict[str, GatewayState]:
        loaded = load_text("ipsecctl: 1\nname: test\n" + dedent(body), "test.yaml")
        assert loaded.topology is not None, loaded.diagnostics
        means = {name.replace("_", "-"): Means(DataPath(path)) for name, path in data_paths.items()}
        return {state.name: state for state in compile_topology(loaded.topology, means)}

    return run


@pytest.fixture
def rule() -> Callable[..., FirewallRule]:
    """A function from a tunnel, a remote prefix and an interface ("" for policy mode) to a firewall rule."""

    def make(tunnel: str, remote: str, interface: str) -> FirewallRule:
        return FirewallRule(
            tunnel, 4, (IPNetwork("10.1.0.0/24"),), (IPNetwork(remote),), 1400, interface=interface
        )

    return make

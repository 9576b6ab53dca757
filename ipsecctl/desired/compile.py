"""From what the engineer means to what each gateway must be.

In this order: whose data path carries ESP; how large a packet each tunnel carries; what the two ends of each
tunnel share (children, guarded prefixes); then, gateway by gateway, each tunnel as seen from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType

from ipsecctl.crypto import LIBIPSEC_MTU
from ipsecctl.desired.credentials import GatewayCredentials, gateway_credentials, shared_key
from ipsecctl.desired.mtu import inner_mtus
from ipsecctl.desired.routes import holding_routes
from ipsecctl.desired.selectors import ChildPlan, GuardedPair, plan_children
from ipsecctl.desired.state import Action, Child, Connection, Daemon, FirewallRule, GatewayState
from ipsecctl.topology import AddressKind, DataPath, End, Gateway, Topology, Tunnel

__all__ = ["compile_topology"]

_NO_DATA_PATHS: Mapping[str, DataPath] = MappingProxyType({})
_CALLING = (Action.TRAP, Action.START, Action.RESTART)
"""start_action, close_action and dpd_action of the end that brings the tunnel up."""
_CALLED = (Action.NONE, Action.NONE, Action.CLEAR)
"""The same of the end that waits: were both to call, each would make an SA of its own."""
_IP_AND_TCP_BYTES = {4: 20 + 20, 6: 40 + 20}


@dataclass(frozen=True, slots=True)
class _Shared:
    """What both ends of a tunnel have in common."""

    tunnel: Tunnel
    children: tuple[ChildPlan, ...]
    guarded: tuple[GuardedPair, ...]
    inner_mtu: int

    def mss(self, family: int) -> int:
        return self.inner_mtu - _IP_AND_TCP_BYTES[family]


@dataclass(frozen=True, slots=True)
class _Outside:
    """A gateway as the WAN knows it: what it calls from, where it is called, and whether that can change."""

    local_addrs: tuple[str, ...]
    remote_addrs: tuple[str, ...]
    may_move: bool

    @classmethod
    def of(cls, gateway: Gateway) -> _Outside:
        fixed = gateway.address_kind is AddressKind.FIXED
        reachable_at = gateway.reachable_at
        return cls(
            local_addrs=(str(gateway.address) if fixed else "%any",),
            remote_addrs=("%any" if reachable_at is None else str(reachable_at),),
            may_move=gateway.behind_nat or not fixed,
        )


@dataclass(frozen=True, slots=True)
class _View:
    """A tunnel as one of its gateways sees it."""

    name: str
    shared: _Shared
    here: End
    there: End
    is_left: bool
    initiates: bool


def compile_topology(
    topology: Topology, data_paths: Mapping[str, DataPath] = _NO_DATA_PATHS
) -> tuple[GatewayState, ...]:
    """Compile a valid topology into the state of each managed gateway, sorted by name.

    ``data_paths`` says for gateways, by name, what ``datapath: auto`` has turned out to be; where it says
    nothing, ``auto`` is the kernel's. The result depends on values only: the order of keys in the file plays
    no part.
    """
    gateways = topology.gateways()
    paths = {gateway.name: _data_path(gateway, data_paths) for gateway in gateways}
    outsides = {gateway.name: _Outside.of(gateway) for gateway in gateways}
    views = _views(topology.tunnels, inner_mtus(topology.tunnels, paths))
    return tuple(
        _gateway_state(gateway, paths[gateway.name], views.get(gateway.name, []), outsides)
        for gateway in gateways
        if gateway.managed
    )


def _data_path(gateway: Gateway, found: Mapping[str, DataPath]) -> DataPath:
    if gateway.data_path is not DataPath.AUTO:
        return gateway.data_path
    path = found.get(gateway.name, DataPath.KERNEL)
    return DataPath.KERNEL if path is DataPath.AUTO else path


def _views(tunnels: tuple[Tunnel, ...], mtus: Mapping[str, int]) -> dict[str, list[_View]]:
    """Return each gateway's views of its tunnels, sorted by the tunnels' names."""
    views: dict[str, list[_View]] = defaultdict(list)
    for tunnel in sorted(tunnels, key=attrgetter("name")):
        shared = _Shared(tunnel, *plan_children(tunnel), mtus[tunnel.name])
        left, right, left_calls = tunnel.left, tunnel.right, tunnel.initiator == "left"
        views[left.gateway.name].append(_View(tunnel.name, shared, left, right, True, left_calls))
        views[right.gateway.name].append(_View(tunnel.name, shared, right, left, False, not left_calls))
    return views


def _gateway_state(
    gateway: Gateway, data_path: DataPath, views: list[_View], outsides: Mapping[str, _Outside]
) -> GatewayState:
    credentials = gateway_credentials(
        gateway.name,
        mine=(view.here.credential for view in views),
        theirs=(view.there.credential for view in views),
    )
    keys = (shared_key(view.name, view.here, view.there) for view in views)
    firewall = tuple(rule for view in views for rule in _firewall_rules(view))
    inner_mtu = min((view.shared.inner_mtu for view in views), default=0)
    return GatewayState(
        name=gateway.name,
        site=gateway.site,
        data_path=data_path,
        connections=tuple(_connection(view, credentials, outsides) for view in views),
        shared_keys=tuple(key for key in keys if key is not None),
        certificates=credentials.certificate_files(),
        private_keys=credentials.private_keys(),
        firewall=firewall,
        routes=holding_routes(data_path, (view.there.gateway for view in views), firewall),
        inner_mtu=inner_mtu,
        daemon=Daemon(route_mtu=_route_mtu(data_path, inner_mtu)),
    )


def _route_mtu(data_path: DataPath, inner_mtu: int) -> int:
    """Return the MTU for routes into ``ipsec0`` where less fits than the device says, else 0."""
    return inner_mtu if data_path is DataPath.LIBIPSEC and 0 < inner_mtu < LIBIPSEC_MTU else 0


def _connection(view: _View, credentials: GatewayCredentials, outsides: Mapping[str, _Outside]) -> Connection:
    shared, here, there = view.shared, view.here, view.there
    near, far = outsides[here.gateway.name], outsides[there.gateway.name]
    profile = here.profile
    over_time_s = profile.ike_life_s - profile.ike_rekey_s
    return Connection(
        name=view.name,
        peer=there.gateway.name,
        local_addrs=near.local_addrs,
        remote_addrs=far.remote_addrs,
        local=credentials.local(here),
        remote=credentials.remote(there),
        ike_proposals=profile.ike_proposals,
        rekey_time_s=profile.ike_rekey_s,
        over_time_s=over_time_s,
        rand_time_s=over_time_s,
        dpd_delay_s=profile.dpd_delay_s,
        children=tuple(_child(view, plan) for plan in shared.children),
        initiates=view.initiates,
        nat_t=shared.tunnel.behind_nat,
        inner_mtu=shared.inner_mtu,
        mss_ipv4=shared.mss(4),
        mss_ipv6=shared.mss(6),
        mobike=near.may_move or far.may_move,
        keyingtries=0 if view.initiates else 1,
    )


def _child(view: _View, plan: ChildPlan) -> Child:
    profile = view.here.profile
    local_ts, remote_ts = (plan.left, plan.right) if view.is_left else (plan.right, plan.left)
    start, close, dpd = _CALLING if view.initiates else _CALLED
    return Child(
        name=plan.name,
        local_ts=local_ts,
        remote_ts=remote_ts,
        esp_proposals=profile.esp_proposals,
        rekey_time_s=profile.esp_rekey_s,
        life_time_s=profile.esp_life_s,
        rand_time_s=profile.esp_life_s - profile.esp_rekey_s,
        start_action=start,
        close_action=close,
        dpd_action=dpd,
    )


def _firewall_rules(view: _View) -> list[FirewallRule]:
    return [
        FirewallRule(
            tunnel=view.name,
            family=pair.family,
            local=pair.left if view.is_left else pair.right,
            remote=pair.right if view.is_left else pair.left,
            mss=view.shared.mss(pair.family),
        )
        for pair in view.shared.guarded
    ]

"""From what the engineer means to what each gateway must be.

In this order: which way packets take at each gateway (data path, mode); how large a packet each tunnel
carries; what the two ends of each tunnel share (children, guarded prefixes); then, gateway by gateway, each
tunnel as seen from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType

from netaddr import IPNetwork

from ipsecctl.collecting import without_collecting
from ipsecctl.desired.credentials import GatewayCredentials, gateway_credentials, ppk_of, shared_key
from ipsecctl.desired.elsewhere import carried_elsewhere, elsewhere_routes
from ipsecctl.desired.means import Means
from ipsecctl.desired.mtu import Mtus, compute_mtus
from ipsecctl.desired.routes import (
    InterfaceUse,
    forwarding_routes,
    forwarding_rules,
    holding_interface,
    holding_routes,
    routes_into,
)
from ipsecctl.desired.rules import own_networks, own_rules
from ipsecctl.desired.selectors import ChildPlan, GuardedPair, plan_children
from ipsecctl.desired.state import (
    Action,
    Child,
    Connection,
    Daemon,
    Elsewhere,
    FirewallRule,
    GatewayState,
    Interface,
)
from ipsecctl.desired.ways import Ways
from ipsecctl.topology import AddressKind, DataPath, End, Gateway, Mode, Topology, Tunnel, interface_name

__all__ = ["compile_topology"]

_NOTHING_KNOWN: Mapping[str, Means] = MappingProxyType({})
_CALLING = (Action.TRAP, Action.START, Action.RESTART)
"""start_action, close_action and dpd_action of the end that brings the tunnel up."""
_CALLING_WITHOUT_TRAPS = (Action.START, Action.START, Action.RESTART)
"""The same where the data path has no traps: it calls as soon as it is loaded, and never for traffic."""
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
    in_udp: bool

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
    mode: Mode
    traps: bool = True

    @property
    def interface(self) -> str:
        """The name of the tunnel's interface here, "" in policy mode."""
        return interface_name(self.name) if self.mode is Mode.ROUTE else ""

    def near(self) -> Iterator[tuple[IPNetwork, ...]]:
        """Yield this end's prefixes of the flows; views of one site's networks share what they yield."""
        return (pair.left if self.is_left else pair.right for pair in self.shared.guarded)

    def far(self) -> tuple[IPNetwork, ...]:
        """Return the far end's prefixes of the flows."""
        pairs = self.shared.guarded
        return tuple(p for pair in pairs for p in (pair.right if self.is_left else pair.left))


@without_collecting()
def compile_topology(
    topology: Topology, means: Mapping[str, Means] = _NOTHING_KNOWN
) -> tuple[GatewayState, ...]:
    """Compile a valid topology into the state of each managed gateway, sorted by name.

    ``means`` says for gateways, by name, what they were found to have; where it says nothing, ``datapath:
    auto`` is the kernel's and ``mode: auto`` is ``policy``. The result depends on values only: the order of
    keys in the file plays no part.
    """
    gateways = topology.gateways()
    ways = Ways(gateways, means)
    outsides = {gateway.name: _Outside.of(gateway) for gateway in gateways}
    mtus = compute_mtus(topology.tunnels, ways)
    views = _views(topology.tunnels, mtus, ways)
    held, peers = _held_for_others(topology, views)
    names = {site.name: {p: n.name for n in site.networks for p in n.prefixes} for site in topology.sites}
    states = []
    for gateway in gateways:
        if not gateway.managed:
            continue
        here = views.get(gateway.name, [])
        state = _gateway_state(gateway, ways, here, outsides, mtus.on_routes.get(gateway.name, 0))
        if gateway.name in held:
            state = _with_elsewhere(state, held[gateway.name], peers[gateway.site])
        states.append(state if gateway.one_armed else _with_own(state, here, names[gateway.site]))
    return tuple(states)


def _held_for_others(
    topology: Topology, views: Mapping[str, list[_View]]
) -> tuple[dict[str, Elsewhere], dict[str, list[Gateway]]]:
    """Return what gateways hold back for others of their site, by gateway, and the peers of such sites."""
    held: dict[str, Elsewhere] = {}
    peers: dict[str, list[Gateway]] = {}
    for site in topology.sites:
        if len(site.gateways) < 2:
            continue
        here = {gateway.name: views.get(gateway.name, []) for gateway in site.gateways}
        rules = {name: [rule for view in seen for rule in _guards(view)] for name, seen in here.items()}
        held |= carried_elsewhere(site, rules)
        peers[site.name] = [view.there.gateway for seen in here.values() for view in seen]
    return held, peers


def _with_elsewhere(state: GatewayState, held: Elsewhere, peers: list[Gateway]) -> GatewayState:
    routes = elsewhere_routes(held, state.firewall, state.routes, peers)
    return replace(state, elsewhere=held, routes=(*state.routes, *routes))


def _with_own(state: GatewayState, views: list[_View], names: Mapping[IPNetwork, str]) -> GatewayState:
    """Return a state with the rules for its own networks: its tunnels', and those of others at its site."""
    shared = {id(several): several for view in views for several in view.near()}
    others = (prefix for pair in state.elsewhere.pairs for prefix in pair.local)
    own = own_networks((*(p for several in shared.values() for p in several), *others), names)
    return replace(state, own=own, rules=(*own_rules(own), *state.rules))


def _views(tunnels: tuple[Tunnel, ...], mtus: Mtus, ways: Ways) -> dict[str, list[_View]]:
    """Return each gateway's views of its tunnels, sorted by the tunnels' names."""
    views: dict[str, list[_View]] = defaultdict(list)
    for tunnel in sorted(tunnels, key=attrgetter("name")):
        shared = _Shared(tunnel, *plan_children(tunnel), mtus.inner[tunnel.name], ways.in_udp(tunnel))
        left, right, left_calls = tunnel.left, tunnel.right, ways.left_calls(tunnel)
        for here, there, is_left in ((left, right, True), (right, left, False)):
            gateway = here.gateway.name
            calls, mode = left_calls is is_left, ways.mode(here)
            traps = ways.has_traps(gateway)
            views[gateway].append(_View(tunnel.name, shared, here, there, is_left, calls, mode, traps))
    return views


def _gateway_state(
    gateway: Gateway, ways: Ways, views: list[_View], outsides: Mapping[str, _Outside], route_mtu: int
) -> GatewayState:
    credentials = gateway_credentials(
        gateway.name,
        mine=(view.here.credential for view in views),
        theirs=(view.there.credential for view in views),
    )
    keys = [shared_key(view.name, view.here, view.there) for view in views]
    keys += [ppk_of(view.shared.tunnel) for view in views]
    firewall = tuple(rule for view in views for rule in _firewall_rules(view))
    data_path = ways.data_path(gateway.name)
    uses = [InterfaceUse(v.name, v.interface, v.here, v.far()) for v in views if v.interface]
    into = routes_into(uses)
    peers = (view.there.gateway for view in views)
    carried = {view.name: view.shared.inner_mtu for view in views}
    if data_path is DataPath.LIBIPSEC:
        carried = {}  # charon's device and its routes limit what enters
    holding = holding_routes(data_path, peers, firewall, into, inside=gateway.inside, mtus=carried)
    nowhere = holding_interface(holding)
    # A routing daemon that leads traffic into an interface does so in the main table, as our own routes do.
    led = [prefix for use in uses for prefix in (*use.far, *(use.here.routes or ()))]
    forwarding = forwarding_routes(holding, led, ways.means(gateway.name).connected)
    interfaces = tuple(_interface(view) for view in views if view.interface)
    return GatewayState(
        name=gateway.name,
        site=gateway.site,
        data_path=data_path,
        connections=tuple(_connection(view, credentials, outsides) for view in views),
        shared_keys=tuple(key for key in keys if key is not None),
        certificates=credentials.certificate_files(),
        private_keys=credentials.private_keys(),
        firewall=firewall,
        routes=(*into, *holding, *forwarding),
        inner_mtu=min((view.shared.inner_mtu for view in views), default=0),
        daemon=Daemon(route_mtu=route_mtu),
        interfaces=interfaces if nowhere is None else (*interfaces, nowhere),
        version=ways.version(gateway.name),
        rules=forwarding_rules(forwarding),
    )


def _interface(view: _View) -> Interface:
    """Return a tunnel's interface.

    It bears the gateway's inside addresses, too, as hosts: a route's source must be an address that is there,
    and at boot the routes are set before the network is.
    """
    inside = (IPNetwork(address) for address in view.here.gateway.inside)
    addresses = dict.fromkeys((*view.here.addresses, *inside))
    return Interface(
        view.interface, view.shared.tunnel.if_id, view.shared.inner_mtu, tuple(addresses), view.name
    )


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
        nat_t=shared.in_udp,
        inner_mtu=shared.inner_mtu,
        mss_ipv4=shared.mss(4),
        mss_ipv6=shared.mss(6),
        mobike=near.may_move or far.may_move,
        keyingtries=0 if view.initiates else 1,
        mode=view.mode,
        force_udp=bool(here.options.force_udp),
        ppk_id=shared.tunnel.ppk.id if shared.tunnel.ppk else "",
        ppk_required=bool(shared.tunnel.ppk and shared.tunnel.ppk.required),
    )


def _child(view: _View, plan: ChildPlan) -> Child:
    profile = view.here.profile
    local_ts, remote_ts = (plan.left, plan.right) if view.is_left else (plan.right, plan.left)
    calling = _CALLING if view.traps else _CALLING_WITHOUT_TRAPS
    start, close, dpd = calling if view.initiates else _CALLED
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
        if_id=view.shared.tunnel.if_id if view.mode is Mode.ROUTE else 0,
        options=view.here.options,
    )


def _firewall_rules(view: _View) -> list[FirewallRule]:
    rules = _guards(view)
    return [*rules, *_rules_of_interface(view)] if view.interface else rules


def _guards(view: _View) -> list[FirewallRule]:
    """Return the rules for what the flows join."""
    return [
        FirewallRule(
            tunnel=view.name,
            family=pair.family,
            local=pair.left if view.is_left else pair.right,
            remote=pair.right if view.is_left else pair.left,
            mss=view.shared.mss(pair.family),
            interface=view.interface,
        )
        for pair in view.shared.guarded
    ]


def _rules_of_interface(view: _View) -> Iterator[FirewallRule]:
    """Yield rules for the addresses of the interface itself: what routing daemons say to each other."""
    for family in (4, 6):
        local, remote = (
            tuple(sorted(IPNetwork(a.ip) for a in end.addresses if a.version == family))
            for end in (view.here, view.there)
        )
        if local and remote:
            yield FirewallRule(view.name, family, local, remote, view.shared.mss(family), view.interface)

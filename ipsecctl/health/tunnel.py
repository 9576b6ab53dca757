"""Declared tunnels, what their ends show, and the verdict: the types of this room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum

from netaddr import IPNetwork

from ipsecctl.crypto import Proposal, parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import (
    HOLDING_TABLE,
    Action,
    AuthMethod,
    Child,
    Connection,
    GatewayState,
    Route,
    RouteKind,
    RuleKind,
    Version,
    own_rules,
)
from ipsecctl.gateway import Guard, KernelView, NotInKernel, WayOut
from ipsecctl.health.device import OwnDevice
from ipsecctl.health.sa import IkeSa
from ipsecctl.health.traffic import Traffic
from ipsecctl.health.way import Way, WayView
from ipsecctl.topology import DataPath, Gateway, Topology

__all__ = ["Declared", "EndState", "EndView", "TunnelHealth", "Verdict", "declare"]


class Verdict(IntEnum):
    """What a tunnel is, worst first."""

    DOWN = 0
    UNKNOWN = 1
    DEGRADED = 2
    UP = 3

    def __str__(self) -> str:
        return self.name.lower()


class EndState(StrEnum):
    """Whether we see an end, and if not, why."""

    SEEN = "seen"
    CHARON_DOWN = "charon is not running"
    UNREACHABLE = "unreachable"
    NOT_MANAGED = "not managed"


@dataclass(frozen=True, slots=True)
class Declared:
    """A tunnel that the topology declares: its two gateways and the names of its children.

    ``traffic`` says what each child must carry, by gateway and child, ``ike`` which IKE proposals each
    gateway has, ``ways`` how packets enter it there, ``mtus`` (bytes) what may enter it where that hangs on
    charon's options, ``devices`` what it needs of charon's own device; what is not in them is not judged.
    ``by_psk`` says whether its ends know each other by a pre-shared key, ``by_ppk`` whether by a PPK, too.
    """

    name: str
    left: Gateway
    right: Gateway
    children: tuple[str, ...]
    traffic: Mapping[tuple[str, str], Traffic] = field(default_factory=dict)
    ike: Mapping[str, tuple[Proposal, ...]] = field(default_factory=dict)
    ways: Mapping[str, Way] = field(default_factory=dict)
    mtus: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, OwnDevice] = field(default_factory=dict)
    by_psk: bool = False
    by_ppk: bool = False


@dataclass(frozen=True, slots=True)
class EndView:
    """One end of a tunnel: ``error`` says why it is not seen, ``loaded`` if charon has the connection.

    ``guard``, ``forwarding``, ``rewritten``, ``pending``, ``restart``, ``applied`` and ``unheld`` are as in
    ``ShellView``, also where charon does not answer; ``way`` is what was seen of the way into the tunnel.
    ``not_in_kernel`` are those of its CHILD_SAs that only charon believes in, ``None`` where nobody could
    look. ``own_path`` is what was seen of charon's own data path, where charon runs and carries ESP.
    ``version`` is charon's, ``way_out`` what is missing on the gateway's way to its peers. ``older`` says why
    its SAs have an earlier configuration than was applied there, ``None`` where they are not known to.
    ``traps`` are the children for which its charon waits for a packet, ``None`` where nobody asked.
    """

    gateway: str
    site: str
    state: EndState
    sas: tuple[IkeSa, ...] = ()
    loaded: bool = False
    error: str = ""
    guard: Guard = Guard.UNKNOWN
    forwarding: bool | None = None
    rewritten: int | None = None
    way: WayView | None = None
    pending: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    restart: str = ""
    not_in_kernel: tuple[NotInKernel, ...] | None = None
    own_path: KernelView = field(default_factory=KernelView)
    applied: bool | None = None
    unheld: tuple[str, ...] | None = None
    version: Version | None = None
    way_out: WayOut = field(default_factory=WayOut)
    older: str | None = None
    traps: frozenset[str] | None = None

    def lacks(self, child: str) -> tuple[NotInKernel, ...]:
        """Return of which CHILD_SAs of a child the kernel lacks something."""
        return tuple(sa for sa in self.not_in_kernel or () if sa.child == child)


@dataclass(frozen=True, slots=True)
class TunnelHealth:
    """The verdict on a tunnel and its causes in plain words, most important first.

    ``since`` is when the oldest of its IKE_SAs was established, for a tunnel that is up (it may have been up
    longer: a rekey makes a new one). ``unsteady`` says that what was seen at the two ends does not fit
    together, as it can also happen when they were not looked at in the same moment: look again before you
    believe it.
    """

    name: str
    verdict: Verdict
    causes: tuple[str, ...]
    ends: tuple[EndView, EndView]
    children: tuple[str, ...]
    since: datetime | None = None
    unsteady: bool = False

    @property
    def far_end_managed(self) -> bool:
        return all(end.state is not EndState.NOT_MANAGED for end in self.ends)


def declare(topology: Topology, states: Iterable[GatewayState]) -> tuple[Declared, ...]:
    """Return the declared tunnels with a managed end, sorted by name; ``states`` names their children."""
    states = tuple(states)
    children = {
        connection.name: tuple(child.name for child in connection.children)
        for state in states
        for connection in state.connections
    }
    traffic: dict[str, dict[tuple[str, str], Traffic]] = {name: {} for name in children}
    ike: dict[str, dict[str, tuple[Proposal, ...]]] = {name: {} for name in children}
    ways: dict[str, dict[str, Way]] = {name: {} for name in children}
    mtus: dict[str, dict[str, int]] = {name: {} for name in children}
    devices: dict[str, dict[str, OwnDevice]] = {name: {} for name in children}
    by_psk = {
        connection.name
        for state in states
        for connection in state.connections
        if connection.remote.method is AuthMethod.PSK
    }
    for state in states:
        for name, way in _ways(state):
            ways[name][state.name] = way
        for connection in state.connections:
            if state.data_path is DataPath.LIBIPSEC:
                mtus[connection.name][state.name] = connection.inner_mtu
                devices[connection.name][state.name] = _device(connection)
            ike[connection.name][state.name] = tuple(map(parse_ike_proposal, connection.ike_proposals))
            for child in connection.children:
                traffic[connection.name][state.name, child.name] = _traffic(child)
    tunnels: Sequence[Declared] = [
        Declared(
            t.name,
            t.left.gateway,
            t.right.gateway,
            children[t.name],
            traffic[t.name],
            ike[t.name],
            ways[t.name],
            mtus[t.name],
            devices[t.name],
            t.name in by_psk,
            t.ppk is not None,
        )
        for t in topology.tunnels
        if t.name in children
    ]
    return tuple(sorted(tunnels, key=lambda tunnel: tunnel.name))


def _ways(state: GatewayState) -> Iterator[tuple[str, Way]]:
    """Yield by tunnel the way into it at one gateway."""
    interfaces = {interface.tunnel: interface for interface in state.interfaces}
    routes: dict[str, list[Route]] = {}
    for route in state.routes:
        if route.kind is RouteKind.INTO:
            routes.setdefault(route.tunnel, []).append(route)
    table = {route.prefix: route for route in state.routes if route.table == HOLDING_TABLE}
    far: dict[str, list[IPNetwork]] = {}
    near: dict[str, set[IPNetwork]] = {}
    for rule in state.firewall:
        far.setdefault(rule.tunnel, []).extend(rule.remote)
        near.setdefault(rule.tunnel, set()).update(rule.local)
    forwarding = [rule for rule in state.rules if rule.kind is RuleKind.HOLDING]
    for connection in state.connections:
        name = connection.name
        into, behind = tuple(routes.get(name, ())), tuple(far.get(name, ()))
        interface = interfaces.get(name)
        held = tuple(table[p] for p in behind if p in table) if interface is None else ()
        families = {route.prefix.version for route in held}
        # The interface's own addresses are guarded like a network, and are none.
        hosts = {IPNetwork(address.ip) for address in interface.addresses} if interface else set()
        here = near.get(name, set()) - hosts
        own = tuple(network for network in state.own if network.prefix in here)
        rules = (*own_rules(own), *(r for r in forwarding if r.family in families))
        all_own = {network.prefix for network in own} == here
        yield name, Way(connection.mode, interface, into, behind, held, rules, own, all_own)


def _device(connection: Connection) -> OwnDevice:
    far = {child.name: tuple(ts.prefix for ts in child.remote_ts) for child in connection.children}
    trapped = {child.name for child in connection.children if child.start_action is Action.TRAP}
    pairs = {
        child.name: tuple(
            (here.prefix, there.prefix)
            for here in child.local_ts
            for there in child.remote_ts
            if here.prefix.version == there.prefix.version
        )
        for child in connection.children
    }
    return OwnDevice(
        far=tuple(sorted({prefix for prefixes in far.values() for prefix in prefixes})),
        trapped=tuple((name, prefixes) for name, prefixes in sorted(far.items()) if name in trapped),
        pairs=tuple(sorted(pairs.items())),
    )


def _traffic(child: Child) -> Traffic:
    return Traffic(
        tuple(map(str, child.local_ts)),
        tuple(map(str, child.remote_ts)),
        tuple(map(parse_esp_proposal, child.esp_proposals)),
    )

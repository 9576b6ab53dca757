"""What each gateway must be: one frozen ``GatewayState`` for each managed gateway.

The values are ready for a template: no default is left open, nothing is decided later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netaddr import IPAddress, IPNetwork

from ipsecctl.crypto import NO_OPTIONS, SaOptions
from ipsecctl.desired.means import Version
from ipsecctl.desired.rules import MAIN_TABLE, OwnNetwork, Rule
from ipsecctl.topology import DataPath, Mode, SecretRef

__all__ = [
    "HOLDING_METRIC",
    "HOLDING_MTU",
    "INTO_METRIC",
    "Action",
    "AuthMethod",
    "Authentication",
    "Boot",
    "CertificateFile",
    "Child",
    "Connection",
    "Daemon",
    "Elsewhere",
    "FirewallRule",
    "GatewayState",
    "HeldPair",
    "Interface",
    "InterfaceKind",
    "PrivateKey",
    "Route",
    "RouteKind",
    "SharedKey",
    "TrafficSelector",
]


class Action(StrEnum):
    """swanctl's ``start_action``, ``close_action`` and ``dpd_action`` values."""

    NONE = "none"
    TRAP = "trap"
    START = "start"
    CLEAR = "clear"
    RESTART = "restart"


class AuthMethod(StrEnum):
    """swanctl's ``auth`` values that are used."""

    PSK = "psk"
    PUBKEY = "pubkey"


@dataclass(frozen=True, order=True, slots=True)
class TrafficSelector:
    """A traffic selector (RFC 7296 section 3.13): prefix, and protocol and ports where narrowed.

    ``str()`` is swanctl's form: ``10.1.0.0/24``, ``10.1.0.0/24[tcp]``, ``10.1.0.0/24[tcp/104-107]``;
    protocols other than tcp, udp, icmp and ipv6-icmp by number.
    """

    prefix: IPNetwork
    protocol: int | None = None
    ports: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.protocol is None:
            return str(self.prefix)
        names = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp"}
        protocol = names.get(self.protocol, str(self.protocol))
        if self.ports is None:
            return f"{self.prefix}[{protocol}]"
        first, last = self.ports
        return f"{self.prefix}[{protocol}/{first}{'' if first == last else f'-{last}'}]"


@dataclass(frozen=True, order=True, slots=True)
class Child:
    """A child configuration (``connections.<conn>.children.<child>`` of swanctl.conf); times in seconds.

    ``if_id`` is both ``if_id_in`` and ``if_id_out``, 0 for none: policies without an interface.
    """

    name: str
    local_ts: tuple[TrafficSelector, ...]
    remote_ts: tuple[TrafficSelector, ...]
    esp_proposals: tuple[str, ...]
    rekey_time_s: int
    life_time_s: int
    rand_time_s: int
    start_action: Action
    close_action: Action
    dpd_action: Action
    if_id: int = 0
    options: SaOptions = NO_OPTIONS


@dataclass(frozen=True, order=True, slots=True)
class Authentication:
    """One round of authentication (``local`` or ``remote`` section).

    ``certificate`` and ``ca`` are paths below /etc/swanctl, equal to a ``CertificateFile.target``: the end's
    own certificate (local section only), and the CA that must have signed the peer's (remote section only).
    """

    method: AuthMethod
    identity: str
    certificate: str = ""
    ca: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Connection:
    """A connection (``connections.<conn>`` of swanctl.conf); times in seconds.

    ``name`` is the tunnel's name. ``local_addrs`` and ``remote_addrs`` hold addresses, DNS names or ``%any``.
    ``initiates`` says whether this side brings the tunnel up. ``inner_mtu`` is the largest inner packet in
    bytes that both ends' WAN links and data paths carry for the worst suite of the proposals, ``mss_ipv4``
    and ``mss_ipv6`` the TCP MSS that follows, ``nat_t`` whether ESP travels in UDP 4500.

    ``mobike`` is on only where an address can change: it moves IKE to port 4500 and offers the peer every
    other address of the gateway. ``keyingtries`` 0 is "for ever". ``mode`` is never ``auto``. ``force_udp``
    wants ESP in UDP where no NAT is. ``ppk_id`` names the PPK that is mixed in (RFC 8784), "" for none.
    """

    name: str
    peer: str
    local_addrs: tuple[str, ...]
    remote_addrs: tuple[str, ...]
    local: Authentication
    remote: Authentication
    ike_proposals: tuple[str, ...]
    rekey_time_s: int
    over_time_s: int
    rand_time_s: int
    dpd_delay_s: int
    children: tuple[Child, ...]
    initiates: bool
    nat_t: bool
    inner_mtu: int
    mss_ipv4: int
    mss_ipv6: int
    mobike: bool = True
    keyingtries: int = 1
    mode: Mode = Mode.POLICY
    force_udp: bool = False
    ppk_id: str = ""
    ppk_required: bool = False


class KeyKind(StrEnum):
    """swanctl's prefixes of shared secrets that are used, and VICI's types of them."""

    IKE = "ike"
    PPK = "ppk"


@dataclass(frozen=True, order=True, slots=True)
class SharedKey:
    """A secret of both ends: ``secrets.ike-<name>`` in swanctl.conf, and its id in charon, for a PSK.

    A PPK (RFC 8784) is ``secrets.ppk-<name>``. ``owners`` are the identities that a PSK is for, or the one id
    of a PPK.
    """

    name: str
    owners: tuple[str, ...]
    secret: SecretRef
    kind: KeyKind = KeyKind.IKE

    @property
    def id(self) -> str:
        """The name of its section, and its id in charon."""
        return f"{self.kind}-{self.name}"


@dataclass(frozen=True, order=True, slots=True)
class CertificateFile:
    """A certificate to install: ``source`` (path as in the topology) to ``target`` below /etc/swanctl."""

    target: str
    source: str
    ca: bool


@dataclass(frozen=True, order=True, slots=True)
class PrivateKey:
    """A private key to be installed, owner-only, at ``target`` below /etc/swanctl."""

    target: str
    secret: SecretRef


@dataclass(frozen=True, order=True, slots=True)
class FirewallRule:
    """What the firewall must do for one tunnel, one address family and one set of flows.

    Packets between any of ``local`` and any of ``remote`` never leave or enter in clear, and TCP SYNs between
    them carry an MSS of at most ``mss`` bytes. Where rules overlap, all of them hold: the smallest MSS wins.
    ``interface`` is the only way that they may take, "" in policy mode: any way through IPsec.
    """

    tunnel: str
    family: int
    local: tuple[IPNetwork, ...]
    remote: tuple[IPNetwork, ...]
    mss: int
    interface: str = ""


@dataclass(frozen=True, order=True, slots=True)
class HeldPair:
    """Networks of one family that a tunnel at another gateway of the site joins: ``local`` are the site's."""

    tunnel: str
    family: int
    local: tuple[IPNetwork, ...]
    remote: tuple[IPNetwork, ...]


@dataclass(frozen=True, order=True, slots=True)
class Elsewhere:
    """What a gateway must not let out, because tunnels of other gateways of its site carry it.

    Packets from ``local`` to ``remote`` of one of the ``pairs`` may go into IPsec, or to a next hop in one of
    ``next_hops`` (sorted and apart), which are inside the site; nowhere else.
    """

    pairs: tuple[HeldPair, ...] = ()
    next_hops: tuple[IPNetwork, ...] = ()


class InterfaceKind(StrEnum):
    """What an interface is for, by the kernel's word for what it is."""

    XFRM = "xfrm"
    """The way into one tunnel in route mode."""
    DUMMY = "dummy"
    """Leads nowhere: so packets in policy mode find a route, and then their policy if there is one."""


HOLDING_MTU = 65_535
"""Of the interface that leads nowhere, in bytes: it must not be what limits a tunnel's packets."""


@dataclass(frozen=True, order=True, slots=True)
class Interface:
    """An interface of ours; ``mtu`` in bytes.

    ``name`` has at most 15 characters. ``addresses`` have their host bits. ``if_id`` is 0 and ``tunnel`` ""
    for one that leads nowhere.
    """

    name: str
    if_id: int
    mtu: int
    addresses: tuple[IPNetwork, ...]
    tunnel: str
    kind: InterfaceKind = InterfaceKind.XFRM


class RouteKind(StrEnum):
    """What a route is for."""

    HOLDING = "holding"
    """Leads nowhere: traffic does not follow the default route when no tunnel carries it."""
    INTO = "into"
    """Leads into a tunnel's interface."""
    PASSED_ON = "passed on"
    """Ends the lookup in ``HOLDING_TABLE``, and lets it go on behind that: what is not to be held there."""


HOLDING_METRIC = 4_278_198_272
"""The metric of routes that hold: any other route is better (that of the kernel's documentation of VRFs)."""

INTO_METRIC = 50
"""The metric of the route into the first tunnel that leads to a prefix; each further one has one more."""


@dataclass(frozen=True, order=True, slots=True)
class Route:
    """A route of the main table, or of ours, which only forwarded packets meet.

    ``interface`` is "" for one that is unreachable, or passed on. ``metric`` is 0 in our table, where there
    is one route to a prefix. ``source`` is the gateway's own address for its own packets, ``None`` for the
    kernel's choice; ``mtu`` (bytes) the largest packet that may take it, 0 for what the kernel computes.
    ``tunnel`` is "" for one that is passed on.
    """

    prefix: IPNetwork
    tunnel: str
    kind: RouteKind = RouteKind.HOLDING
    interface: str = ""
    metric: int = HOLDING_METRIC
    source: IPAddress | None = None
    mtu: int = 0
    table: int = MAIN_TABLE


@dataclass(frozen=True, order=True, slots=True)
class Daemon:
    """charon's own options (``charon { }`` of strongswan.conf), which hold for all connections.

    A dead peer is noticed ``dpd_delay`` plus the retransmissions later: ``timeout * (base**0 + ... +
    base**tries)``, 12.7 s with these values, so 27.7 s with the usual DPD delay of 15 s.
    ``retry_initiate_interval_s`` tries again when a peer's DNS name cannot be resolved. ``route_mtu`` (bytes)
    is put on the routes that charon installs, 0 for none.
    """

    retransmit_tries: int = 4
    retransmit_timeout_ms: int = 1400
    retransmit_base_percent: int = 130
    retry_initiate_interval_s: int = 10
    route_mtu: int = 0

    @property
    def gives_up_after_s(self) -> float:
        """How long charon waits for an answer in all, in seconds (strongswan.conf(5), RETRANSMISSION)."""
        base = self.retransmit_base_percent / 100
        return sum(self.retransmit_timeout_ms / 1000 * base**n for n in range(self.retransmit_tries + 1))


@dataclass(frozen=True, order=True, slots=True)
class Boot:
    """When a gateway's systemd brings firewall, settings and routes into force, by names of units.

    ``after``: our files must be readable; our settings win over the general ones; and ``flushed_by``, the
    units that empty the whole ruleset, must have done so. ``before``: no interface is configured, and no
    tunnel set up, without the firewall (network-pre.target is what every manager of interfaces waits for;
    strongSwan's daemon has had several names). ``wanted_by``: the target of every start-up, rescue included.
    """

    after: tuple[str, ...] = ("local-fs.target", "systemd-sysctl.service", "nftables.service")
    before: tuple[str, ...] = (
        "network-pre.target",
        "strongswan.service",
        "strongswan-starter.service",
        "strongswan-swanctl.service",
    )
    flushed_by: tuple[str, ...] = ("nftables.service",)
    wanted_by: tuple[str, ...] = ("sysinit.target",)


@dataclass(frozen=True, order=True, slots=True)
class GatewayState:
    """All that one gateway must be. Tuples are sorted by name.

    ``inner_mtu`` is the smallest of its tunnels' (bytes), 0 when it has none. ``data_path`` is never
    ``auto``. ``version`` is that of its charon, ``None`` where it is not known: then nothing that was asked
    for is left out. ``elsewhere`` is empty for the only gateway of a site. ``own`` are the networks of the
    site that tunnels join and to which a default route is no way, sorted.
    """

    name: str
    site: str
    data_path: DataPath
    connections: tuple[Connection, ...]
    shared_keys: tuple[SharedKey, ...]
    certificates: tuple[CertificateFile, ...]
    private_keys: tuple[PrivateKey, ...]
    firewall: tuple[FirewallRule, ...]
    routes: tuple[Route, ...]
    inner_mtu: int
    daemon: Daemon = Daemon()
    elsewhere: Elsewhere = Elsewhere()
    boot: Boot = Boot()
    interfaces: tuple[Interface, ...] = ()
    version: Version | None = None
    rules: tuple[Rule, ...] = ()
    own: tuple[OwnNetwork, ...] = ()

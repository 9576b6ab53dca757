"""What the engineer means, typed: the result of reading a topology file.

Every value is frozen, ordered and equal by value. ``where`` is the path of the value in the document (keys
and list positions); it takes part in no comparison and serves only to find the line for a finding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from netaddr import IPAddress, IPNetwork

from ipsecctl.crypto import NO_OPTIONS, Profile, SaOptions

__all__ = [
    "AddressKind",
    "ChildPer",
    "Control",
    "ControlKind",
    "Credential",
    "DataPath",
    "End",
    "Flow",
    "FlowEnd",
    "Gateway",
    "Mode",
    "Network",
    "Path",
    "Ppk",
    "SecretKind",
    "SecretRef",
    "Site",
    "Topology",
    "Tunnel",
    "VaultServer",
]

Path: TypeAlias = tuple[str | int, ...]


def _where() -> Path:
    return ()


class DataPath(StrEnum):
    """Who carries ESP on a gateway: the kernel, charon itself (kernel-libipsec), or whichever it finds."""

    KERNEL = "kernel"
    LIBIPSEC = "libipsec"
    AUTO = "auto"


class Mode(StrEnum):
    """How packets find their way into a tunnel: by IPsec policies, by routes to an interface, or as fits."""

    POLICY = "policy"
    ROUTE = "route"
    AUTO = "auto"


class AddressKind(StrEnum):
    """How a gateway's WAN address is known."""

    FIXED = "fixed"
    DNS = "dns"
    DYNAMIC = "dynamic"


class ControlKind(StrEnum):
    """How ipsecctl reaches a gateway: this host, SSH, or a container of a lab."""

    LOCAL = "local"
    SSH = "ssh"
    LAB = "lab"


class ChildPer(StrEnum):
    """How flows become CHILD_SAs: one for each flow, or for each pair of subnets (as some vendors want)."""

    FLOW = "flow"
    SUBNET_PAIR = "subnet-pair"


@dataclass(frozen=True, order=True, slots=True)
class Control:
    """How a gateway is reached; ``target``: the SSH destination or the lab's name, empty for the default."""

    kind: ControlKind
    target: str = ""


class SecretKind(StrEnum):
    """Where a secret lies."""

    FILE = "file"
    ENV = "env"
    AGE = "age"
    VAULT = "vault"
    COMMAND = "command"


@dataclass(frozen=True, order=True, slots=True)
class VaultServer:
    """The Vault of ``vault:`` references; what is empty is taken from the environment, as ``vault`` does.

    ``ca`` is a path relative to the topology file's directory, ``timeout_s`` the seconds that one secret may
    take.
    """

    address: str = ""
    mount: str = "secret"
    namespace: str = ""
    ca: str = ""
    token: SecretRef | None = None
    timeout_s: int = 10


@dataclass(frozen=True, order=True, slots=True)
class SecretRef:
    """A reference to a secret, never the secret: ``file:PATH``, ``env:NAME``, ``age:PATH``,
    ``vault:PATH#FIELD`` or ``command:`` with words quoted as for a shell, which none reads.

    Paths are relative to the directory of the topology file. Placeholders are already filled in. ``server``
    is the one Vault of the topology, for ``vault:`` only.
    """

    kind: SecretKind
    value: str
    where: Path = field(default_factory=_where, compare=False, repr=False)
    server: VaultServer | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def is_remote(self) -> bool:
        """Whether something is asked, or run, for it: only where the secret itself is needed."""
        return self.kind in (SecretKind.VAULT, SecretKind.COMMAND)


@dataclass(frozen=True, order=True, slots=True)
class Credential:
    """How one end proves who it is: a PSK, or certificate, private key and the CA that the other end trusts.

    Exactly ``psk``, or all of ``certificate``, ``key`` and ``ca`` are set. ``certificate`` and ``ca`` are
    paths of PEM or DER files relative to the topology file's directory. For an end that is not managed only
    ``ca`` is used, and ``certificate`` and ``key`` may be empty. ``chain`` is the path of the CA between, if
    the certificate was not issued by ``ca`` itself.
    """

    psk: SecretRef | None = None
    certificate: str = ""
    key: SecretRef | None = None
    ca: str = ""
    chain: str = ""
    where: Path = field(default_factory=_where, compare=False, repr=False)

    @property
    def is_psk(self) -> bool:
        return self.psk is not None


@dataclass(frozen=True, order=True, slots=True)
class Network:
    """A named network of a site: one or more prefixes, IPv4 and IPv6 mixed, in the order of the file."""

    site: str
    name: str
    prefixes: tuple[IPNetwork, ...]
    where: Path = field(default_factory=_where, compare=False, repr=False)


@dataclass(frozen=True, order=True, slots=True)
class Gateway:
    """An IPsec gateway of a site.

    ``address`` is the WAN address on its own interface (``IPAddress``), a DNS name (``str``), or ``None``
    when dynamic. ``public_address`` is set when a NAT device in front of it forwards UDP 500 and 4500 to it.
    ``mtu`` is the WAN link's, in bytes of IP packet. ``inside`` are its own addresses in its site's networks,
    at most one of each family: the source of its own packets into tunnels. ``one_armed``: its default route
    is its way to them.
    """

    name: str
    site: str
    address: IPAddress | str | None
    behind_nat: bool
    public_address: IPAddress | str | None
    mtu: int
    control: Control
    data_path: DataPath
    identity: str
    managed: bool
    inside: tuple[IPAddress, ...] = ()
    one_armed: bool = False
    where: Path = field(default_factory=_where, compare=False, repr=False)

    @property
    def address_kind(self) -> AddressKind:
        if self.address is None:
            return AddressKind.DYNAMIC
        return AddressKind.DNS if isinstance(self.address, str) else AddressKind.FIXED

    @property
    def reachable_at(self) -> IPAddress | str | None:
        """The address at which peers reach this gateway, ``None`` when only it can call them."""
        if self.public_address is not None:
            return self.public_address
        return None if self.behind_nat else self.address


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """A place with networks and gateways; ``managed`` is false for somebody else's."""

    name: str
    networks: tuple[Network, ...]
    gateways: tuple[Gateway, ...]
    managed: bool
    where: Path = field(default_factory=_where, compare=False, repr=False)


@dataclass(frozen=True, order=True, slots=True)
class FlowEnd:
    """One prefix of a named network: what a flow allows at one end."""

    network: str
    prefix: IPNetwork


@dataclass(frozen=True, order=True, slots=True)
class Flow:
    """What may pass a tunnel: from the prefixes at one end to those at the other, answers included.

    ``left`` belongs to ``Tunnel.left``, ``right`` to ``Tunnel.right``. ``protocol`` is an IANA protocol
    number or ``None`` for any. ``left_ports`` and ``right_ports`` are inclusive ranges (first, last) or
    ``None`` for any; the service's port stands at the end that offers it. ``name`` is unique within its
    tunnel.
    """

    name: str
    left: tuple[FlowEnd, ...]
    right: tuple[FlowEnd, ...]
    protocol: int | None = None
    left_ports: tuple[int, int] | None = None
    right_ports: tuple[int, int] | None = None
    where: Path = field(default_factory=_where, compare=False, repr=False)


@dataclass(frozen=True, order=True, slots=True)
class End:
    """One end of a tunnel with what holds there after all defaults.

    ``addresses`` are those of the tunnel's interface, host bits and all. ``routes`` are the prefixes that are
    led into the tunnel here, ``None`` for the far end's networks of the flows.
    """

    gateway: Gateway
    profile: Profile
    credential: Credential
    mode: Mode = Mode.POLICY
    addresses: tuple[IPNetwork, ...] = ()
    routes: tuple[IPNetwork, ...] | None = None
    options: SaOptions = NO_OPTIONS

    @property
    def site(self) -> str:
        return self.gateway.site


@dataclass(frozen=True, order=True, slots=True)
class Ppk:
    """A Post-quantum Preshared Key (RFC 8784) that both ends mix into their keys, under an id in clear.

    ``required``: the tunnel must not come up without it.
    """

    secret: SecretRef
    id: str
    required: bool = True


@dataclass(frozen=True, order=True, slots=True)
class Tunnel:
    """Two ends and what may pass between them: the engineer's word for the pair.

    ``name`` is unique in the topology, ``group`` is the name under which it was declared. ``initiator`` is
    ``left`` or ``right``: the end that calls (the one that cannot be called, or the left one: spoke before
    hub), ``initiator_given`` whether the file says so. ``if_id`` joins policies and SAs with the tunnel's
    interface (32 bits, never 0); it is a matter of each end alone, and both ends have the same.
    ``any_selectors`` offers 0.0.0.0/0 and ::/0 instead of the networks.
    """

    name: str
    group: str
    left: End
    right: End
    flows: tuple[Flow, ...]
    child_per: ChildPer
    initiator: str
    if_id: int = 0
    any_selectors: bool = False
    initiator_given: bool = False
    where: Path = field(default_factory=_where, compare=False, repr=False)
    ppk: Ppk | None = None

    @property
    def behind_nat(self) -> bool:
        """Whether a NAT is in the way, so that ESP must travel in UDP port 4500 (RFC 3948)."""
        return self.left.gateway.behind_nat or self.right.gateway.behind_nat

    @property
    def in_udp(self) -> bool:
        """Whether ESP travels in UDP port 4500: a NAT is in the way, or it is wanted all the same."""
        return self.behind_nat or bool(self.left.options.force_udp or self.right.options.force_udp)


@dataclass(frozen=True, order=True, slots=True)
class Topology:
    """A whole topology: sites by name, tunnels (pairs, already expanded) by name; both sorted."""

    name: str
    file: str
    sites: tuple[Site, ...]
    tunnels: tuple[Tunnel, ...]

    def gateways(self) -> tuple[Gateway, ...]:
        """Every gateway, sorted by name."""
        return tuple(sorted((g for s in self.sites for g in s.gateways), key=lambda g: g.name))

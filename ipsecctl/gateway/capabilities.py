"""What a gateway is and can do: asked once, in one round trip to its shell beside three questions to charon.

All types are frozen, and their tuples are sorted. What could not be found out is ``Has.UNKNOWN`` or ``None``
together with the reason: nothing here is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from netaddr import IPNetwork

from ipsecctl.topology import DataPath

__all__ = [
    "Answer",
    "Capabilities",
    "Charon",
    "Clock",
    "DefaultRoute",
    "Firewall",
    "Frr",
    "Has",
    "Interface",
    "IpRule",
    "Kernel",
    "Listener",
    "NatRule",
    "RouteTable",
]

LIBIPSEC_PLUGIN = "kernel-libipsec"
_KEY_EXCHANGE_SECTIONS = ("ke", "dh")  # "dh" up to strongSwan 5.9


class Has(StrEnum):
    """Whether something is there."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not known"


@dataclass(frozen=True, order=True, slots=True)
class Answer:
    """Whether a gateway has something, and what that rests on.

    ``why`` is in the gateway's own words where it said something, "" when there is nothing to add.
    """

    has: Has = Has.UNKNOWN
    why: str = ""

    @property
    def yes(self) -> bool:
        return self.has is Has.YES

    @property
    def no(self) -> bool:
        """Whether it is certain that it is not there."""
        return self.has is Has.NO

    def __str__(self) -> str:
        return f"{self.has}: {self.why}" if self.why else str(self.has)


@lru_cache(maxsize=64)  # asked for with each of thousands of connections
def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


@dataclass(frozen=True, order=True, slots=True)
class Charon:
    """What charon says of itself.

    ``plugins`` are in the order in which they were loaded, ``algorithms`` pairs of the kind and the names, as
    ``get-algorithms`` has them (``("ke", ("CURVE_25519", ...))``).
    """

    version: str
    plugins: tuple[str, ...] = ()
    algorithms: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def version_numbers(self) -> tuple[int, ...]:
        """The version for comparing: (6, 0, 1); what may follow the numbers (``rc1``) does not count."""
        return _numbers(self.version)

    def named(self, *kinds: str) -> frozenset[str]:
        """Return the algorithms of these kinds."""
        return frozenset(name for kind, names in self.algorithms if kind in kinds for name in names)

    @property
    def key_exchanges(self) -> frozenset[str]:
        return self.named(*_KEY_EXCHANGE_SECTIONS)

    @property
    def ml_kem(self) -> tuple[str, ...]:
        """The ML-KEM parameter sets that it can really do; 6.0.1 reads their keywords and may have none."""
        return tuple(sorted(name for name in self.key_exchanges if name.startswith("ML_KEM_")))


@dataclass(frozen=True, order=True, slots=True)
class Kernel:
    """What the kernel can do, tried in a network namespace of its own.

    ``suites`` are pairs of an ESP suite in swanctl's words and whether an SA with it can be added.
    ``if_ids`` are those that IPsec policies use now. ``dummy`` is whether interfaces that lead nowhere can be
    made (policy mode holds packets with one), ``offload`` is whether some interface takes ESP over.
    """

    release: str = ""
    esp: Answer = Answer()
    esp_ipv6: Answer = Answer()
    suites: tuple[tuple[str, Answer], ...] = ()
    xfrm_interfaces: Answer = Answer()
    dummy: Answer = Answer()
    iptfs: Answer = Answer()
    per_cpu_sas: Answer = Answer()
    udp_encapsulation: Answer = Answer()
    esn: Answer = Answer()
    offload: Answer = Answer()
    if_ids: tuple[int, ...] = ()

    def suite(self, name: str) -> Answer:
        """Return whether an ESP suite can be used."""
        return dict(self.suites).get(name, Answer(Has.UNKNOWN, "this suite was not tried"))


@dataclass(frozen=True, order=True, slots=True)
class NatRule:
    """A rule of somebody else's that rewrites addresses: table and chain, and the rule as it is listed."""

    where: str
    rule: str

    @property
    def only_loopback(self) -> bool:
        """Whether it speaks of the host's own packets to itself, as Docker's name server has such rules."""
        return bool(re.search(r"(saddr|daddr|-s|-d) 127\.", self.rule))


@dataclass(frozen=True, order=True, slots=True)
class Firewall:
    """What filters and rewrites packets.

    ``sets`` says whether nftables takes sets of address pairs and MSS clamping, ``xfrm`` whether it can tell
    packets in IPsec from others; both are what our table is made of. ``tables`` are all that are loaded, ours
    included. ``source_nat`` are rules on the way out, ``ike_redirected`` those that send UDP 500 or 4500 on.
    ``legacy_tables`` are those of iptables-legacy, ``legacy_rules`` their rules, ``None`` where these could
    not be read.
    """

    nftables: str = ""
    nftables_why: str = ""
    sets: Answer = Answer()
    xfrm: Answer = Answer()
    tables: tuple[str, ...] = ()
    source_nat: tuple[NatRule, ...] = ()
    ike_redirected: tuple[NatRule, ...] = ()
    legacy_tables: tuple[str, ...] = ()
    legacy_rules: tuple[str, ...] | None = ()


@dataclass(frozen=True, order=True, slots=True)
class Interface:
    """A network interface. ``mtu`` in bytes; ``kind`` as ``ip -d link`` has it ("" for hardware).

    ``if_id`` is that of an xfrm interface, else ``None``. ``owner`` says who made an xfrm interface or
    ``ipsec0``, "" for others and where that is not known. ``offload`` is ESP in hardware.
    """

    name: str
    mtu: int
    addresses: tuple[IPNetwork, ...] = ()
    kind: str = ""
    if_id: int | None = None
    owner: str = ""
    offload: Answer = Answer()


@dataclass(frozen=True, order=True, slots=True)
class DefaultRoute:
    """A default route: address family (4 or 6) and the route as ``ip route`` shows it."""

    family: int
    route: str


@dataclass(frozen=True, order=True, slots=True)
class IpRule:
    """A routing rule: address family, priority, the table that it leads to ("" for none), what it takes."""

    family: int
    priority: int
    table: str
    selector: str


@dataclass(frozen=True, order=True, slots=True)
class RouteTable:
    """A routing table in use: how many routes it has, and how many of these are marked as ours."""

    family: int
    name: str
    routes: int
    ours: int


@dataclass(frozen=True, order=True, slots=True)
class Frr:
    """FRRouting: ``installed`` when vtysh is there, ``running`` when zebra answers it."""

    installed: Answer = Answer()
    running: Answer = Answer()
    version: str = ""


@dataclass(frozen=True, order=True, slots=True)
class Clock:
    """The gateway's clock against ours: it is ahead by at least ``low_s`` and at most ``high_s`` seconds.

    The distance between the bounds is what the way there and back took. ``None``: the gateway named no time.
    """

    low_s: float | None = None
    high_s: float | None = None
    synchronised: Answer = Answer()


@dataclass(frozen=True, order=True, slots=True)
class Listener:
    """A UDP socket on port 500 or 4500: address, and the name of its process ("" where none is told)."""

    port: int
    address: str
    process: str


@dataclass(frozen=True, order=True, slots=True)
class Capabilities:
    """What a gateway is and can do.

    ``charon`` is ``None`` when it could not be asked; ``charon_why`` then has the reason. ``ipv6_off`` names
    the interfaces that drop IPv6 (``disable_ipv6``; ``default`` stands for those to come). ``unknown`` are
    pairs of a list or text that could not be read and the reason; it is empty then.
    """

    gateway: str
    charon: Charon | None = None
    charon_why: str = ""
    kernel: Kernel = field(default_factory=Kernel)
    firewall: Firewall = field(default_factory=Firewall)
    interfaces: tuple[Interface, ...] = ()
    default_routes: tuple[DefaultRoute, ...] = ()
    rules: tuple[IpRule, ...] = ()
    tables: tuple[RouteTable, ...] = ()
    frr: Frr = field(default_factory=Frr)
    clock: Clock = field(default_factory=Clock)
    vici_sockets: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    systemd: Answer = Answer()
    networkd: Answer = Answer()
    network_manager: Answer = Answer()
    ipv6_off: tuple[str, ...] = ()
    unknown: tuple[tuple[str, str], ...] = ()

    @property
    def data_path(self) -> DataPath | None:
        """Who carries ESP here: charon where kernel-libipsec is loaded, else the kernel; ``None`` for nobody.

        ``None`` also where it is not known; ``data_path_said`` tells one from the other.
        """
        if self.charon is None:
            return None
        if LIBIPSEC_PLUGIN in self.charon.plugins:
            return DataPath.LIBIPSEC
        return DataPath.KERNEL if self.kernel.esp.yes else None

    @property
    def data_path_said(self) -> str:
        """The data path in words; without one it begins with "none" or "not known"."""
        if self.data_path is DataPath.LIBIPSEC:
            return f"libipsec: charon carries ESP itself ({LIBIPSEC_PLUGIN} is loaded)"
        if self.data_path is DataPath.KERNEL:
            return "kernel: an SA can be added"
        if self.charon is None:
            kernel = f"the kernel's ESP: {self.kernel.esp}"
            return f"not known: charon could not be asked ({self.charon_why}); {kernel}"
        if self.kernel.esp.no:
            kernel = f"the kernel has no ESP ({self.kernel.esp.why})"
            return f"none: {kernel} and charon has no {LIBIPSEC_PLUGIN} loaded"
        return f"not known: whether the kernel has ESP could not be tried ({self.kernel.esp.why})"

    @property
    def xfrm_links(self) -> tuple[Interface, ...]:
        """The xfrm interfaces that are there, whoever made them."""
        return tuple(interface for interface in self.interfaces if interface.kind == "xfrm")

    def interface(self, name: str) -> Interface | None:
        return next((interface for interface in self.interfaces if interface.name == name), None)

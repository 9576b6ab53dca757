"""What a lab is made of: nodes, the links between them, and the address of each interface. No Docker here.

::

    hosts -- lan-NETWORK [gateway] wan ----------------------- to-GATEWAY [internet]
    hosts -- lan-NETWORK [gateway] wan -- lan [NAT box] wan -- to-BOX     [internet]

Every gateway or NAT box has a WAN link of its own to the node ``internet``, which is its next hop. Gateways
have the first addresses of their networks; the host that every network has without being asked for has the
tenth (``::10``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum

from netaddr import IPAddress, IPNetwork

from ipsecctl.errors import LabError
from ipsecctl.gateway.names import container_name
from ipsecctl.topology import DataPath, Topology

__all__ = [
    "INTERNET",
    "Init",
    "Interface",
    "Lab",
    "Link",
    "LinkKind",
    "NatBox",
    "Node",
    "NodeRoute",
    "Release",
    "Role",
    "default_host",
    "interface_name",
]

INTERNET = "internet"
_LONGEST_NAME = 15  # IFNAMSIZ less the final zero


class Role(StrEnum):
    """What a node is in its lab; also the argument of the image's init."""

    GATEWAY = "gateway"
    HOST = "host"
    NAT = "nat"
    INTERNET = "internet"


class Release(StrEnum):
    """A release of Debian, with the charon that it has: 5.9.8, 6.0.1, 6.1.0."""

    BOOKWORM = "bookworm"
    TRIXIE = "trixie"
    FORKY = "forky"


class Init(StrEnum):
    """What starts a gateway: the image's own small first process, or systemd as on a server."""

    SMALL = "small"
    SYSTEMD = "systemd"


class LinkKind(StrEnum):
    """What a link is: to the internet; between a NAT box and its gateways; a network of a site."""

    WAN = "wan"
    INSIDE = "inside"
    LAN = "lan"


@dataclass(frozen=True, order=True, slots=True)
class Link:
    """A layer 2 segment: ``wan.NODE``, ``inside.BOX`` or ``lan.SITE.NETWORK``; ``mtu`` in bytes."""

    name: str
    kind: LinkKind
    mtu: int


@dataclass(frozen=True, order=True, slots=True)
class Interface:
    """An interface of a node: its name inside it, the link it is on, its addresses with prefix lengths."""

    name: str
    link: str
    addresses: tuple[IPNetwork, ...]
    mtu: int


@dataclass(frozen=True, order=True, slots=True)
class NodeRoute:
    """A route of a node; ``via`` is ``None`` for what is on the link itself."""

    prefix: IPNetwork
    via: IPAddress | None
    interface: str


@dataclass(frozen=True, order=True, slots=True)
class NatBox:
    """The network behind a NAT box, and to whom it passes on UDP 500 and 4500, if at all."""

    inside: IPNetwork
    forwards_to: IPAddress | None


@dataclass(frozen=True, order=True, slots=True)
class Node:
    """A container of the lab.

    ``site`` is empty for NAT boxes and the internet, ``network`` for all but hosts. ``managed`` is false for
    a gateway that the lab itself configures. ``files`` are pairs: path in the node, path of the lab's file.
    ``release`` says which image the node is made of, ``init`` what starts it.
    """

    name: str
    role: Role
    interfaces: tuple[Interface, ...]
    routes: tuple[NodeRoute, ...] = ()
    site: str = ""
    network: str = ""
    data_path: DataPath = DataPath.AUTO
    managed: bool = True
    nat: NatBox | None = None
    files: tuple[tuple[str, str], ...] = ()
    release: Release = Release.FORKY
    init: Init = Init.SMALL

    def interface(self, name: str) -> Interface:
        """Return the interface called ``name``; raises ``KeyError``."""
        return {interface.name: interface for interface in self.interfaces}[name]

    def address(self, family: int = 4, interface: str | None = None) -> IPAddress | None:
        """Return the first address of ``family`` (4 or 6), on one interface or any, if there is one."""
        wanted = self.interfaces if interface is None else (self.interface(interface),)
        return next((a.ip for i in wanted for a in i.addresses if a.version == family), None)


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab, wired and ready to be made: nodes in the order internet, NAT boxes, gateways, hosts; links by
    name.

    ``name`` stands in the names of containers; two labs of different names never clash. ``file`` is the lab
    file, in whose folder the files of the lab lie. ``names`` holds the DNS names of gateways with their
    addresses.
    """

    name: str
    description: str
    file: str
    topology: Topology
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    names: tuple[tuple[str, IPAddress], ...] = ()

    def called(self, name: str) -> Lab:
        """Return the same lab under another name, so that it can run beside this one."""
        return replace(self, name=name)

    def node(self, name: str) -> Node:
        """Return the node called ``name``; raises ``LabError`` that names the nearest."""
        names = {node.name: node for node in self.nodes}
        if name in names:
            return names[name]
        near = get_close_matches(name, names, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Its nodes: {', '.join(names)}."
        raise LabError(f"lab {self.name} has no node '{name}'", hint)

    def container(self, node: str) -> str:
        """Return the name of a node's container."""
        return container_name(self.name, node)

    def with_role(self, role: Role) -> tuple[Node, ...]:
        """Return the nodes of a role, sorted by name."""
        return tuple(node for node in self.nodes if node.role is role)

    def hosts(self, site: str, network: str | None = None) -> tuple[Node, ...]:
        """Return the hosts of a site or one of its networks; of a network, the one it always has first."""
        found = (n for n in self.with_role(Role.HOST) if n.site == site and network in (None, n.network))
        return tuple(
            sorted(found, key=lambda n: (n.network, n.name != default_host(site, n.network), n.name))
        )

    @property
    def releases(self) -> tuple[Release, ...]:
        """Whose images the lab needs: forky's, for it has most nodes, then others that gateways have."""
        others = {node.release for node in self.nodes} - {Release.FORKY}
        return (Release.FORKY, *sorted(others))

    def wan_node(self, gateway: str) -> Node:
        """Return the node that faces the internet for a gateway: its NAT box, or the gateway itself."""
        node = self.node(gateway)
        link = node.interface("wan").link
        return next((b for b in self.with_role(Role.NAT) if b.interface("lan").link == link), node)

    def outer_address(self, gateway: str) -> IPAddress:
        """Return the address that a gateway's packets have on the internet."""
        address: IPAddress = self.wan_node(gateway).interface("wan").addresses[0].ip
        return address

    def internet_interface(self, gateway: str) -> str:
        """Return the interface of the node ``internet`` at which a gateway's packets pass."""
        link = self.wan_node(gateway).interface("wan").link
        return next(i.name for i in self.node(INTERNET).interfaces if i.link == link)


def default_host(site: str, network: str) -> str:
    """Return the name of the host that a network has without being asked for."""
    return f"{site}-{network}"


def interface_name(prefix: str, name: str) -> str:
    """Return ``PREFIX-NAME``, cut where Linux wants it shorter, with a hash that keeps it apart."""
    full = f"{prefix}-{name}"
    if len(full) <= _LONGEST_NAME:
        return full
    digest = hashlib.sha256(name.encode()).hexdigest()[:4]
    return f"{full[: _LONGEST_NAME - 5]}-{digest}"

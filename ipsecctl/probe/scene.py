"""Where a probe stands: hosts that send and receive, and the places where it listens.

A scene says nothing about tunnels; whoever knows the nodes (a lab) makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netaddr import IPAddress, IPNetwork

__all__ = ["Host", "Scene", "Tap", "WanLink"]


@dataclass(frozen=True, order=True, slots=True)
class Tap:
    """A place to listen: an interface in a container; with ``leaving`` only to what it sends."""

    node: str
    container: str
    interface: str
    leaving: bool = False

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True, order=True, slots=True)
class Host:
    """A host inside a site, as a container, with the addresses on its ``interface``."""

    node: str
    container: str
    addresses: tuple[IPAddress, ...]
    interface: str = "lan"

    @property
    def tap(self) -> Tap:
        return Tap(self.node, self.container, self.interface)

    def address_in(self, prefix: IPNetwork) -> IPAddress | None:
        """Return the host's first address in ``prefix``, ``None`` when it has none."""
        return next((address for address in self.addresses if address in prefix), None)


@dataclass(frozen=True, order=True, slots=True)
class WanLink:
    """A gateway's way to the internet: ``near`` is its own interface, ``far`` the internet's, behind any NAT
    box.

    At ``near`` only what leaves is heard: a kernel that carries ESP shows what it has decrypted as if it had
    come in there. What really comes in is heard at ``far``.
    """

    gateway: str
    near: Tap
    far: Tap

    @classmethod
    def between(cls, gateway: tuple[str, str, str], internet: tuple[str, str, str]) -> WanLink:
        """Make the link of two interfaces, each (node, container, interface)."""
        return cls(gateway[0], Tap(*gateway, leaving=True), Tap(*internet))

    @property
    def taps(self) -> tuple[Tap, Tap]:
        return self.near, self.far


@dataclass(frozen=True, slots=True)
class Scene:
    """Every host, and the WAN link of every gateway by its name."""

    hosts: tuple[Host, ...]
    links: Mapping[str, WanLink] = field(default_factory=dict)

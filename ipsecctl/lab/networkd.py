"""The network of a gateway that configures it itself: files for systemd-networkd, one an interface. Pure.

They are the lab's, as a server's own are its administrator's; `ipsecctl apply` neither reads nor writes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ipsecctl.lab.wiring import Interface, Node, NodeRoute

__all__ = ["network_files"]

_FOLDER = "/etc/systemd/network"


def network_files(node: Node) -> dict[str, str]:
    """Return the files of a node by their paths in it: one for each of its interfaces."""
    return {
        f"{_FOLDER}/20-{interface.name}.network": "".join(f"{line}\n" for line in _lines(node, interface))
        for interface in node.interfaces
    }


def _lines(node: Node, interface: Interface) -> Iterator[str]:
    yield "# An interface of a node of a lab, written by ipsecctl lab."
    yield from ("[Match]", f"Name={interface.name}", "", "[Link]", f"MTUBytes={interface.mtu}", "")
    yield from ("[Network]", "LinkLocalAddressing=no", "IPv6AcceptRA=no", "LLDP=no", "EmitLLDP=no")
    for address in interface.addresses:
        # Nobody else has it; without this it could not be used for a second.
        detection = ("DuplicateAddressDetection=none",) if address.version == 6 else ()
        yield from ("", "[Address]", f"Address={address}", *detection)
    for route in node.routes:
        if route.interface == interface.name:
            yield from ("", "[Route]", *_route(route))


def _route(route: NodeRoute) -> Iterator[str]:
    yield f"Destination={route.prefix}"
    if route.via is None:
        yield "Scope=link"
    else:
        yield from (f"Gateway={route.via}", "GatewayOnLink=yes")

"""A lab as a drawing: plain ASCII for a terminal, Graphviz or Mermaid for a document. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from ipsecctl.lab.wiring import INTERNET, Interface, Lab, LinkKind, Node, Release, Role

__all__ = ["GraphFormat", "draw"]


class GraphFormat(StrEnum):
    """How a lab is drawn."""

    ASCII = "ascii"
    DOT = "dot"
    MERMAID = "mermaid"


def draw(lab: Lab, form: GraphFormat = GraphFormat.ASCII) -> str:
    """Return a lab as text, the same for the same lab."""
    drawers = {GraphFormat.ASCII: _ascii, GraphFormat.DOT: _dot, GraphFormat.MERMAID: _mermaid}
    return "\n".join(drawers[form](lab)) + "\n"


# ------------------------------------------------------------------------------------------------------ ASCII


@dataclass(slots=True)
class _Branch:
    text: str
    twigs: list[_Branch] = field(default_factory=list)


def _ascii(lab: Lab) -> Iterator[str]:
    """Yield a tree that grows from the internet to the hosts, then the tunnels."""
    yield f"lab {lab.name}: topology {lab.topology.name}"
    yield ""
    yield from _grow(_Branch(f"[{INTERNET}]", [_facing(lab, i) for i in lab.node(INTERNET).interfaces]))
    if lab.topology.tunnels:
        yield ""
        yield "tunnels"
        width = max(len(tunnel.name) for tunnel in lab.topology.tunnels)
        for tunnel in lab.topology.tunnels:
            yield f"  {tunnel.name:<{width}}  {tunnel.left.gateway.name} ==== {tunnel.right.gateway.name}"


def _facing(lab: Lab, outside: Interface) -> _Branch:
    """Draw what an interface of the internet leads to: a gateway, or a NAT box with its gateways."""
    node, wan = _other_end(lab, outside.link)
    branch = _Branch(f"{_wire(wan)} -- [{node.name}] {_kind(node)}")
    if node.role is Role.NAT:
        inside = node.interface("lan").link
        for gateway, end in _ends(lab, inside, Role.GATEWAY):
            twig = _Branch(f"{_wire(end)} -- [{gateway.name}] {_kind(gateway)}", _behind(lab, gateway))
            branch.twigs.append(twig)
    else:
        branch.twigs = _behind(lab, node)
    return branch


def _behind(lab: Lab, gateway: Node) -> list[_Branch]:
    """Draw the networks of a gateway; with their hosts at the first gateway of the site."""
    first = next(n.name for n in lab.with_role(Role.GATEWAY) if n.site == gateway.site)
    branches = []
    for interface in gateway.interfaces:
        if not interface.link.startswith(f"{LinkKind.LAN}."):
            continue
        branch = _Branch(f"{interface.name} {_addresses(interface)}")
        if gateway.name == first:
            hosts = _ends(lab, interface.link, Role.HOST)
            branch.twigs = [_Branch(f"{node.name} {_plain(end)}") for node, end in hosts]
        branches.append(branch)
    return branches


def _grow(branch: _Branch, indent: str = "") -> Iterator[str]:
    if not indent:
        yield branch.text
    for position, twig in enumerate(branch.twigs):
        last = position == len(branch.twigs) - 1
        yield f"{indent}  {'`' if last else '|'}-- {twig.text}"
        yield from (
            _grow(_Branch("", twig.twigs), f"{indent}  {' ' if last else '|'}   ") if twig.twigs else ()
        )


def _wire(interface: Interface) -> str:
    return f"{_addresses(interface)} mtu {interface.mtu}"


def _addresses(interface: Interface) -> str:
    return ", ".join(map(str, interface.addresses))


def _plain(interface: Interface) -> str:
    return ", ".join(str(address.ip) for address in interface.addresses)


def _kind(node: Node) -> str:
    if node.role is Role.NAT:
        forwards = node.nat is not None and node.nat.forwards_to is not None
        return f"NAT box{', passes on UDP 500 and 4500' if forwards else ''}"
    older = f", Debian {node.release}" if node.release is not Release.FORKY else ""
    return f"gateway of {node.site}{'' if node.managed else ', not managed'}{older}"


def _ends(lab: Lab, link: str, role: Role) -> list[tuple[Node, Interface]]:
    return [(node, end) for node in lab.with_role(role) for end in node.interfaces if end.link == link]


def _other_end(lab: Lab, link: str) -> tuple[Node, Interface]:
    return next((n, end) for role in (Role.NAT, Role.GATEWAY) for n, end in _ends(lab, link, role))


# ---------------------------------------------------------------------------------------------- for documents

_DOT_SHAPES = {Role.INTERNET: "ellipse", Role.NAT: "diamond", Role.GATEWAY: "box", Role.HOST: "plaintext"}
_MERMAID_SHAPES = {
    Role.INTERNET: ("((", "))"),
    Role.NAT: ("{{", "}}"),
    Role.GATEWAY: ("[", "]"),
    Role.HOST: ("(", ")"),
}


def _edges(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """Yield (node, node, label) for every wire, from the internet outwards."""
    for outside in lab.node(INTERNET).interfaces:
        node, wan = _other_end(lab, outside.link)
        yield INTERNET, node.name, _addresses(wan)
    for box in lab.with_role(Role.NAT):
        for gateway, end in _ends(lab, box.interface("lan").link, Role.GATEWAY):
            yield box.name, gateway.name, _addresses(end)
    for gateway in lab.with_role(Role.GATEWAY):
        for interface in gateway.interfaces:
            if interface.link.startswith(f"{LinkKind.LAN}."):
                for host, end in _ends(lab, interface.link, Role.HOST):
                    yield gateway.name, host.name, _addresses(end)


def _dot(lab: Lab) -> Iterator[str]:
    yield f'graph "{lab.name}" {{'
    for node in lab.nodes:
        yield f'  "{node.name}" [shape={_DOT_SHAPES[node.role]}];'
    for left, right, label in _edges(lab):
        yield f'  "{left}" -- "{right}" [label="{label}"];'
    for tunnel in lab.topology.tunnels:
        ends = f'"{tunnel.left.gateway.name}" -- "{tunnel.right.gateway.name}"'
        yield f'  {ends} [label="{tunnel.name}", style=dashed, constraint=false];'
    yield "}"


def _mermaid(lab: Lab) -> Iterator[str]:
    # Names may hold what Mermaid takes for syntax: nodes are numbered, names are only shown.
    keys = {node.name: f"n{number}" for number, node in enumerate(lab.nodes)}
    yield "graph LR"
    for node in lab.nodes:
        opening, closing = _MERMAID_SHAPES[node.role]
        yield f'  {keys[node.name]}{opening}"{node.name}"{closing}'
    for left, right, label in _edges(lab):
        yield f'  {keys[left]} ---|"{label}"| {keys[right]}'
    for tunnel in lab.topology.tunnels:
        yield f'  {keys[tunnel.left.gateway.name]} -. "{tunnel.name}" .- {keys[tunnel.right.gateway.name]}'

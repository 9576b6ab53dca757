"""Who faces the internet in a lab, with which address: gateways, and NAT boxes before some. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netaddr import IPAddress, IPNetwork

from ipsecctl.lab.spec import BoxSpec, Finding, GatewaySpec, LabSpec
from ipsecctl.topology import Gateway, Path, Topology

__all__ = ["Box", "around", "boxes_wanted", "choose_addresses", "place_boxes"]

_LAB_WAN = IPNetwork("192.0.2.0/24")  # TEST-NET-1 (RFC 5737), for nodes that nobody gave an address
_INSIDES = tuple(IPNetwork("192.168.0.0/16").subnet(24))[100:]
_PREFIX_LENGTH = {4: 24, 6: 64}


@dataclass(frozen=True, slots=True)
class Box:
    """A NAT box: the gateways behind it, the network between them, its own address if one is known."""

    name: str
    gateways: tuple[Gateway, ...]
    inside: IPNetwork
    forwards: bool
    address: IPAddress | None


def around(address: IPAddress) -> IPNetwork:
    """Return the prefix that a WAN address is taken to be in: its /24, or its /64."""
    network: IPNetwork = IPNetwork(f"{address}/{_PREFIX_LENGTH[address.version]}").cidr
    return network


# ------------------------------------------------------------------------------------------------------ boxes


def place_boxes(topology: Topology, spec: LabSpec, findings: list[Finding]) -> tuple[Box, ...]:
    """Put every gateway that is behind a NAT behind a box, the lab file's or ``GATEWAY-nat``; by name.

    A box with none that there is, and that is behind a NAT, is left out.
    """
    gateways = {g.name: g for g in topology.gateways()}
    findings.extend(_wrong_placements(gateways, spec))
    boxes: list[Box] = []
    for name, box in sorted(boxes_wanted(topology, spec).items()):
        behind = tuple(gateways[g] for g in box.gateways if g in gateways and gateways[g].behind_nat)
        if not behind:
            continue
        taken = [p for s in topology.sites for n in s.networks for p in n.prefixes] + [
            b.inside for b in boxes
        ]
        boxes.append(_box(name, behind, box, taken, findings))
    return tuple(boxes)


def boxes_wanted(topology: Topology, spec: LabSpec) -> dict[str, BoxSpec]:
    """Return the NAT boxes of the lab file, and one for each further gateway that is behind a NAT."""
    placed = {name for box in spec.nat.values() for name in box.gateways}
    hidden = (g.name for g in topology.gateways() if g.behind_nat and g.name not in placed)
    return spec.nat | {f"{name}-nat": BoxSpec(gateways=[name]) for name in hidden}


def _wrong_placements(gateways: Mapping[str, Gateway], spec: LabSpec) -> Iterator[Finding]:
    placed: dict[str, str] = {}
    for name, box in spec.nat.items():
        for position, gateway in enumerate(box.gateways):
            where = ("nat", name, "gateways", position)
            if gateway in placed:
                yield Finding(
                    f"{gateway} is behind {placed[gateway]} already", "take it out of one of them", where
                )
            elif gateway in gateways and not gateways[gateway].behind_nat:
                hint = "say 'behind_nat: true' there, or take it out here"
                yield Finding(f"the topology does not say that {gateway} is behind a NAT", hint, where)
            placed[gateway] = name


def _box(
    name: str, gateways: tuple[Gateway, ...], spec: BoxSpec, taken: list[IPNetwork], findings: list[Finding]
) -> Box:
    public = [g.public_address for g in gateways if g.public_address is not None]
    known = next((a for a in public if isinstance(a, IPAddress)), None)
    forwards = bool(public) if spec.forward is None else spec.forward
    if forwards and len(gateways) > 1:
        hint = "put each behind a box of its own, or say 'forward: false'"
        findings.append(
            Finding(f"{name} can pass UDP 500 and 4500 on to one gateway only", hint, ("nat", name))
        )
    address = _agreed(name, known, spec.address, ("nat", name, "address"), findings)
    return Box(name, gateways, _inside(name, gateways, spec, taken, findings), forwards, address)


def _inside(
    name: str, gateways: tuple[Gateway, ...], spec: BoxSpec, taken: list[IPNetwork], findings: list[Finding]
) -> IPNetwork:
    """Return the network between a box and its gateways: as said, around their addresses, or a free one."""
    fixed = {g.name: g.address for g in gateways if isinstance(g.address, IPAddress)}
    if spec.inside is not None:
        inside = IPNetwork(str(spec.inside))
    elif fixed:
        inside = around(next(iter(fixed.values())))
    else:
        inside = next(n for n in _INSIDES if not _overlap(n, taken))
    where = ("nat", name, "inside")
    for gateway, address in fixed.items():
        if address not in inside:
            hint = f"it must hold {address}, which the topology gives {gateway}"
            findings.append(Finding(f"{inside} of {name} is not {gateway}'s network", hint, where))
    if inside.prefixlen > 28 and inside.version == 4:
        findings.append(Finding(f"{inside} of {name} is too small", "give it a /28 or larger", where))
    if _overlap(inside, taken):
        findings.append(Finding(f"{inside} of {name} overlaps another network", "choose another", where))
    return inside


def _overlap(network: IPNetwork, others: Iterable[IPNetwork]) -> bool:
    return any(network in other or other in network for other in others)


# -------------------------------------------------------------------------------------------------- addresses


def choose_addresses(
    topology: Topology, spec: LabSpec, boxes: tuple[Box, ...], findings: list[Finding]
) -> dict[str, IPAddress]:
    """Return the WAN address of every node that faces the internet, by name.

    It is the topology's, or the lab file's, or a free one of 192.0.2.0/24.
    """
    hidden = {g.name for box in boxes for g in box.gateways}
    known: dict[str, IPAddress | None] = {box.name: box.address for box in boxes}
    for gateway in topology.gateways():
        if gateway.name not in hidden:
            said = spec.gateways.get(gateway.name, GatewaySpec()).address
            own = gateway.address if isinstance(gateway.address, IPAddress) else None
            where = ("gateways", gateway.name, "address")
            known[gateway.name] = _agreed(gateway.name, own, said, where, findings)
    owners: dict[IPAddress, str] = {}
    for name, address in known.items():
        if address is not None and address in owners:
            section = "nat" if name in spec.nat else "gateways"
            summary = f"{name} and {owners[address]} would both have the WAN address {address}"
            findings.append(Finding(summary, "give them one each", (section, name, "address")))
        elif address is not None:
            owners[address] = name
    free = (a for a in _LAB_WAN[10:-1] if a not in owners)
    chosen = {name: address or next(free) for name, address in sorted(known.items())}
    findings.extend(_both_sides_alike(spec, boxes, chosen))
    return chosen


def _both_sides_alike(
    spec: LabSpec, boxes: Iterable[Box], addresses: Mapping[str, IPAddress]
) -> Iterator[Finding]:
    """Find boxes that would have one network on both of their sides: they could not tell where to send."""
    for box in boxes:
        outside = around(addresses[box.name])
        if outside.version == box.inside.version and _overlap(box.inside, [outside]):
            inside = f"the network inside {box.name} ({box.inside})"
            summary = f"{inside} overlaps that of its WAN address {addresses[box.name]} ({outside})"
            if box.name in spec.nat:
                yield Finding(summary, "give it another 'inside', or 'address'", ("nat", box.name))
            else:
                hint = "its 'address' and its 'public_address' must be in different networks"
                yield Finding(summary, hint, box.gateways[0].where, in_topology=True)


def _agreed(
    name: str, known: IPAddress | None, said: object, where: Path, findings: list[Finding]
) -> IPAddress | None:
    """Return the address that topology and lab file give a node; they must not contradict each other."""
    wanted = IPAddress(str(said)) if said is not None else None
    if known is not None and wanted is not None and known != wanted:
        findings.append(
            Finding(f"{name} has {known} in the topology, not {wanted}", "leave it out here", where)
        )
    return known or wanted

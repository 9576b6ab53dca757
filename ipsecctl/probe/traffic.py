"""What is sent to prove a tunnel: paths (who to whom) and the probes on each of them.

A probe is a description; ``craft`` makes the packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from netaddr import IPAddress, IPNetwork

from ipsecctl.probe.scene import Host
from ipsecctl.topology import Flow, FlowEnd, Tunnel

__all__ = ["Gap", "Kind", "Path", "Probe", "Purpose", "kinds", "paths", "steady_probes"]

_PROTOCOLS = {4: {1: "icmp", 6: "tcp", 17: "udp"}, 6: {58: "icmp", 6: "tcp", 17: "udp"}}
_COPIES = 3
SMALL_BYTES = 128
OFFERED_MSS = {4: 1460, 6: 1440}
"""What a host on Ethernet offers: 1500 bytes less the IP and TCP headers."""


class Kind(StrEnum):
    """What a probe looks like: echo request, datagram, SYN, SYN-ACK, or payload of another protocol."""

    ICMP = "icmp"
    UDP = "udp"
    TCP = "tcp"
    SYN_ACK = "syn-ack"
    OTHER = "other"


class Purpose(StrEnum):
    """What a probe is to show."""

    ARRIVES = "arrives"
    MSS = "mss"
    SIZE = "size"


@dataclass(frozen=True, order=True, slots=True)
class Path:
    """One direction of one flow between two hosts.

    ``source_site`` and ``destination_site`` name the direction, ``sender`` and ``receiver`` the gateways in
    that order; ``protocol`` and the port ranges (first, last) narrow what may be sent, ``None`` for any.
    """

    tunnel: str
    flow: str
    source_site: str
    destination_site: str
    sender: str
    receiver: str
    source: Host
    destination: Host
    source_address: IPAddress
    destination_address: IPAddress
    source_prefix: IPNetwork
    destination_prefix: IPNetwork
    protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None

    @property
    def family(self) -> int:
        version: int = self.source_address.version
        return version

    @property
    def direction(self) -> str:
        return f"{self.source_site} -> {self.destination_site}"


@dataclass(frozen=True, order=True, slots=True)
class Gap:
    """A part of a tunnel that cannot be probed, with the reason."""

    flow: str
    direction: str
    family: int
    why: str


@dataclass(frozen=True, order=True, slots=True)
class Probe:
    """One packet: ``size_bytes`` is that of the whole IP packet, ``serial`` is unique in a run."""

    serial: int
    path: Path
    kind: Kind
    purpose: Purpose
    size_bytes: int = SMALL_BYTES


def kinds(path: Path) -> tuple[Kind, ...]:
    """Return the kinds of traffic that a path's flow allows; none where its protocol is not of the family."""
    if path.protocol is None:
        return Kind.ICMP, Kind.UDP, Kind.TCP
    if path.protocol in (1, 58) and path.protocol not in _PROTOCOLS[path.family]:
        return ()
    return (Kind(_PROTOCOLS[path.family].get(path.protocol, Kind.OTHER)),)


def paths(tunnel: Tunnel, hosts: Sequence[Host]) -> tuple[list[Path], list[Gap]]:
    """Return every path of a tunnel: each flow, each pair of prefixes of one family, both directions.

    Where a prefix has no host to stand on there is a ``Gap`` instead. The order is that of the flows.
    """
    found: list[Path] = []
    gaps: list[Gap] = []
    for flow in tunnel.flows:
        for left, right in product(flow.left, flow.right):
            if left.prefix.version != right.prefix.version:
                continue
            for outcome in _both_ways(tunnel, flow, left, right, hosts):
                if isinstance(outcome, Path):
                    found.append(outcome)
                else:
                    gaps.append(outcome)
    return found, gaps


def _both_ways(
    tunnel: Tunnel, flow: Flow, left: FlowEnd, right: FlowEnd, hosts: Sequence[Host]
) -> Iterator[Path | Gap]:
    ways = (
        (tunnel.left, left, flow.left_ports, tunnel.right, right, flow.right_ports),
        (tunnel.right, right, flow.right_ports, tunnel.left, left, flow.left_ports),
    )
    for near, near_end, near_ports, far, far_end, far_ports in ways:
        source, destination = _host_in(near_end, hosts), _host_in(far_end, hosts)
        if source is None or destination is None:
            empty = near_end if source is None else far_end
            yield Gap(
                flow.name,
                f"{near.site} -> {far.site}",
                near_end.prefix.version,
                f"no host in {empty.prefix} ({empty.network})",
            )
            continue
        yield Path(
            tunnel=tunnel.name,
            flow=flow.name,
            source_site=near.site,
            destination_site=far.site,
            sender=near.gateway.name,
            receiver=far.gateway.name,
            source=source[0],
            destination=destination[0],
            source_address=source[1],
            destination_address=destination[1],
            source_prefix=near_end.prefix,
            destination_prefix=far_end.prefix,
            protocol=flow.protocol,
            source_ports=near_ports,
            destination_ports=far_ports,
        )


def _host_in(end: FlowEnd, hosts: Sequence[Host]) -> tuple[Host, IPAddress] | None:
    for host in hosts:
        if (address := host.address_in(end.prefix)) is not None:
            return host, address
    return None


def steady_probes(path: Path, serials: Iterator[int]) -> tuple[Probe, ...]:
    """Return the small probes of a path: three of each kind, and a SYN and a SYN-ACK for the MSS."""
    allowed = kinds(path)
    small = [Probe(next(serials), path, kind, Purpose.ARRIVES) for kind in allowed for _ in range(_COPIES)]
    if Kind.TCP in allowed:
        small += [Probe(next(serials), path, kind, Purpose.MSS) for kind in (Kind.TCP, Kind.SYN_ACK)]
    return tuple(small)


def size_probe(path: Path, size_bytes: int, serials: Iterator[int]) -> Probe:
    """Return a probe of exactly ``size_bytes``; UDP where the flow allows it."""
    allowed = kinds(path)
    kind = Kind.UDP if Kind.UDP in allowed else allowed[0]
    return Probe(next(serials), path, kind, Purpose.SIZE, size_bytes)

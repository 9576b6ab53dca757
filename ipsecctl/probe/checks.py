"""The checks: pure functions over what was heard, what charon reports and what was computed.

Each looks at one path. What could not be looked at is ``COULD_NOT_RUN`` with the reason; a check fails only
on something that was seen, or on something that was not seen where it would have been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from netaddr import IPNetwork

from ipsecctl.probe.esp_checks import encapsulation, esp_of, peers
from ipsecctl.probe.evidence import Evidence, address
from ipsecctl.probe.recording import Heard, Recording
from ipsecctl.probe.report import Check, Finding, NotApplicable, Outcome
from ipsecctl.probe.sizes import size_check
from ipsecctl.probe.traffic import OFFERED_MSS, Kind, Path, Purpose, kinds
from ipsecctl.probe.wire import IpPacket, parse_tcp

__all__ = ["CHECKS", "CheckKind", "check_path", "leaks", "packet_in_words"]


def check_path(path: Path, evidence: Evidence) -> tuple[list[Check], list[NotApplicable]]:
    """Run every check on a path, in the order of ``CHECKS``."""
    checks: list[Check] = []
    spared: list[NotApplicable] = []
    for name, kind in CHECKS.items():
        if why := _spared(name, path):
            spared.append(NotApplicable(name, path.flow, path.direction, path.family, why))
            continue
        found = kind.run(path, evidence)
        checks.append(
            Check(
                check=name,
                claim=kind.claim,
                flow=path.flow,
                direction=path.direction,
                family=path.family,
                outcome=found.outcome,
                expected=found.expected,
                measured=found.measured,
                evidence=found.evidence,
                source=path.source.node,
                destination=path.destination.node,
            )
        )
    return checks, spared


def leaks(
    evidence: Evidence, serials: frozenset[int], ways: Iterable[tuple[IPNetwork, IPNetwork]]
) -> list[tuple[Recording, Heard]]:
    """Return what was on the WAN in clear, at any gateway: packets with one of the marks (also answers and
    errors, which have the mark of what they answer), and packets that go one of the ways.

    A way is a prefix of senders and a prefix of receivers.
    """
    inner = frozenset(ways)
    return [
        (recording, heard)
        for recording in evidence.every_wan
        for heard in recording.packets
        if heard.serial in serials or _goes(heard.packet, inner)
    ]


def packet_in_words(packet: IpPacket | None) -> str:
    """Return a packet's addresses, protocol and size for a person."""
    if packet is None:
        return "not an IP packet"
    source, destination = address(packet.source), address(packet.destination)
    return f"{source} -> {destination}, protocol {packet.protocol}, {packet.total_bytes} bytes"


def _arrives(path: Path, evidence: Evidence) -> Finding:
    """Every marked packet arrives at the far host."""
    probes = evidence.of(path, Purpose.ARRIVES)
    came = [p for p in probes if evidence.arrived(p) is not None]
    sent, got = Counter(p.kind for p in probes), Counter(p.kind for p in came)
    seen = ", ".join(f"{kind} {got[kind]} of {sent[kind]}" for kind in sent)
    if len(came) == len(probes):
        return Finding(Outcome.HOLDS, len(probes), len(came), seen)
    unsent = next((evidence.unsent[p.serial] for p in probes if p.serial in evidence.unsent), "")
    if why := unsent or evidence.doubts([path.destination.tap]):
        return Finding(Outcome.COULD_NOT_RUN, len(probes), len(came), why)
    return Finding(Outcome.FAILS, len(probes), len(came), f"{seen} at {path.destination.node}")


def _no_clear(path: Path, evidence: Evidence) -> Finding:
    """Neither a mark nor a packet of this way is on the WAN in clear, while ESP that can carry it is."""
    serials = frozenset(p.serial for p in evidence.probes if p.path == path)
    looked_at = sum(len(recording.packets) for recording in evidence.every_wan)
    if found := leaks(evidence, serials, [(path.source_prefix, path.destination_prefix)]):
        places = ", ".join(sorted({str(recording.tap) for recording, _ in found}))
        marked = sum(heard.serial in serials for _, heard in found)
        seen = (
            f"{len(found)} of {looked_at} WAN packets are in clear, {marked} of them marked, at {places}; "
            f"the first: {packet_in_words(found[0][1].packet)}"
        )
        return Finding(Outcome.FAILS, 0, len(found), seen)
    if why := evidence.clear_doubts:
        return Finding(Outcome.COULD_NOT_RUN, 0, None, why)
    arrived = sum(evidence.arrived(p) is not None for p in evidence.probes if p.path == path)
    carriers = _carriers(path, evidence)
    if not arrived or carriers < arrived:
        why = f"{arrived} packets arrived, but only {carriers} ESP packets that could carry them were seen"
        if not arrived:
            why = "no packet arrived, so nothing shows that it would have been seen"
        return Finding(Outcome.COULD_NOT_RUN, 0, None, f"{why} ({looked_at} WAN packets looked at)")
    return Finding(Outcome.HOLDS, 0, 0, f"{looked_at} WAN packets looked at; {carriers} ESP packets carry it")


def _carriers(path: Path, evidence: Evidence) -> int:
    """Return how many ESP packets of this way were seen at the place on the WAN that saw the fewest."""
    seen = Counter(esp.tap for esp in esp_of(path, evidence))
    return min(seen[link.far] for link in evidence.links.values()) if evidence.links else 0


def _mss(path: Path, evidence: Evidence, kind: Kind) -> Finding:
    """The MSS that a SYN or SYN-ACK offers arrives clamped to exactly what the tunnel carries, and it came
    through the tunnel."""
    if evidence.expected is None:
        return Finding(
            Outcome.COULD_NOT_RUN, None, None, "no MSS can be computed: the tunnel has no CHILD_SA"
        )
    offered = OFFERED_MSS[path.family]
    wanted = min(offered, evidence.expected.mss(path.family))
    probe = next(p for p in evidence.of(path, Purpose.MSS) if p.kind is kind)
    name = "SYN-ACK" if kind is Kind.SYN_ACK else "SYN"
    packet = evidence.arrived(probe)
    if packet is None:
        why = evidence.unsent.get(probe.serial) or f"the {name} did not arrive"
        return Finding(Outcome.COULD_NOT_RUN, wanted, None, why)
    segment = parse_tcp(packet.payload)
    mss = segment.mss if segment is not None else None
    seen = f"{name} offers {offered}, {path.destination.node} sees {mss}"
    if places := evidence.in_clear(probe):
        where = ", ".join(str(recording.tap) for recording in places)
        return Finding(Outcome.FAILS, wanted, mss, f"{seen}; not through the tunnel: in clear at {where}")
    if mss == wanted and (why := evidence.clear_doubts):
        return Finding(Outcome.COULD_NOT_RUN, wanted, mss, f"{seen}; whether through the tunnel: {why}")
    return Finding(Outcome.HOLDS if mss == wanted else Outcome.FAILS, wanted, mss, seen)


def _syn(path: Path, evidence: Evidence) -> Finding:
    return _mss(path, evidence, Kind.TCP)


def _syn_ack(path: Path, evidence: Evidence) -> Finding:
    return _mss(path, evidence, Kind.SYN_ACK)


class CheckKind(NamedTuple):
    """A check: what it claims, in words, and the function that looks at one path."""

    claim: str
    run: Callable[[Path, Evidence], Finding]


CHECKS: Mapping[str, CheckKind] = {
    "arrives": CheckKind("marked packets arrive", _arrives),
    "no-clear": CheckKind("packets on the WAN in clear", _no_clear),
    "peers-and-spis": CheckKind("ESP between the right peers, under charon's SPIs", peers),
    "encapsulation": CheckKind("encapsulation", encapsulation),
    "mtu": CheckKind("largest packet that passes with DF, in bytes", size_check),
    "mss-syn": CheckKind("MSS in the SYN that arrives", _syn),
    "mss-syn-ack": CheckKind("MSS in the SYN-ACK that arrives", _syn_ack),
}
"""Every check by the name that it has in a report."""


def _spared(name: str, path: Path) -> str:
    if name.startswith("mss") and Kind.TCP not in kinds(path):
        return "the flow carries no TCP"
    return ""


def _goes(packet: IpPacket | None, ways: frozenset[tuple[IPNetwork, IPNetwork]]) -> bool:
    if packet is None:
        return False
    source, destination = address(packet.source), address(packet.destination)
    return any(source in near and destination in far for near, far in ways)

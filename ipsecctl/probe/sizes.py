"""The size check: the largest packet that passes with DF, against the one computed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ipsecctl.probe.evidence import Evidence, TooBig
from ipsecctl.probe.expect import esp_bytes
from ipsecctl.probe.report import Finding, Outcome
from ipsecctl.probe.traffic import Path, Probe, Purpose
from ipsecctl.probe.wire import Encapsulation

__all__ = ["SMALLEST_BYTES", "Sized", "next_sizes", "settled", "size_check", "sized"]

SMALLEST_BYTES = {4: 576, 6: 1280}
"""Where a search begins: what every IPv4 host (RFC 791) and every IPv6 link (RFC 8200) must take."""

_TOO_BIG = {4: "fragmentation needed", 6: "packet too big"}
_STEPS = 15  # sizes tried at once: three rounds find the byte between 576 and 1500
_UDP_BYTES = 8


@dataclass(frozen=True, slots=True)
class Sized:
    """What became of one size: whether it passed whole; ``answer`` is the ICMP that came back."""

    size_bytes: int
    arrived: bool
    in_pieces: bool
    answer: TooBig | None
    unsent: str

    @property
    def passed(self) -> bool:
        return self.arrived and not self.in_pieces


def sized(path: Path, evidence: Evidence) -> list[Sized]:
    """Return what became of every size that was tried on a path, smallest first."""
    tried = {probe.size_bytes: _sized(probe, evidence) for probe in evidence.of(path, Purpose.SIZE)}
    return [tried[size] for size in sorted(tried)]


def settled(path: Path, expected: int, evidence: Evidence) -> bool:
    """Whether the expected size is the largest that passes, so that nothing needs to be searched."""
    passed = {s.size_bytes: s.passed for s in sized(path, evidence)}
    return passed.get(expected, False) and not passed.get(expected + 1, True)


def next_sizes(low: int, high: int) -> list[int]:
    """Return the sizes to try between ``low``, which passes, and ``high``, which does not."""
    gap = high - low
    steps = min(_STEPS, gap - 1)
    return sorted({low + gap * step // (steps + 1) for step in range(1, steps + 1)} - {low, high})


def size_check(path: Path, evidence: Evidence) -> Finding:
    """The computed size passes, one byte more does not, and the sender is told the right MTU."""
    if evidence.expected is None:
        return Finding(
            Outcome.COULD_NOT_RUN, None, None, "no size can be computed: the tunnel has no CHILD_SA"
        )
    wanted = evidence.expected.inner_mtu
    tried = {s.size_bytes: s for s in sized(path, evidence)}
    exact, over = tried.get(wanted), tried.get(wanted + 1)
    if exact is None or over is None:
        return Finding(Outcome.COULD_NOT_RUN, wanted, None, "the packets were not sent")
    if unsent := exact.unsent or over.unsent:
        return Finding(Outcome.COULD_NOT_RUN, wanted, None, unsent)
    if exact.passed and not over.passed:
        return _answer_check(path, wanted, over, evidence)
    largest = max((s.size_bytes for s in tried.values() if s.passed), default=None)
    doubts = evidence.doubts([path.destination.tap]) if not exact.passed else ""
    if doubts:
        return Finding(Outcome.COULD_NOT_RUN, wanted, largest, doubts)
    if largest is None:
        if not any(evidence.arrived(p) for p in evidence.of(path, Purpose.ARRIVES)):
            return Finding(Outcome.COULD_NOT_RUN, wanted, None, "nothing passes this way at all")
        return Finding(Outcome.FAILS, wanted, None, f"computed {wanted}, but not even {min(tried)} passes")
    return Finding(Outcome.FAILS, wanted, largest, _difference(path, wanted, largest, tried, evidence))


def _answer_check(path: Path, wanted: int, over: Sized, evidence: Evidence) -> Finding:
    words = _TOO_BIG[path.family]
    if over.answer is None:
        if doubts := evidence.doubts([path.source.tap]):
            return Finding(Outcome.COULD_NOT_RUN, wanted, wanted, doubts)
        seen = f'{wanted} passes, {wanted + 1} does not, and no "{words}" comes back: a black hole'
        return Finding(Outcome.FAILS, wanted, wanted, seen)
    seen = f'{wanted} passes, {wanted + 1} does not; {over.answer.router}: "{words}", MTU {over.answer.mtu}'
    outcome = Outcome.HOLDS if over.answer.mtu == wanted else Outcome.FAILS
    return Finding(outcome, wanted, wanted, seen)


def _difference(path: Path, wanted: int, largest: int, tried: dict[int, Sized], evidence: Evidence) -> str:
    assert evidence.expected is not None  # noqa: S101 - size_check looked
    seen = [f"computed {wanted} ({evidence.expected.because}), measured {largest}"]
    above = next((s for size, s in tried.items() if size > largest), None)
    if above is not None and above.in_pieces:
        seen.append(f"{above.size_bytes} crosses the WAN only with its ESP in fragments")
    elif above is not None and above.unsent:
        seen.append(f"{above.size_bytes}: {above.unsent}")
    elif above is not None and above.answer is None:
        seen.append(f'{above.size_bytes} vanishes without "{_TOO_BIG[path.family]}"')
    elif above is not None and above.answer is not None:
        seen.append(f'{above.answer.router}: "{_TOO_BIG[path.family]}", MTU {above.answer.mtu}')
    return "; ".join(seen)


def _sized(probe: Probe, evidence: Evidence) -> Sized:
    packet = evidence.arrived(probe)
    return Sized(
        size_bytes=probe.size_bytes,
        arrived=packet is not None and packet.total_bytes == probe.size_bytes,
        in_pieces=_in_pieces(probe, evidence),
        answer=evidence.too_big(probe),
        unsent=evidence.unsent.get(probe.serial, ""),
    )


def _in_pieces(probe: Probe, evidence: Evidence) -> bool:
    """Whether ESP of the length that carries this size crossed the WAN in fragments."""
    if not evidence.in_pieces or evidence.expected is None:
        return False
    udp = _UDP_BYTES if evidence.expected.encapsulation is Encapsulation.UDP else 0
    sas = evidence.sas(probe.path.sender, probe.path) or evidence.sas(probe.path.receiver, probe.path)
    return any(
        sa.suite is not None and udp + esp_bytes(probe.size_bytes, sa.suite) in evidence.in_pieces
        for sa in sas.values()
    )

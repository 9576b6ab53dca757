"""The checks on ESP itself: between whom, under which SPIs, and how it is encapsulated. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ipsecctl.probe.evidence import EspSeen, Evidence
from ipsecctl.probe.report import Finding, Outcome
from ipsecctl.probe.traffic import Path
from ipsecctl.probe.wire import Encapsulation
from ipsecctl.probe.wire.esp import NAT_T_PORT

__all__ = ["encapsulation", "esp_of", "peers"]

_WORDS = {Encapsulation.NATIVE: "protocol 50", Encapsulation.UDP: f"UDP {NAT_T_PORT}"}


def esp_of(path: Path, evidence: Evidence) -> list[EspSeen]:
    """Return the ESP packets on the WAN that belong to a path, by the SPIs that it uses at either end."""
    spis = _spis_out(path, evidence) | _spis_in(path, evidence)
    return [seen for seen in evidence.esp if seen.esp.spi in spis]


def peers(path: Path, evidence: Evidence) -> Finding:
    """ESP is between the right addresses, its SPIs are what both charons report, and their counters grow by
    what was sent.

    An end that is not ours is not asked; the evidence then says that the SPIs are compared with our end only.
    """
    if not evidence.sas(path.sender, path) and not evidence.sas(path.receiver, path):
        why = "; ".join(_silence(name, path, evidence) for name in (path.sender, path.receiver))
        return Finding(Outcome.COULD_NOT_RUN, None, None, why)
    if evidence.wan_doubts:
        return Finding(Outcome.COULD_NOT_RUN, None, None, evidence.wan_doubts)
    wanted = str(evidence.outer_pair(path, evidence.links[path.sender].far))
    seen = esp_of(path, evidence)
    measured = _outer_addresses(path, evidence, seen)
    complaints = [
        *_wrong_addresses(path, evidence, seen),
        *_strangers(path, evidence),
        *_one_sided(path, evidence, seen),
    ]
    if complaints:
        return Finding(Outcome.FAILS, wanted, measured, "; ".join(complaints))
    if not seen:
        return Finding(Outcome.COULD_NOT_RUN, wanted, None, "no ESP of this way was seen on the WAN")
    if unreached := [evidence.unasked[g.name] for g in evidence.managed if g.name in evidence.unasked]:
        return Finding(Outcome.COULD_NOT_RUN, wanted, measured, "; ".join(unreached))
    counters, short = _counters(path, evidence)
    spis = ", ".join(f"{spi:08x}" for spi in sorted({s.esp.spi for s in seen}))
    ends = (
        "both ends"
        if len(evidence.managed) == 2
        else f"{evidence.managed[0].name} only, the other end is not managed"
    )
    evidence_text = f"SPI {spis} ({ends}); {counters}"
    return Finding(Outcome.FAILS if short else Outcome.HOLDS, wanted, measured, evidence_text)


def encapsulation(path: Path, evidence: Evidence) -> Finding:
    """ESP travels in UDP 4500 where a NAT, the topology or a charon asks for it, else as protocol 50."""
    wanted = _wanted(evidence)
    seen = Counter(s.esp.encapsulation for s in esp_of(path, evidence))
    if not seen:
        why = evidence.wan_doubts or "no ESP of this way was seen on the WAN"
        return Finding(Outcome.COULD_NOT_RUN, _WORDS[wanted], None, why)
    measured = " and ".join(_WORDS[how] for how in Encapsulation if seen[how])
    counts = ", ".join(f"{seen[how]} times {_WORDS[how]}" for how in Encapsulation if seen[how])
    why = _why(wanted, evidence)
    outcome = Outcome.HOLDS if set(seen) == {wanted} else Outcome.FAILS
    return Finding(outcome, _WORDS[wanted], measured, f"{counts}; {why}")


def _wanted(evidence: Evidence) -> Encapsulation:
    if evidence.expected is not None:
        return evidence.expected.encapsulation
    return Encapsulation.UDP if evidence.tunnel.in_udp else Encapsulation.NATIVE


def _why(wanted: Encapsulation, evidence: Evidence) -> str:
    if evidence.tunnel.behind_nat:
        return "a gateway is behind NAT"
    if evidence.tunnel.in_udp:
        return "the topology says so (force_udp)"
    if wanted is Encapsulation.UDP:
        return "no NAT, but a charon before 5.9.11 that carries ESP itself knows no other way"
    return "no NAT between the gateways"


def _spis_out(path: Path, evidence: Evidence) -> set[int]:
    return {spi_out for _, spi_out in evidence.sas(path.sender, path)}


def _spis_in(path: Path, evidence: Evidence) -> set[int]:
    return {spi_in for spi_in, _ in evidence.sas(path.receiver, path)}


def _silence(gateway: str, path: Path, evidence: Evidence) -> str:
    return evidence.unasked.get(gateway) or f"{gateway} has no CHILD_SA for {path.flow}"


def _wrong_addresses(path: Path, evidence: Evidence, seen: list[EspSeen]) -> Iterator[str]:
    """ESP under this path's SPIs that is not between this path's gateways."""
    wrong = Counter((s.tap, s.outer) for s in seen if not evidence.outer_pair(path, s.tap).fits(s.packet))
    for (tap, outer), number in sorted(wrong.items(), key=str):
        yield f"{number} ESP packets at {tap} are {outer}, not {evidence.outer_pair(path, tap)}"


def _strangers(path: Path, evidence: Evidence) -> Iterator[str]:
    """ESP between this path's gateways under an SPI that neither charon has for any connection."""
    known = evidence.known_spis(path)
    strange = Counter(
        (s.tap, s.esp.spi)
        for s in evidence.esp
        if s.esp.spi not in known
        and evidence.outer_pair(path, s.tap).is_known
        and evidence.outer_pair(path, s.tap).fits(s.packet)
    )
    for (tap, spi), number in sorted(strange.items()):
        yield f"{number} ESP packets at {tap} have SPI {spi:08x}, which charon does not report"


def _one_sided(path: Path, evidence: Evidence, seen: list[EspSeen]) -> Iterator[str]:
    """SPIs in use that only one of two charons that were asked reports."""
    if any(
        gateway.name in evidence.unasked
        for gateway in (evidence.tunnel.left.gateway, evidence.tunnel.right.gateway)
    ):
        return
    out, into = _spis_out(path, evidence), _spis_in(path, evidence)
    used = {s.esp.spi for s in seen}
    for spis, has, lacks in (
        (out - into, path.sender, path.receiver),
        (into - out, path.receiver, path.sender),
    ):
        for spi in sorted(spis & used):
            yield f"SPI {spi:08x} is reported by {has} but not by {lacks}"


def _counters(path: Path, evidence: Evidence) -> tuple[str, bool]:
    """Say how charon's counters grew, and whether that is less than what arrived through the same SAs."""
    carried = evidence.carried_with(path)
    figures, short = [], False
    for gateway, counter, word in ((path.sender, "packets_out", "out"), (path.receiver, "packets_in", "in")):
        if gateway in evidence.unasked:
            continue
        grown = evidence.growth(gateway, path, counter)
        figures.append(f"+{grown} {word}")
        short = short or grown < carried
    return f"packets {', '.join(figures)}; {carried} of ours arrived", short


def _outer_addresses(path: Path, evidence: Evidence, seen: list[EspSeen]) -> str | None:
    """Return between whom this path's ESP was seen where it enters the internet."""
    tap = evidence.links[path.sender].far
    return ", ".join(sorted({s.outer for s in seen if s.tap == tap})) or None

"""What a probe found: checks with their outcome, and the document ``ipsecctl/probe-tunnel/1``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "Check",
    "Figure",
    "Finding",
    "NotApplicable",
    "Outcome",
    "TunnelReport",
    "exit_status",
    "report_json",
    "together",
]

Figure: TypeAlias = int | str | None
"""What is expected or measured: bytes where the check is about sizes, words elsewhere, ``None`` when there is
nothing."""


class Outcome(StrEnum):
    """How a check ended. What could not be run is never counted as holding."""

    HOLDS = "holds"
    FAILS = "fails"
    COULD_NOT_RUN = "could not run"


class Finding(NamedTuple):
    """What a check says of one path: the outcome, what was expected and measured, and what was seen."""

    outcome: Outcome
    expected: Figure
    measured: Figure
    evidence: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one direction of one flow in one address family, or of a gateway.

    ``claim`` says in words what is measured, ``evidence`` what was seen, or why nothing could be. ``source``
    and ``destination`` are the hosts, empty where there was none to send from or to. A check of a gateway has
    no flow and no family, and ``direction`` says where it was made ("at NAME").
    """

    check: str
    claim: str
    flow: str | None
    direction: str
    family: int | None
    outcome: Outcome
    expected: Figure
    measured: Figure
    evidence: str
    source: str = ""
    destination: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "claim": self.claim,
            "flow": self.flow,
            "direction": self.direction,
            "family": f"ipv{self.family}" if self.family else None,
            "outcome": self.outcome.value,
            "expected": self.expected,
            "measured": self.measured,
            "evidence": self.evidence,
            "source": self.source or None,
            "destination": self.destination or None,
        }


@dataclass(frozen=True, order=True, slots=True)
class NotApplicable:
    """A check that says nothing about a flow (the MSS of one that carries no TCP), with the reason."""

    check: str
    flow: str
    direction: str
    family: int
    why: str

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "flow": self.flow,
            "direction": self.direction,
            "family": f"ipv{self.family}",
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class TunnelReport:
    """Everything found about one tunnel, in the order flow, direction, check; what is about gateways last."""

    name: str
    checks: tuple[Check, ...]
    not_applicable: tuple[NotApplicable, ...] = ()

    @property
    def outcome(self) -> Outcome:
        return together(check.outcome for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcome": self.outcome.value,
            "checks": [check.as_json() for check in self.checks],
            "not_applicable": [item.as_json() for item in self.not_applicable],
        }


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Return what many outcomes amount to: the worst, a failure being worse than not knowing.

    No outcome at all proves nothing: ``COULD_NOT_RUN``.
    """
    found = set(outcomes)
    if Outcome.FAILS in found:
        return Outcome.FAILS
    return Outcome.HOLDS if found == {Outcome.HOLDS} else Outcome.COULD_NOT_RUN


def exit_status(reports: Iterable[TunnelReport]) -> int:
    """Return 0 when all holds, 1 when something fails, 3 when nothing does but something could not run."""
    worst = together(report.outcome for report in reports)
    return {Outcome.HOLDS: 0, Outcome.FAILS: 1, Outcome.COULD_NOT_RUN: 3}[worst]


def report_json(reports: Iterable[TunnelReport]) -> dict[str, Any]:
    """Return the document ``ipsecctl/probe-tunnel/1``."""
    return {"schema": "ipsecctl/probe-tunnel/1", "tunnels": [report.as_json() for report in reports]}

"""What the store holds: revisions, what happened on each gateway, and who holds which lock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

__all__ = [
    "Claim",
    "GatewayOutcome",
    "GatewayRow",
    "Lock",
    "NewRevision",
    "Outcome",
    "Owner",
    "Revision",
    "Taken",
    "history_json",
    "revision_json",
    "span",
    "stamp",
]


class Outcome(StrEnum):
    """How an apply ended.

    ``REFUSED``: it began and nothing was done. ``INTERRUPTED``: stopped by a signal, or because its lock was
    broken. ``CUT_OFF``: it never said how it ended, and is no longer there.
    """

    UNDER_WAY = "under way"
    APPLIED = "applied"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    CUT_OFF = "cut off"


class GatewayOutcome(StrEnum):
    """What became of one gateway.

    ``PENDING``: nothing was heard yet. The last three are those of which nothing was heard until the apply
    ended so; they are written nowhere, and read off its own outcome.
    """

    PENDING = "pending"
    UNCHANGED = "unchanged"
    APPLIED = "applied"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    CUT_OFF = "cut off"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that applies: whose, where. ``seat`` and ``start`` tell it from later ones of that number."""

    user: str
    host: str
    pid: int
    seat: str = field(default="", repr=False)
    start: int | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.user}@{self.host}, pid {self.pid}"

    @property
    def person(self) -> str:
        return f"{self.user}@{self.host}"


@dataclass(frozen=True, order=True, slots=True)
class Claim:
    """A gateway to be locked: its ``name`` for people, and by which ``address`` it is one gateway.

    The address is the way to it (``ssh://HOST:PORT``, ``local://HOST``, ``lab://LAB/NAME``): one gateway in
    two topologies is one, whatever they call it; two gateways of one name are two.
    """

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A gateway that is locked: by whom, since when, for which topology.

    ``heard`` is when its owner was last heard of; ``alive`` says whether that is recent enough.
    """

    claim: Claim
    owner: Owner
    since: datetime
    heard: datetime
    topology: str
    alive: bool = True

    def as_json(self) -> dict[str, Any]:
        return {
            "gateway": self.claim.name,
            "address": self.claim.address,
            "user": self.owner.user,
            "host": self.owner.host,
            "pid": self.owner.pid,
            "since": _utc(self.since),
            "heard": _utc(self.heard),
            "topology": self.topology,
            "alive": self.alive,
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken from others with our locks: of those who are dead, and ``broken`` from who lives."""

    expired: tuple[Lock, ...] = ()
    broken: tuple[Lock, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayRow:
    """What happened on a gateway: ``changes`` planned, and done in ``took_s`` seconds, or ``error``."""

    name: str
    outcome: GatewayOutcome = GatewayOutcome.PENDING
    changes: int = 0
    took_s: float | None = None
    error: str = ""
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcome": str(self.outcome),
            "changes": self.changes,
            "took_s": None if self.took_s is None else round(self.took_s, 3),
            "error": self.error or None,
            "hint": self.hint or None,
        }


@dataclass(frozen=True, slots=True)
class NewRevision:
    """What is known when an apply begins.

    ``text`` is the topology's, in which credentials are references; ``file`` is absolute, or ``-``, and what
    its paths are relative to. ``plan`` is the document ``ipsecctl/plan/1``. ``gateways`` are all that are
    concerned. ``rollback_of`` is the number of the revision whose text is applied again.
    """

    topology: str
    file: str
    text: str
    plan: dict[str, Any]
    gateways: tuple[GatewayRow, ...]
    message: str = ""
    lab: str = ""
    rollback_of: int | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as the store has it. Times are UTC.

    ``confirmation`` says how an apply stands that had to be confirmed, "" for any other. ``text``, ``plan``
    and ``tunnels`` are empty where only the list was asked for.
    """

    number: int
    began: datetime
    ended: datetime | None
    owner: Owner
    version: str
    topology: str
    file: str
    sha256: str
    message: str
    lab: str
    outcome: Outcome
    error: str
    gateways: tuple[GatewayRow, ...]
    confirmation: str = ""
    rollback_of: int | None = None
    text: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    tunnels: tuple[dict[str, Any], ...] = ()

    def count(self, outcome: GatewayOutcome) -> int:
        """Return how many gateways came out so."""
        return sum(row.outcome is outcome for row in self.gateways)

    def as_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "began": _utc(self.began),
            "ended": _utc(self.ended),
            "user": self.owner.user,
            "host": self.owner.host,
            "pid": self.owner.pid,
            "ipsecctl": self.version,
            "topology": self.topology,
            "file": self.file,
            "sha256": self.sha256,
            "message": self.message or None,
            "lab": self.lab or None,
            "outcome": str(self.outcome),
            "error": self.error or None,
            "confirmation": self.confirmation or None,
            "rollback_of": self.rollback_of,
            "gateways": [row.as_json() for row in self.gateways],
        }


def history_json(store: str, revisions: Iterable[Revision], locks: Iterable[Lock]) -> dict[str, Any]:
    """Return the document ``ipsecctl/history/1``, newest revision first."""
    return {
        "schema": "ipsecctl/history/1",
        "store": store,
        "revisions": [revision.as_json() for revision in revisions],
        "locks": [lock.as_json() for lock in locks],
    }


def revision_json(store: str, revision: Revision) -> dict[str, Any]:
    """Return the document ``ipsecctl/revision/1``: all of a revision, with topology text and plan."""
    return {
        "schema": "ipsecctl/revision/1",
        "store": store,
        **revision.as_json(),
        "tunnels": list(revision.tunnels),
        "plan": revision.plan,
        "text": revision.text,
    }


def span(length: timedelta) -> str:
    """Return a length of time as people say it: ``0:42`` (minutes), ``1:02:03`` (hours), ``3 days``."""
    seconds = max(0, int(length.total_seconds()))
    if seconds >= 2 * 86400:
        return f"{seconds // 86400} days"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def stamp(when: datetime) -> str:
    """Return a time in UTC as the store holds it: such texts sort as the times do."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def _utc(when: datetime | None) -> str | None:
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%SZ")

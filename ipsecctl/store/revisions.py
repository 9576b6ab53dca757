"""What was applied: written when an apply begins, as its gateways finish, and when it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ipsecctl import __version__
from ipsecctl.store.database import Transaction
from ipsecctl.store.locks import lives
from ipsecctl.store.model import GatewayOutcome, GatewayRow, NewRevision, Outcome, Owner, Revision, stamp

__all__ = ["begin", "confirmation", "digest", "end", "find", "latest_digest", "listed", "note", "resume"]


def digest(text: str) -> str:
    """Return the SHA-256 of a topology's text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def begin(transaction: Transaction, session: str, owner: Owner, new: NewRevision) -> int:
    """Write a revision that is under way, in a transaction that must be alone; return its number.

    Numbers count from 1 in each store, without gaps.
    """
    number = int(transaction.run("SELECT coalesce(max(number), 0) + 1 FROM ipsecctl_revision")[0][0])
    sha256 = digest(new.text)
    if not transaction.run("SELECT 1 FROM ipsecctl_topology WHERE sha256 = ?", sha256):
        transaction.run("INSERT INTO ipsecctl_topology (sha256, content) VALUES (?, ?)", sha256, new.text)
    values = {
        "number": number,
        "session": session,
        "began": stamp(transaction.now()),
        "person": owner.user,
        "host": owner.host,
        "pid": owner.pid,
        "version": __version__,
        "topology": new.topology,
        "file": new.file,
        "sha256": sha256,
        "message": new.message,
        "lab": new.lab,
        "outcome": str(Outcome.UNDER_WAY),
        "error": "",
        "plan": _packed(new.plan),
        "tunnels": "[]",
        "rollback_of": new.rollback_of,
    }
    places = ", ".join("?" * len(values))
    transaction.run(
        f"INSERT INTO ipsecctl_revision ({', '.join(values)}) VALUES ({places})",  # noqa: S608 - names of ours
        *values.values(),
    )
    for row in new.gateways:
        transaction.run(
            "INSERT INTO ipsecctl_gateway (revision, name, outcome, changes, took_s, error, hint)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(number, row.name, str(row.outcome), row.changes, row.took_s, row.error, row.hint),
        )
    return number


def note(transaction: Transaction, number: int, row: GatewayRow) -> None:
    """Write what became of a gateway; the last word counts."""
    transaction.run(
        "UPDATE ipsecctl_gateway SET outcome = ?, changes = ?, took_s = ?, error = ?, hint = ?"
        " WHERE revision = ? AND name = ?",
        *(str(row.outcome), row.changes, row.took_s, row.error, row.hint, number, row.name),
    )


def end(
    transaction: Transaction,
    number: int,
    outcome: Outcome,
    error: str = "",
    tunnels: Iterable[Mapping[str, Any]] = (),
    token: str = "",
    confirmation: str = "",
) -> None:
    """Write how an apply ended, what its tunnels were then, and how its confirmation stands."""
    transaction.run(
        "UPDATE ipsecctl_revision SET outcome = ?, error = ?, tunnels = ?, ended = ?, token = ?,"
        " confirmation = ? WHERE number = ?",
        *(str(outcome), error, _packed([*tunnels]), stamp(transaction.now()), token, confirmation, number),
    )


def confirmation(transaction: Transaction, token: str, said: str) -> None:
    """Write how the confirmation of the apply with this token stands."""
    transaction.run("UPDATE ipsecctl_revision SET confirmation = ? WHERE token = ?", said, token)


def resume(transaction: Transaction, number: int) -> None:
    """Take back that an apply was cut off: it was only not heard of."""
    transaction.run(
        "UPDATE ipsecctl_revision SET outcome = ?, ended = NULL WHERE number = ? AND outcome = ?",
        *(str(Outcome.UNDER_WAY), number, str(Outcome.CUT_OFF)),
    )


def latest_digest(transaction: Transaction, topology: str, lab: str) -> str | None:
    """Return the digest of the text that was applied last of a topology, ``None`` if it failed or is new."""
    rows = transaction.run(
        "SELECT sha256, outcome FROM ipsecctl_revision WHERE topology = ? AND lab = ?"
        " ORDER BY number DESC LIMIT 1",
        *(topology, lab),
    )
    return str(rows[0][0]) if rows and rows[0][1] == Outcome.APPLIED else None


def listed(transaction: Transaction, topology: str | None = None, limit: int = 0) -> tuple[Revision, ...]:
    """Return revisions without text, plan and tunnels, the newest first; at most ``limit`` where not 0."""
    where, values = ("WHERE r.topology = ?", [topology]) if topology is not None else ("", [])
    last = f"LIMIT {int(limit)}" if limit else ""
    return tuple(
        _revisions(transaction, transaction.run(f"{_SUMMARY} {where} ORDER BY r.number DESC {last}", *values))
    )


def find(transaction: Transaction, number: int) -> Revision | None:
    """Return all of a revision, ``None`` if there is none of that number."""
    rows = transaction.run(f"{_WHOLE} WHERE r.number = ?", number)
    return next(iter(_revisions(transaction, rows)), None)


_FIELDS = (
    "r.number, r.began, r.ended, r.person, r.host, r.pid, r.version, r.topology, r.file, r.sha256,"
    " r.message, r.lab, r.outcome, r.error, s.seat, s.started, s.heard, s.lasts_s, r.confirmation,"
    " r.rollback_of"
)
_SESSION = "LEFT JOIN ipsecctl_session s ON s.id = r.session"
_SUMMARY = f"SELECT {_FIELDS} FROM ipsecctl_revision r {_SESSION}"  # noqa: S608
_WHOLE = (
    f"SELECT {_FIELDS}, t.content, r.plan, r.tunnels FROM ipsecctl_revision r {_SESSION}"  # noqa: S608
    " JOIN ipsecctl_topology t ON t.sha256 = r.sha256"
)


def _revisions(transaction: Transaction, rows: list[tuple[Any, ...]]) -> Iterable[Revision]:
    now = transaction.now()
    for row in rows:
        number, began, ended, person, host, pid, version, topology, file, sha256, message, lab = row[:12]
        outcome, error, seat, started, heard, lasts_s, confirmed, rollback_of = row[12:20]
        owner = Owner(person, host, pid, seat or "", started)
        ended_at = datetime.fromisoformat(ended) if ended else None
        if outcome == Outcome.UNDER_WAY and not (
            heard and lives(owner, datetime.fromisoformat(heard), lasts_s, now)
        ):
            outcome = Outcome.CUT_OFF
            ended_at = datetime.fromisoformat(heard) if heard else None
        if ended_at is not None:  # what was heard last of one that was cut off may be from before it began
            ended_at = max(ended_at, datetime.fromisoformat(began))
        text, plan, tunnels = row[20:] or ("", "{}", "[]")
        yield Revision(
            number,
            datetime.fromisoformat(began),
            ended_at,
            owner,
            version,
            topology,
            file,
            sha256,
            message,
            lab,
            Outcome(outcome),
            error,
            _gateways(transaction, number, _LEFT_PENDING.get(Outcome(outcome))),
            confirmed,
            rollback_of,
            text,
            json.loads(plan),
            tuple(json.loads(tunnels)),
        )


_LEFT_PENDING = {
    Outcome.FAILED: GatewayOutcome.INTERRUPTED,
    Outcome.INTERRUPTED: GatewayOutcome.INTERRUPTED,
    Outcome.CUT_OFF: GatewayOutcome.CUT_OFF,
    Outcome.REFUSED: GatewayOutcome.REFUSED,
}
"""What a gateway of which nothing was heard has come to, when its apply has ended so."""


def _gateways(transaction: Transaction, number: int, left: GatewayOutcome | None) -> tuple[GatewayRow, ...]:
    """Return what became of each gateway; ``left`` is what those are that are still pending, if over."""
    rows = transaction.run(
        "SELECT name, outcome, changes, took_s, error, hint FROM ipsecctl_gateway WHERE revision = ?"
        " ORDER BY name",
        number,
    )
    if left is not None:
        rows = [(n, left if was == GatewayOutcome.PENDING else was, *rest) for n, was, *rest in rows]
    return tuple(GatewayRow(name, GatewayOutcome(outcome), *rest) for name, outcome, *rest in sorted(rows))


def _packed(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))

"""The locks of gateways: all that one apply needs, or none; with an owner who is heard of, or loses them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from ipsecctl.errors import GatewaysBusy
from ipsecctl.patience import PATIENCE
from ipsecctl.store.database import Transaction
from ipsecctl.store.model import Claim, Lock, Outcome, Owner, Taken, span, stamp
from ipsecctl.whoami import process_start, seat, user

__all__ = ["BEAT_S", "LASTS_S", "acquire", "all_locks", "beat", "here", "leave", "lives", "new_session"]

BEAT_S = 3.0
"""How often an owner says that it lives, in seconds."""

LASTS_S = 30.0 * PATIENCE
"""For how long it is believed after that. Its row says so: another one's patience may be another."""


def here() -> Owner:
    """Return this process as an owner."""
    return Owner(user(), socket.gethostname(), os.getpid(), seat(), process_start(os.getpid()))


def new_session() -> str:
    """Return a name that no other session has."""
    return os.urandom(16).hex()


def acquire(
    transaction: Transaction,
    session: str,
    owner: Owner,
    claims: Iterable[Claim],
    topology: str,
    *,
    break_them: bool = False,
    lasts_s: float = LASTS_S,
) -> Taken:
    """Lock all gateways of ``claims`` for a session, in a transaction that must be alone.

    Locks of owners that are dead, or were not heard of for too long, are taken; ``break_them`` takes those of
    the living, too, whose session learns of it at its next ``beat``. Returns what was taken from whom. Raises
    ``GatewaysBusy`` and locks nothing when others hold one of them.
    """
    now = transaction.now()
    wanted = {claim.address: claim for claim in claims}
    held = [(holder, lock) for holder, lock in _locks(transaction, now) if lock.claim.address in wanted]
    others = [(holder, lock) for holder, lock in held if holder != session]
    living = tuple(lock for _, lock in others if lock.alive)
    if living and not break_them:
        raise GatewaysBusy(_busy(living, now), _BUSY_HINT)
    for holder, lock in others:
        if lock.alive:
            transaction.run("UPDATE ipsecctl_session SET broken_by = ? WHERE id = ?", owner.person, holder)
        else:
            _bury(transaction, holder, lock.heard)
    for address in wanted:
        transaction.run("DELETE FROM ipsecctl_lock WHERE address = ?", address)
    _say(transaction, session, owner, now, lasts_s)
    for claim in sorted(wanted.values()):
        transaction.run(
            "INSERT INTO ipsecctl_lock (address, gateway, session, since, topology) VALUES (?, ?, ?, ?, ?)",
            *(claim.address, claim.name, session, stamp(now), topology),
        )
    return Taken(tuple(lock for _, lock in others if not lock.alive), living)


def beat(transaction: Transaction, session: str) -> str | None:
    """Say that a session lives.

    Returns ``None`` while all is well, else who broke its locks; empty when they were taken because it was
    not heard of, and its row is gone.
    """
    rows = transaction.run("SELECT broken_by FROM ipsecctl_session WHERE id = ?", session)
    if not rows:
        return ""
    now = stamp(transaction.now())
    transaction.run("UPDATE ipsecctl_session SET heard = ? WHERE id = ?", now, session)
    broken_by: str | None = rows[0][0]
    return broken_by


def leave(transaction: Transaction, session: str) -> None:
    """Let all locks of a session go, and forget it, in a transaction that must be alone."""
    transaction.run("DELETE FROM ipsecctl_lock WHERE session = ?", session)
    transaction.run("DELETE FROM ipsecctl_session WHERE id = ?", session)


def all_locks(transaction: Transaction) -> tuple[Lock, ...]:
    """Return every lock, sorted by gateway."""
    found = (lock for _, lock in _locks(transaction, transaction.now()))
    return tuple(sorted(found, key=lambda lock: (lock.claim.name, lock.claim.address)))


def lives(owner: Owner, heard: datetime, lasts_s: float, now: datetime) -> bool:
    """Whether an owner is still there, as far as can be told.

    On its own machine a process that has ended is seen at once; from elsewhere by its silence.
    """
    here_too = bool(owner.seat) and owner.seat == seat()
    if here_too and owner.start is not None and process_start(owner.pid) != owner.start:
        return False
    return now - heard <= timedelta(seconds=lasts_s)


_BUSY_HINT = (
    "Nothing was done. Wait for it (--lock-wait SECONDS); or, if it is known to be dead, take the lock: "
    "--break-lock."
)


def _busy(locks: Sequence[Lock], now: datetime) -> str:
    """Return who holds which gateways since when, as one sentence for each owner."""
    by_owner: dict[tuple[Owner, str], list[Lock]] = {}
    for lock in locks:
        by_owner.setdefault((lock.owner, lock.topology), []).append(lock)
    said = []
    for (owner, topology), theirs in by_owner.items():
        names = ", ".join(sorted(lock.claim.name for lock in theirs))
        age = span(now - min(lock.since for lock in theirs))
        said.append(f"{owner.person} (pid {owner.pid}) has been applying {topology} to {names} for {age}")
    return "; ".join(said)


def _locks(transaction: Transaction, now: datetime) -> list[tuple[str, Lock]]:
    rows = transaction.run(
        "SELECT l.address, l.gateway, l.session, l.since, l.topology,"
        " s.person, s.host, s.pid, s.seat, s.started, s.heard, s.lasts_s"
        " FROM ipsecctl_lock l JOIN ipsecctl_session s ON s.id = l.session ORDER BY l.address"
    )
    found = []
    for address, gateway, session, since, topology, *who, heard, lasts_s in rows:
        owner, last = Owner(*who), datetime.fromisoformat(heard)
        alive = lives(owner, last, lasts_s, now)
        lock = Lock(Claim(address, gateway), owner, datetime.fromisoformat(since), last, topology, alive)
        found.append((session, lock))
    return found


def _bury(transaction: Transaction, session: str, heard: datetime) -> None:
    """Forget a session that is dead, with all its locks; what it had under way is called cut off."""
    transaction.run(
        "UPDATE ipsecctl_revision SET outcome = ?, ended = ? WHERE session = ? AND outcome = ?",
        *(str(Outcome.CUT_OFF), stamp(heard), session, str(Outcome.UNDER_WAY)),
    )
    leave(transaction, session)


def _say(transaction: Transaction, session: str, owner: Owner, now: datetime, lasts_s: float) -> None:
    transaction.run("DELETE FROM ipsecctl_lock WHERE session = ?", session)
    transaction.run("DELETE FROM ipsecctl_session WHERE id = ?", session)
    transaction.run(
        "INSERT INTO ipsecctl_session (id, person, host, pid, seat, started, heard, lasts_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        *(session, owner.user, owner.host, owner.pid, owner.seat, owner.start, stamp(now), lasts_s),
    )

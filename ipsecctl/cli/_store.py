"""The store for a command: which one, and what is said about locks that are held, taken and broken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._view import say
from ipsecctl.errors import ApplyFailed, GatewaysBusy, IpsecctlError, StoreUnusable

if TYPE_CHECKING:
    from datetime import datetime

    from ipsecctl.store import Location, Session, Store, Taken
    from ipsecctl.topology import Topology

__all__ = ["LabOption", "StoreOption", "failed_last", "local_time", "locked", "open_store", "store_at"]

StoreOption = Annotated[
    str | None,
    typer.Option(
        help="Where the history is: a file, or postgresql://USER@HOST/DATABASE. Default: IPSECCTL_STORE, "
        "else a file of this user; for a lab a file of its own.",
        metavar="STORE",
    ),
]
LabOption = Annotated[str | None, typer.Option(help="The history of this lab.", metavar="NAME")]


def open_store(said: str | None, lab: str | None = None) -> Store:
    """Return the store that was asked for; that of a lab, where there is one and no option named another.

    Where the environment names a store that is not used, as labs have their own, that is said.

    Raises ``StoreUnusable``, and ``IpsecctlError`` for a password on the command line.
    """
    from ipsecctl.store import VARIABLE, Store

    where = store_at(said, lab)
    if lab is not None and not said and os.environ.get(VARIABLE, "").strip():
        say(
            f"note: the history of lab '{lab}' is in {where}, not in {VARIABLE}: --store names another place."
        )
    return Store(where)


def store_at(said: str | None, lab: str | None = None) -> Location:
    """Return where that store is."""
    from ipsecctl.store import VARIABLE, lab_location, location

    root = os.geteuid() == 0
    if lab is not None and not said:
        return lab_location(lab, os.environ, root=root)
    where = location(said, os.environ, root=root)
    if said and where.has_password:
        raise IpsecctlError(
            f"the password in '--store {where}' can be read by everybody in the list of processes",
            f"Change it; and put it into ~/.pgpass, PGPASSWORD, or the URL in {VARIABLE}.",
        )
    return where


def failed_last(topology: Topology, said: str | None, lab: str | None) -> tuple[str, ...]:
    """Return the gateways that failed in the last revision of a topology.

    Raises ``IpsecctlError`` where there is no revision of it, or none failed.
    """
    from ipsecctl.deploy.journal import lab_of
    from ipsecctl.store import GatewayOutcome

    with open_store(said, lab_of(topology, lab)) as store:
        last = next((each for each in store.revisions(topology.name) if each.lab == (lab or "")), None)
    if last is None:
        raise IpsecctlError(
            f"--retry-failed: the history has no apply of {topology.name}",
            "Apply without it; 'ipsecctl history' lists what it has.",
        )
    failed = tuple(row.name for row in last.gateways if row.outcome is GatewayOutcome.FAILED)
    if not failed:
        raise IpsecctlError(
            f"--retry-failed: no gateway failed in revision {last.number}, the last of {topology.name}",
            "There is nothing to try again; apply without it does what is left.",
        )
    say(f"Failed in revision {last.number}: {', '.join(failed)}.")
    return failed


@contextmanager
def locked(
    topology: Topology,
    *,
    store: str | None,
    lab: str | None,
    break_lock: bool,
    lock_wait_s: float,
) -> Iterator[Session]:
    """Hold the locks of all gateways of a topology in the store while the block lasts.

    Raises ``ApplyFailed`` when that cannot be: the store cannot be used, or another apply is at work.
    """
    from ipsecctl.deploy.journal import claims, lab_of

    try:
        session = open_store(store, lab_of(topology, lab)).session()
        with session:
            taken = session.lock(
                claims(topology, lab),
                topology.name,
                break_them=break_lock,
                wait_s=lock_wait_s,
                waiting=_waiting,
            )
            _told(taken)
            yield session
    except StoreUnusable as error:  # later ones are not raised, but counted as trouble
        raise ApplyFailed(f"nothing was done: {error.summary}", error.hint) from error
    if session.trouble is not None:
        say(f"warning: the history lacks the end of this apply: {session.trouble.summary}")


def _waiting(busy: GatewaysBusy) -> None:
    say(f"Waiting: {busy.summary}.")


def _told(taken: Taken) -> None:
    for lock in taken.expired:
        heard = local_time(lock.heard)
        say(f"{lock.claim.name}: its lock was left by {lock.owner}, last heard of at {heard}.")
    for lock in taken.broken:
        say(f"{lock.claim.name}: broke the lock of {lock.owner}, held since {local_time(lock.since)}.")


def local_time(when: datetime) -> str:
    """Return a time for people: in their zone, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")

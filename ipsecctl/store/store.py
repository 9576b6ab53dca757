"""The store as the commands see it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ipsecctl.errors import IpsecctlError
from ipsecctl.store import locks, revisions
from ipsecctl.store.database import Database, connect
from ipsecctl.store.location import Location
from ipsecctl.store.model import Lock, Revision
from ipsecctl.store.schema import make_ready
from ipsecctl.store.session import Session

__all__ = ["Store"]


class Store:
    """Revisions and locks at one place. Everything raises ``StoreUnusable`` when that cannot be used."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self._database: Database = connect(location)
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def session(self) -> Session:
        """Return a session for one apply; the store is made where there is none."""
        self._make_ready()
        return Session(self._database)

    def revisions(self, topology: str | None = None, limit: int = 0) -> tuple[Revision, ...]:
        """Return what was applied, newest first, without texts and plans; all where ``limit`` is 0."""
        if not self._database.exists():
            return ()
        self._make_ready()
        with self._database.transaction() as transaction:
            return revisions.listed(transaction, topology, limit)

    def revision(self, number: int) -> Revision:
        """Return all of one revision. Raises ``IpsecctlError`` where there is none of that number."""
        found = None
        if self._database.exists():
            self._make_ready()
            with self._database.transaction() as transaction:
                found = revisions.find(transaction, number)
        if found is None:
            raise IpsecctlError(
                f"there is no revision {number} in {self.location}", "'ipsecctl history' lists them."
            )
        return found

    def confirmation(self, token: str, said: str) -> None:
        """Write how the confirmation of the apply with this token stands; nothing where it is not here."""
        if self._database.exists():
            self._make_ready()
            with self._database.transaction(alone=True) as transaction:
                revisions.confirmation(transaction, token, said)

    def locks(self) -> tuple[Lock, ...]:
        """Return all locks, sorted by gateway."""
        if not self._database.exists():
            return ()
        self._make_ready()
        with self._database.transaction() as transaction:
            return locks.all_locks(transaction)

    def _make_ready(self) -> None:
        if not self._ready:
            make_ready(self._database)
            self._ready = True

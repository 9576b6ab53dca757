"""Two kinds of database, the same to what is above: transactions, one at a time where it matters, and time.

The SQL above is what SQLite (3.31) and PostgreSQL (13) both understand, with ``?`` for a value. Times are
text, ISO 8601 in UTC, which both sort alike.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipsecctl.errors import StoreUnusable
from ipsecctl.patience import PATIENCE
from ipsecctl.store.location import VARIABLE, Location

if TYPE_CHECKING:
    import psycopg

__all__ = ["Database", "Postgres", "Sqlite", "Transaction", "connect"]

_PATIENCE_S = 10.0 * PATIENCE
_ELSEWHERE = f"To have this apply recorded elsewhere meanwhile: --store FILE, or {VARIABLE}."
MUTEX = "ipsecctl_store"
"""The table that is locked by who must be alone; nothing that goes on all the time writes to it."""


def connect(location: Location) -> Database:
    """Return the database at a location, not opened yet. Raises ``StoreUnusable``."""
    return Sqlite(location.file) if location.file else Postgres(location)


class Transaction:
    """One transaction: statements in, rows out."""

    def __init__(self, database: Database, cursor: Any) -> None:
        self._database = database
        self._cursor = cursor

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, in its order; none where it gives none.

        In texts, what no database takes (NUL, bytes that were no UTF-8) is replaced.
        """
        cleaned = tuple(_clean(value) if isinstance(value, str) else value for value in values)
        self._cursor.execute(self._database.dialect(sql), cleaned)
        return [tuple(row) for row in self._cursor.fetchall()] if self._cursor.description else []

    def has_table(self, name: str) -> bool:
        return bool(self.run(self._database.table_query, name)[0][0])

    def now(self) -> datetime:
        """Return the time by the database's clock: the same for all who share it."""
        return self._database.now(self)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class Database(ABC):
    """A database that is opened when first used, and again when it was lost. Safe to use from two threads."""

    table_query: str

    def __init__(self, where: str) -> None:
        self.where = where
        self._one_at_a_time = threading.RLock()
        self._connection: Any = None

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Transaction]:
        """Begin a transaction that ends with the block: kept when it is left, undone when it raises.

        ``alone`` keeps all others out who also want to be alone, and waits for those that are. Raises
        ``StoreUnusable`` when the database cannot be used, is in use for too long, or is full.
        """
        with self._one_at_a_time:
            try:
                if self._connection is None:
                    self._connection = self._open()
                with self._begin(alone=alone) as cursor:
                    yield Transaction(self, cursor)
            except self._failures() as error:
                self.close()
                raise self._told(error) from error

    def close(self) -> None:
        """Give the connection up; the next use makes a new one."""
        with self._one_at_a_time:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(*self._failures()):
                    connection.close()

    def dialect(self, sql: str) -> str:
        """Return a statement as this database wants it."""
        return sql

    @abstractmethod
    def exists(self) -> bool:
        """Whether there can be something to read."""

    @abstractmethod
    def now(self, transaction: Transaction) -> datetime: ...

    @abstractmethod
    def _open(self) -> Any: ...

    @abstractmethod
    def _begin(self, *, alone: bool) -> Any: ...

    @abstractmethod
    def _failures(self) -> tuple[type[Exception], ...]: ...

    @abstractmethod
    def _told(self, error: Exception) -> StoreUnusable: ...


class Sqlite(Database):
    """A file, readable by its owner alone; with a write-ahead log, so that who reads waits for nobody."""

    table_query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file

    def exists(self) -> bool:
        return self._file.exists()

    def now(self, transaction: Transaction) -> datetime:  # noqa: ARG002 - it has no clock of its own
        return datetime.now(UTC)

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not opened where it is there: to close it would end the locks that this process may have on it.
        with suppress(FileExistsError):
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            self._file, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        try:
            _use_log(connection)
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _begin(self, *, alone: bool) -> Iterator[sqlite3.Cursor]:
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE" if alone else "BEGIN")
        try:
            yield cursor
        except BaseException:
            if self._connection.in_transaction:  # a full disk has undone it already
                cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")

    def _failures(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error, OSError)

    def _told(self, error: Exception) -> StoreUnusable:
        cause = error.strerror if isinstance(error, OSError) else str(error)
        return StoreUnusable(f"the history in {self.where} cannot be used: {cause}", _sqlite_hint(error))


def _use_log(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; SQLite does not wait where another does the same in that moment."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _sqlite_hint(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "It is no SQLite database, or damaged: move it away, and an empty one is made."
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "Another process keeps it locked: see which with 'fuser', and try again."
    if code == sqlite3.SQLITE_FULL:
        return "Make room on that disk."
    return f"Make it writable for {os.environ.get('USER') or 'this user'}. {_ELSEWHERE}"


class Postgres(Database):
    """A PostgreSQL server: for a team. libpq reads password, certificates and all else as ``psql`` does."""

    # Not to_regclass: within a transaction it may not see yet what another one has just made.
    table_query = (
        "SELECT count(*) FROM pg_catalog.pg_tables"
        " WHERE tablename = ? AND schemaname = ANY (pg_catalog.current_schemas(false))"
    )

    def __init__(self, location: Location) -> None:
        super().__init__(str(location))
        self._location = location
        try:
            import psycopg
        except ImportError as error:
            raise StoreUnusable(
                f"the history is in PostgreSQL ({location}), and what talks to it is not installed",
                "pip install 'ipsecctl[postgres]'",
            ) from error
        self._driver = psycopg

    def exists(self) -> bool:
        return True

    def dialect(self, sql: str) -> str:
        return sql.replace("?", "%s")

    def now(self, transaction: Transaction) -> datetime:
        # As a number: what a time looks like as text is a setting of the database.
        epoch = transaction.run("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")
        return datetime.fromtimestamp(epoch[0][0], UTC)

    def _open(self) -> psycopg.Connection[Any]:
        said = self._driver.conninfo.conninfo_to_dict(self._location.url)
        limits: dict[str, Any] = {
            "connect_timeout": max(2, round(_PATIENCE_S)),
            "tcp_user_timeout": round(_PATIENCE_S * 1000),
            "application_name": "ipsecctl",
        }
        rest = {name: value for name, value in limits.items() if name not in said}
        connection = self._driver.connect(self._location.url, autocommit=True, **rest)
        try:
            connection.isolation_level = self._driver.IsolationLevel.READ_COMMITTED
            connection.prepare_threshold = None  # poolers in front of a server do not like it
            connection.execute(f"SET lock_timeout = {round(_PATIENCE_S * 1000)}")
            connection.execute(f"SET statement_timeout = {round(_PATIENCE_S * 3000)}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _begin(self, *, alone: bool) -> Iterator[psycopg.Cursor[Any]]:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            if alone:
                self._keep_others_out(cursor)
            yield cursor

    def _keep_others_out(self, cursor: psycopg.Cursor[Any]) -> None:
        """Lock the table that is there for it, or, as long as there is none, a number made of its name."""
        if Transaction(self, cursor).has_table(MUTEX):
            cursor.execute(f"LOCK TABLE {MUTEX} IN SHARE ROW EXCLUSIVE MODE")
        else:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (MUTEX,))

    def _failures(self) -> tuple[type[Exception], ...]:
        return (self._driver.Error, OSError)

    def _told(self, error: Exception) -> StoreUnusable:
        lines = self._location.scrub(str(error)).strip().splitlines()
        cause = " ".join(line.strip() for line in lines[:2]) or type(error).__name__
        errors = self._driver.errors
        if isinstance(error, errors.InsufficientPrivilege):
            hint = "Who owns the tables must let you: docs/history.md has the GRANT."
        elif isinstance(error, errors.LockNotAvailable | errors.QueryCanceled):
            hint = "Somebody keeps its tables locked: see pg_stat_activity, and try again."
        elif isinstance(error, self._driver.ProgrammingError) and not isinstance(error, errors.SyntaxError):
            cause = "the URL or the database is not as it should be: " + cause
            hint = "It is postgresql://USER@HOST/DATABASE."
        else:
            hint = f"Does 'psql {self.where}' work? {_ELSEWHERE}"
        return StoreUnusable(f"the history in {self.where} cannot be used: {cause}", hint)

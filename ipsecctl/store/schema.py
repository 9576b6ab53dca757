"""The tables, and how older ones become them. A migration only ever goes forward."""

from __future__ import annotations

from ipsecctl.errors import StoreUnusable
from ipsecctl.store.database import Database, Transaction

__all__ = ["MIGRATIONS", "make_ready"]

_FIRST = (
    """
    CREATE TABLE ipsecctl_store (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        version INTEGER NOT NULL
    )
    """,
    # Who is at work. A row goes when its process ends, or when it was not heard of for so long that its locks
    # are taken.
    """
    CREATE TABLE ipsecctl_session (
        id TEXT PRIMARY KEY,
        person TEXT NOT NULL,
        host TEXT NOT NULL,
        pid BIGINT NOT NULL,
        seat TEXT NOT NULL,
        started BIGINT,
        heard TEXT NOT NULL,
        lasts_s DOUBLE PRECISION NOT NULL,
        broken_by TEXT
    )
    """,
    """
    CREATE TABLE ipsecctl_lock (
        address TEXT PRIMARY KEY,
        gateway TEXT NOT NULL,
        session TEXT NOT NULL REFERENCES ipsecctl_session (id),
        since TEXT NOT NULL,
        topology TEXT NOT NULL
    )
    """,
    # Most applies have a topology that another one had, too.
    "CREATE TABLE ipsecctl_topology (sha256 TEXT PRIMARY KEY, content TEXT NOT NULL)",
    """
    CREATE TABLE ipsecctl_revision (
        number BIGINT PRIMARY KEY,
        session TEXT NOT NULL,
        began TEXT NOT NULL,
        ended TEXT,
        person TEXT NOT NULL,
        host TEXT NOT NULL,
        pid BIGINT NOT NULL,
        version TEXT NOT NULL,
        topology TEXT NOT NULL,
        file TEXT NOT NULL,
        sha256 TEXT NOT NULL REFERENCES ipsecctl_topology (sha256),
        message TEXT NOT NULL,
        lab TEXT NOT NULL,
        outcome TEXT NOT NULL,
        error TEXT NOT NULL,
        plan TEXT NOT NULL,
        tunnels TEXT NOT NULL
    )
    """,
    "CREATE INDEX ipsecctl_revision_topology ON ipsecctl_revision (topology, number)",
    "CREATE INDEX ipsecctl_revision_session ON ipsecctl_revision (session)",
    """
    CREATE TABLE ipsecctl_gateway (
        revision BIGINT NOT NULL REFERENCES ipsecctl_revision (number),
        name TEXT NOT NULL,
        outcome TEXT NOT NULL,
        changes BIGINT NOT NULL,
        took_s DOUBLE PRECISION,
        error TEXT NOT NULL,
        hint TEXT NOT NULL,
        PRIMARY KEY (revision, name)
    )
    """,
    "INSERT INTO ipsecctl_store (only_row, version) VALUES (1, 1)",
)

# `token` marks an apply that its gateways would go back from; `confirmation` says in words how that stands.
_SECOND = (
    "ALTER TABLE ipsecctl_revision ADD COLUMN token TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE ipsecctl_revision ADD COLUMN confirmation TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE ipsecctl_revision ADD COLUMN rollback_of BIGINT",
    "CREATE INDEX ipsecctl_revision_token ON ipsecctl_revision (token)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
"""The statements that make version 1 of nothing, 2 of 1, and so on; each step is done whole or not at all."""


def make_ready(database: Database) -> None:
    """Bring a database to the version of this program.

    Raises ``StoreUnusable`` when its tables are of a later version.
    """
    with database.transaction() as look:
        if _version(look, database) == len(MIGRATIONS):
            return
    with database.transaction(alone=True) as change:
        found = _version(change, database)  # another process may have been faster
        for version in range(found, len(MIGRATIONS)):
            for statement in MIGRATIONS[version]:
                change.run(statement)
            change.run("UPDATE ipsecctl_store SET version = ?", version + 1)


def _version(transaction: Transaction, database: Database) -> int:
    if not transaction.has_table("ipsecctl_store"):
        return 0
    version = int(transaction.run("SELECT version FROM ipsecctl_store")[0][0])
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"the history in {database.where} is of version {version}, and this ipsecctl knows it up to "
            f"{len(MIGRATIONS)}",
            "A later ipsecctl has written it: update this one.",
        )
    return version

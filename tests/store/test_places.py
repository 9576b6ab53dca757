"""Where the store is, what becomes of old and of newer ones, and what is said when it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ipsecctl.errors import StoreUnusable
from ipsecctl.store import Claim, Location, NewRevision, Outcome, Store, lab_location, location, schema
from ipsecctl.store.database import connect

HOME = {"HOME": "/home/alice"}


@pytest.mark.parametrize(
    ("said", "environment", "root", "file"),
    [
        (None, HOME, False, "/home/alice/.local/state/ipsecctl/history.db"),
        (None, HOME, True, "/var/lib/ipsecctl/history.db"),
        (None, {"XDG_STATE_HOME": "/state"}, False, "/state/ipsecctl/history.db"),
        (None, {"XDG_STATE_HOME": "/state"}, True, "/state/ipsecctl/history.db"),
        (None, HOME | {"XDG_STATE_HOME": "relative"}, False, "/home/alice/.local/state/ipsecctl/history.db"),
        (None, HOME | {"IPSECCTL_STORE": "sqlite:///srv/my%20db"}, False, "/srv/my db"),
        ("/srv/h.db", HOME | {"IPSECCTL_STORE": "/other"}, False, "/srv/h.db"),
        ("h.db", HOME, False, str(Path("h.db").absolute())),
        (None, HOME | {"IPSECCTL_STORE": " "}, True, "/var/lib/ipsecctl/history.db"),
    ],
)
def test_a_file_is_where_it_was_said(said, environment, root, file):
    where = location(said, environment, root=root)
    assert str(where) == str(where.file) == file


def test_labs_have_a_history_of_their_own():
    assert str(lab_location("clinic-dc", HOME, root=True)) == "/var/lib/ipsecctl/labs/clinic-dc.db"
    assert str(lab_location("../x", HOME, root=True)) == "/var/lib/ipsecctl/labs/..%2Fx.db"


@pytest.mark.parametrize("text", ["mysql://db/x", "sqlite://relative", "http://x"])
def test_what_is_no_store_is_refused(text):
    with pytest.raises(StoreUnusable, match="is not the URL of a store") as refused:
        location(text, {}, root=False)
    assert "postgresql://USER@HOST/DATABASE" in refused.value.hint


def test_without_a_home_it_says_what_to_say():
    with pytest.raises(StoreUnusable, match="HOME is not set") as refused:
        location(None, {}, root=False)
    assert "--store FILE" in refused.value.hint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://alice:s3cret@db/h", "postgresql://alice@db/h"),
        (
            "postgres://alice:s3cret@db:5432,db2/h?sslmode=require",
            "postgres://alice@db:5432,db2/h?sslmode=require",
        ),
        ("postgresql://alice@db/h", "postgresql://alice@db/h"),
        ("postgresql:///h?host=/run&password=s3cret&user=a", "postgresql:///h?host=/run&password=***&user=a"),
        ("postgresql://alice:s3cret/x@db/h", "postgresql://alice@db/h"),
        ("postgresql://alice:s3cret@x@db/h", "postgresql://alice@db/h"),
        ("postgresql://alice:s3cret#?@db/h?application_name=x", "postgresql://alice@db/h?application_name=x"),
        ("postgresql://db/h", "postgresql://db/h"),
    ],
)
def test_no_password_is_shown(url, shown):
    where = location(url, {}, root=False)
    assert str(where) == shown
    assert "s3cret" not in repr(where)
    assert where.has_password == ("s3cret" in url)
    assert "s3cret" not in where.scrub(f"could not connect with {url}")


def test_the_file_is_its_owners_alone(tmp_path):
    place = Location(tmp_path / "a" / "b" / "history.db")
    with Store(place) as store, store.session() as session:
        session.lock([Claim("a", "a")], "t")
    assert place.file.stat().st_mode & 0o777 == 0o600
    assert place.file.parent.stat().st_mode & 0o777 == 0o700


# ------------------------------------------------------------------------------- versions of the tables


def write(place, topology="t"):
    with Store(place) as store, store.session() as session:
        session.lock([Claim("a", "a")], topology)
        session.begin(NewRevision(topology, "/f", "text", {}, ()))
        session.end(Outcome.APPLIED)


PRESENT = len(schema.MIGRATIONS)
NEXT = ("ALTER TABLE ipsecctl_revision ADD COLUMN place TEXT NOT NULL DEFAULT 'here'",)


def test_what_an_older_version_wrote_is_brought_forward_and_kept(place, store, monkeypatch):
    write(place)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
    write(place, "u")
    assert [r.topology for r in store.revisions()] == ["u", "t"]
    database = connect(place)
    with database.transaction() as look:
        assert look.run("SELECT DISTINCT place FROM ipsecctl_revision") == [("here",)]
        assert look.run("SELECT version FROM ipsecctl_store") == [(PRESENT + 1,)]
    database.close()


def test_a_migration_that_fails_leaves_all_as_it_was(place, store, monkeypatch):
    write(place)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (*NEXT, "ALTER TABLE none ADD x TEXT")))
        with pytest.raises(StoreUnusable, match="none"):
            store.revisions()
    database = connect(place)
    with database.transaction() as look:
        assert look.run("SELECT version FROM ipsecctl_store") == [(PRESENT,)]
    database.close()
    assert [r.topology for r in store.revisions()] == ["t"]


def test_what_a_later_version_wrote_is_refused(place, store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
        write(place)
    for use in (store.revisions, store.locks, store.session, lambda: store.revision(1)):
        too_new = f"is of version {PRESENT + 1}, and this ipsecctl knows it up to {PRESENT}"
        with pytest.raises(StoreUnusable, match=too_new) as refused:
            use()
        assert refused.value.hint == "A later ipsecctl has written it: update this one."


# -------------------------------------------------------------------------------------- what goes wrong


def unusable(place):
    with pytest.raises(StoreUnusable) as refused, Store(place) as store:
        store.session()
    assert refused.value.exit_status == 3
    return refused.value


def test_a_file_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("no database, and long enough for that to be seen at once: " + 60 * "x")
    error = unusable(Location(tmp_path / "file"))
    assert "file is not a database" in error.summary
    assert "move it away" in error.hint
    error = unusable(Location(tmp_path / "file" / "history.db"))
    assert f"the history in {tmp_path}/file/history.db cannot be used: " in error.summary
    assert "--store FILE" in error.hint
    error = unusable(Location(tmp_path))
    assert "unable to open database file" in error.summary


def test_a_file_that_another_keeps_locked(tmp_path, monkeypatch):
    monkeypatch.setattr("ipsecctl.store.database._PATIENCE_S", 0.1)
    place = Location(tmp_path / "history.db")
    write(place)
    keeper = connect(place)
    locked = pytest.raises(StoreUnusable, match="database is locked")
    with keeper.transaction(alone=True), locked as refused:
        write(place)
    keeper.close()
    assert "fuser" in refused.value.hint


def test_a_server_that_is_not_there(tmp_path):
    pytest.importorskip("psycopg")
    error = unusable(Location(url=f"postgresql://alice:s3cret@/h?host={tmp_path}"))
    assert f"the history in postgresql://alice@/h?host={tmp_path} cannot be used: " in error.summary
    assert "connection" in error.summary
    assert "Does 'psql postgresql://alice@/h" in error.hint
    assert "--store FILE" in error.hint
    assert "s3cret" not in error.summary + error.hint


def test_a_url_that_is_none():
    error = unusable(Location(url="postgresql://alice:s3cret@db:notaport/h?nonsense=1"))
    assert "s3cret" not in error.summary + error.hint
    assert error.hint == "It is postgresql://USER@HOST/DATABASE."


def test_without_the_driver_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreUnusable, match="what talks to it is not installed") as refused:
        Store(Location(url="postgresql://alice@db/h"))
    assert refused.value.hint == "pip install 'ipsecctl[postgres]'"


def test_a_file_needs_no_driver_of_postgresql():
    script = (
        "import sys, ipsecctl.store.store as s; print('psycopg' in sys.modules, 'sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.postgres
@pytest.mark.xdist_group("postgres")
class TestServer:
    def test_a_database_that_is_not_there(self, server):
        error = unusable(Location(url=server.url("none")))
        assert 'database "none" does not exist' in error.summary

    def test_the_grants_of_the_documentation_are_what_a_colleague_needs(self, server):
        database = server.database()
        server.run("CREATE ROLE owner LOGIN", "CREATE ROLE colleague LOGIN")
        server.run(f"ALTER DATABASE {database} OWNER TO owner")
        theirs = Location(url=server.url(database, "colleague", "s3cret"))
        assert "permission denied for schema public" in unusable(theirs).summary
        write(Location(url=server.url(database, "owner")))
        error = unusable(theirs)
        assert "permission denied for table ipsecctl_" in error.summary
        assert "docs/history.md has the GRANT" in error.hint
        text = (Path(__file__).parents[2] / "docs" / "history.md").read_text()
        grants = [line.strip() for line in text.splitlines() if line.strip().startswith("GRANT ")]
        assert len(grants) == 1
        server.run(grants[0].replace("alice, bob", "colleague"), database=database, user="owner")
        write(theirs)

    def test_a_server_that_takes_no_more_writes(self, server):
        database = server.database()
        place = Location(url=server.url(database))
        write(place)
        server.run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        with pytest.raises(StoreUnusable, match="read-only transaction"):
            write(place)
        with Store(place) as store:
            assert len(store.revisions()) == 1, "it can still be read"

    def test_odd_settings_of_the_database_change_nothing(self, server):
        database = server.database()
        server.run(
            f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'",
            f"ALTER DATABASE {database} SET timezone = 'Asia/Kolkata'",
            f"ALTER DATABASE {database} SET datestyle = 'SQL, DMY'",
            f"ALTER DATABASE {database} SET standard_conforming_strings = off",
        )
        place = Location(url=server.url(database))
        write(place, "t'\\x")
        with Store(place) as store:
            assert store.revisions()[0].topology == "t'\\x"
            assert abs((store.revisions()[0].ended - store.revisions()[0].began).total_seconds()) < 60

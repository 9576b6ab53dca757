"""A store of each kind: a file, and a database of a real PostgreSQL server that the tests start."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.patience import PATIENCE
from ipsecctl.store import Location, Store

_GET = Path(__file__).parent / "get-postgres"
_NO_SERVER = f"""this test needs PostgreSQL's server, and initdb and postgres are not here. Get them, unpacked
and not installed: {_GET}. Tests that need none of it: make test-unit"""


@dataclass
class Server:
    """A PostgreSQL server on a socket in a folder of its own."""

    folder: Path
    programs: Path
    process: subprocess.Popen[bytes] | None = None
    names: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str, user: str = "ipsecctl", password: str = "") -> str:
        login = f"{user}:{password}" if password else user
        return f"postgresql://{login}@/{database}?host={self.folder}"

    def database(self) -> str:
        """Make an empty database and return its name."""
        name = f"test{next(self.names)}"
        self.run(f"CREATE DATABASE {name}")
        return name

    def run(self, *statements: str, database: str = "postgres", user: str = "ipsecctl") -> list[Any]:
        """Run statements as the superuser; return the rows of the last one."""
        import psycopg

        with psycopg.connect(self.url(database, user), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        argv = self._as_nobody("postgres", "-D", str(self.folder / "data"), *_OPTIONS, "-k", str(self.folder))
        log = self.folder / "log"
        with log.open("ab") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, env=self._environment(), cwd="/")
        deadline = time.monotonic() + 30 * PATIENCE
        while "ready to accept connections" not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    def stop(self, *, crash: bool = False) -> None:
        """End it at once, whoever is connected; with ``crash`` nothing is saved from memory."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self.process.wait(30 * PATIENCE)
            self.process = None
            (self.folder / "log").write_text("")

    def make(self) -> None:
        settings = ["-U", "ipsecctl", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        argv = self._as_nobody("initdb", "-D", str(self.folder / "data"), *settings)
        done = subprocess.run(
            argv, capture_output=True, text=True, env=self._environment(), cwd="/", check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _as_nobody(self, program: str, *arguments: str) -> list[str]:
        """Return a command that root runs without root's rights, and that ends with the tests."""
        who = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", *who, "--pdeathsig", "INT", str(self.programs / program), *arguments]

    def _environment(self) -> dict[str, str]:
        # Where the programs are unpacked, their libraries are as well.
        libraries = [str(folder) for folder in (self.programs.parents[3]).glob("lib/*-linux-gnu")]
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": ":".join(libraries)}


_OPTIONS = ("-c", "listen_addresses=", "-c", "fsync=off", "-c", "jit=off", "-c", "max_connections=40")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run a server; a test that stops it starts it again."""
    found = subprocess.run([_GET, "--find"], capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        pytest.fail(_NO_SERVER, pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="ipsecctl-pg-"))  # not pytest's: that is closed to all but root
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    made = Server(folder, Path(found))
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.stop(crash=True)
        shutil.rmtree(folder)


POSTGRES = (pytest.mark.postgres, pytest.mark.xdist_group("postgres"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=POSTGRES)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Where a store is going to be: there is nothing yet."""
    if request.param == "sqlite":
        return Location(tmp_path / "state" / "history.db")
    server: Server = request.getfixturevalue("server")
    return Location(url=server.url(server.database()))


@pytest.fixture
def store(place: Location) -> Iterator[Store]:
    with Store(place) as opened:
        yield opened

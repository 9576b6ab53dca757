"""The folder of a CA on disk: its lock, its journal, and files that are there whole or not at all."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ipsecctl.errors import PkiError
from ipsecctl.patience import PATIENCE
from ipsecctl.pki.keytypes import KeyType
from ipsecctl.pki.ledger import Ledger, Record, fold, lines_of, parse
from ipsecctl.pki.names import Constraints
from ipsecctl.pki.profiles import GATEWAY_DAYS, Addresses

__all__ = ["Folder", "Settings", "Writer", "create", "sync", "write_new", "write_whole"]

SCHEMA: Final = "ipsecctl/ca/1"
_SETTINGS: Final = "ca.json"
_JOURNAL: Final = "journal.jsonl"
_LOCK: Final = "lock"
_WAIT_S: Final = 10.0 * PATIENCE
_POLL_S: Final = 0.05
_FEW: Final = 8
"""Up to so many files are synced one by one; more are cheaper as a whole file system."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a CA was made with, and what holds for what it issues: the content of ``ca.json``.

    ``levels`` is 2 where a root stands above the CA that issues, 1 where the root issues. Days are those of
    gateways' certificates and of the CRLs.
    """

    name: str
    levels: int = 2
    gateway_key: KeyType = KeyType.ECDSA_P256
    gateway_days: float = GATEWAY_DAYS
    crl_days: float = 30
    addresses: Addresses = field(default_factory=Addresses)
    constraints: Constraints = field(default_factory=Constraints)
    recipients: tuple[str, ...] = ()

    @property
    def issuer_kind(self) -> str:
        return "issuing" if self.levels > 1 else "root"

    def as_json(self) -> dict[str, Any]:
        addresses, constraints = self.addresses, self.constraints
        return {
            "schema": SCHEMA,
            "name": self.name,
            "levels": self.levels,
            "gateway_key": self.gateway_key,
            "gateway_days": self.gateway_days,
            "crl_days": self.crl_days,
            "addresses": {"crl": addresses.crl, "ocsp": addresses.ocsp, "issuer": addresses.issuer},
            "permitted": list(constraints.permitted),
            "excluded": list(constraints.excluded),
            "recipients": list(self.recipients),
        }


class Folder:
    """A CA's folder. Reading needs no lock: records are whole lines, files are whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def key(self, authority: str) -> Path:
        return self.path / "keys" / f"{authority}.key"

    def crl(self, authority: str) -> Path:
        return self.path / "crl" / f"{authority}.crl"

    def settings(self) -> Settings:
        """Return what stands in ``ca.json``. Raises ``PkiError`` where there is none."""
        file = self.path / _SETTINGS
        try:
            text = file.read_text(encoding="utf-8")
            mode = stat.S_IMODE(self.path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            hint = "make one with 'ipsecctl pki init', or name its folder with --ca or IPSECCTL_CA"
            raise PkiError(f"there is no CA in {self.path}", hint) from None
        except (OSError, UnicodeDecodeError) as error:
            raise PkiError(f"cannot read {file}: {error}", "it is of the user who made the CA") from None
        if mode & 0o077:
            hint = f"chmod 700 {self.path}; keys in it are encrypted, its journal is not"
            raise PkiError(f"{self.path} is open to others (mode {mode:04o})", hint)
        try:
            return _settings(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PkiError(f"{file} is damaged", "bring it back from a backup") from None

    def ledger(self) -> Ledger:
        """Return what the journal says."""
        return self._read()[0]

    def _read(self) -> tuple[Ledger, int, int]:
        """Return the ledger, the bytes of whole records, and the bytes of the file."""
        file = self.path / _JOURNAL
        try:
            content = file.read_bytes()
        except OSError as error:
            raise PkiError(f"cannot read {file}: {error.strerror}", "bring it back from a backup") from None
        records, size = parse(content, str(file))
        return fold(records, str(file)), size, len(content)

    @contextmanager
    def changing(self) -> Iterator[Writer]:
        """Hold the lock, and yield what can write. Raises ``PkiError`` when somebody else keeps it."""
        self.settings()
        with _locked(self.path / _LOCK):
            ledger, whole, size = self._read()
            with (self.path / _JOURNAL).open("r+b") as file:
                if whole < size:
                    file.truncate(whole)
                file.seek(whole)
                yield Writer(self, ledger, file.fileno())


class Writer:
    """Appends to the journal of a CA whose lock is held; ``ledger`` is what it says by now."""

    def __init__(self, folder: Folder, ledger: Ledger, descriptor: int) -> None:
        self.folder = folder
        self.ledger = ledger
        self._descriptor = descriptor

    def append(self, records: Sequence[Record]) -> None:
        """Write records; they are on the disk when this returns."""
        if not records:
            return
        _write_all(self._descriptor, lines_of(records, self.ledger.records + 1))
        os.fsync(self._descriptor)
        self.ledger = fold(records, str(self.folder.path / _JOURNAL), self.ledger)


def create(path: Path, settings: Settings, files: dict[str, bytes], records: Sequence[Record]) -> None:
    """Make the folder of a new CA: whole or not at all.

    ``files`` are by their name in the folder. It is filled beside its place and renamed; what an init that
    was cut off has left there is removed. Raises ``PkiError`` where something is in its place.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link stays one
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise PkiError(f"{path} is there already", "name another folder with --ca; nothing is overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_remains(path)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.new-", dir=path.parent))
    try:
        with _locked(draft / _LOCK):
            content = {**files, _JOURNAL: lines_of(records, 1)}
            content[_SETTINGS] = json.dumps(settings.as_json(), indent=2).encode() + b"\n"
            for name, data in content.items():
                file = draft / name
                file.parent.mkdir(mode=0o700, exist_ok=True)
                write_new(file, data, 0o600)
            sync([draft / name for name in content])
            draft.rename(path)
            _sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _remove_remains(path: Path) -> None:
    """Remove what an init that was cut off has left; one that is at work holds its lock."""
    for draft in path.parent.glob(f".{path.name}.new-*"):
        with suppress(PkiError, OSError), _locked(draft / _LOCK, wait_s=0):
            shutil.rmtree(draft)


def _settings(values: dict[str, Any]) -> Settings:
    if values["schema"] != SCHEMA:
        raise ValueError
    return Settings(
        name=values["name"],
        levels=values["levels"],
        gateway_key=KeyType(values["gateway_key"]),
        gateway_days=values["gateway_days"],
        crl_days=values["crl_days"],
        addresses=Addresses(**values["addresses"]),
        constraints=Constraints(tuple(values["permitted"]), tuple(values["excluded"])),
        recipients=tuple(values["recipients"]),
    )


@contextmanager
def _locked(file: Path, wait_s: float | None = None) -> Iterator[None]:
    """Hold a lock that ends with this process, whatever ends it."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PkiError(f"cannot open {file}: {error.strerror}", "it is of the user who made the CA") from None
    try:
        until = time.monotonic() + (_WAIT_S if wait_s is None else wait_s)
        while not _taken(descriptor):
            if time.monotonic() >= until:
                raise PkiError(f"somebody else is at work with the CA in {file.parent}", "try again later")
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_new(file: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; it has its mode from the first byte on. It is not synced."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def write_whole(file: Path, content: bytes, mode: int) -> None:
    """Put a file in its place whole, in the place of one that is there; it is not synced.

    Its draft always has the same name: one that a cut has left goes when the file is put there again.
    """
    draft = file.with_name(f".{file.name}.new")
    try:
        draft.unlink(missing_ok=True)
        write_new(draft, content, mode)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sync(files: Sequence[Path]) -> None:
    """See to it that files, and their names in their directories, are on the disk."""
    directories = {file.parent for file in files}
    if len(files) > _FEW and all(_sync_file_system(directory) for directory in _one_each(directories)):
        return
    for file in files:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for directory in directories:
        _sync_directory(directory)


def _one_each(directories: Iterable[Path]) -> Iterable[Path]:
    """Return one directory of each file system."""
    return {directory.stat().st_dev: directory for directory in directories}.values()


def _sync_file_system(directory: Path) -> bool:
    """Write all of a file system to its disk (syncfs(2)); return whether that can be done."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return bool(call(descriptor) == 0)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def remove(files: Iterable[Path]) -> None:
    """Remove files, those that are there."""
    for file in files:
        file.unlink(missing_ok=True)


def seconds(now: datetime) -> int:
    """Return the least number of a CRL that is made now: one from a restored folder still counts upwards."""
    return int(now.timestamp())

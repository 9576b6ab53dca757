"""Cut off at every step: no orphan key, no serial number twice, nothing half in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from small_ca import NOW, PASSPHRASE, Ca, topology_text

from ipsecctl.errors import PkiError
from ipsecctl.pki import delivery, folder
from ipsecctl.pki.folder import Writer
from ipsecctl.pki.keytypes import public_der


class Killed(BaseException):
    """What no handler of ours catches to go on."""


# What touches the disk while certificates are issued, in the modules where it is called from.
STEPS = (
    (Writer, "append"),
    (delivery, "sync"),
    (delivery, "write_new"),
    (delivery, "write_whole"),
    (Path, "hardlink_to"),
    (Path, "replace"),
    (Path, "unlink"),
)


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what has the n-th step be the last, before it is done or just after; nothing tidies up then."""

    def arm(number: int, *, after: bool) -> list[int]:
        count = [0]

        def wrap(step: Any) -> Any:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                count[0] += 1
                is_the_one = count[0] == number
                if is_the_one and not after:
                    raise Killed
                done = step(*args, **kwargs)
                if is_the_one:
                    raise Killed
                return done

            return wrapped

        def no_mending(*_: Any) -> tuple[str, ...]:
            raise OSError("a process that was killed mends nothing")

        for owner, name in STEPS:
            monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
        monkeypatch.setattr(delivery, "mend", no_mending)
        return count

    yield arm


def is_whole(ca: Ca, names: set[str]) -> None:
    """Fail unless each gateway has a key and its certificate, or neither, and nothing else is there."""
    for name in names:
        key, certificate = ca.base / "pki" / f"{name}.key", ca.base / "pki" / f"{name}.pem"
        assert key.exists() == certificate.exists(), name
        if key.exists():
            held = load_pem_private_key(key.read_bytes(), None).public_key()
            assert public_der(held) == public_der(ca.certificate(name).public_key()), name
            assert key.stat().st_mode & 0o777 == 0o600
    right = {f"{name}.{end}" for name in names for end in ("pem", "key")} | {"root.pem", "issuing.pem"}
    assert ca.left() <= right


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("again", [False, True], ids=["issue", "replace"])
def test_issuing_cut_off_at_every_step(
    ca: Ca, killed_at: Any, monkeypatch: pytest.MonkeyPatch, after: bool, again: bool
) -> None:
    """Each time the next command carries on or clears away, and then issues what is missing."""
    number, serials = 1, set(ca.ledger.entries)
    before = {}
    while True:
        if again:
            ca.issue()
            before = {name: ca.certificate(name).serial_number for name in ("a", "b", "dc")}
        count = killed_at(number, after=after)
        try:
            ca.issue(again=again)
        except Killed:
            cut_off = True
        else:
            cut_off = False
        monkeypatch.undo()
        assert set(ca.ledger.entries) >= serials, "a serial number is never forgotten"
        made = ca.issue()
        is_whole(ca, {"a", "b", "dc"})
        assert not ca.ledger.under_way()
        assert {ca.certificate(name).serial_number for name in ("a", "b", "dc")} <= {
            entry.serial for entry in ca.ledger.current()
        }
        if not again:
            assert ca.issue().entries == ()
        serials = set(ca.ledger.entries)
        if not cut_off:
            assert made.mended == ()
            assert number > 10, "there are more steps than that"
            assert count[0] == number - 1
            break
        for path in (ca.base / "pki").iterdir():
            path.unlink()
        assert before == {} or again
        number += 1


def test_a_failure_is_cleared_away_at_once(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the next command: this one, if it still can."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delivery, "end_certificate", full)
    with pytest.raises(OSError, match="No space"):
        ca.issue()
    assert ca.left() == set()
    assert not ca.ledger.under_way()
    assert all(entry.abandoned for entry in ca.ledger.entries.values() if entry.name in {"a", "b", "dc"})


def test_a_key_that_is_gone_has_its_certificate_revoked(ca: Ca, killed_at: Any, monkeypatch: Any) -> None:
    killed_at(6, after=True)  # the certificates are in the journal, and the keys still drafts
    with pytest.raises(Killed):
        ca.issue()
    monkeypatch.undo()
    drafts = [path for path in (ca.base / "pki").iterdir() if path.suffix == ".new"]
    assert len(drafts) == 3
    drafts[0].unlink()
    made = ca.issue()
    assert sum("is revoked" in said for said in made.mended) == 1
    assert sum("now it is" in said for said in made.mended) == 2
    assert len([entry for entry in ca.ledger.issued() if entry.revoked]) == 1
    is_whole(ca, {"a", "b", "dc"})


def test_what_came_in_between_is_not_overwritten(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody puts a key into the place while ours is being made."""
    real = delivery.end_certificate

    def slow(*args: Any, **kwargs: Any) -> Any:
        (ca.base / "pki" / "a.key").write_text("precious")
        return real(*args, **kwargs)

    monkeypatch.setattr(delivery, "end_certificate", slow)
    with pytest.raises(PkiError, match=r"a\.key is somebody else's"):
        ca.issue("a")
    assert (ca.base / "pki" / "a.key").read_text() == "precious"
    assert ca.left() == {"a.key"}
    assert [entry.reason for entry in ca.ledger.issued() if entry.name == "a"] == ["cessation-of-operation"]


def test_the_last_line_cut_off_is_no_record(ca: Ca) -> None:
    journal = ca.folder.path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"n":9,"at":"2030-01')
    records = ca.ledger.records
    ca.issue("a")
    assert ca.ledger.records == records + 3
    assert journal.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b'"n":2', b'"n":3', r"jsonl:2: this line has the number 3"),
        (b'"do":"issue"', b'"do":"issu', r"jsonl:2: this line is damaged"),
        (b'"do":"issue"', b'"do":"forget"', r"'forget', which is not known here"),
    ],
)
def test_a_damaged_journal_is_refused(ca: Ca, old: bytes, new: bytes, complaint: str) -> None:
    journal = ca.folder.path / "journal.jsonl"
    damaged = journal.read_bytes().replace(old, new, 1)
    journal.write_bytes(damaged)
    with pytest.raises(PkiError, match=complaint):
        ca.issue("a")
    assert journal.read_bytes() == damaged
    assert ca.left() == set()


def test_a_serial_number_twice_is_refused(ca: Ca) -> None:
    journal = ca.folder.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    again = lines[0].replace(b'"n":1', f'"n":{len(lines) + 1}'.encode())
    journal.write_bytes(b"".join(lines) + again)
    with pytest.raises(PkiError, match="has a serial number for the second time"):
        _ = ca.ledger


def test_two_at_once_wait_for_each_other(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_WAIT_S", 0.0)
    with ca.folder.changing(), pytest.raises(PkiError, match="somebody else is at work"):
        folder.Folder(ca.folder.path).changing().__enter__()
    ca.issue("a")


def test_what_an_init_that_was_cut_off_has_left_is_removed(
    make_ca: Callable[..., Ca], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = folder.sync

    def killed(files: Any) -> None:
        real(files)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(folder, "sync", killed)
        patch.setattr(folder.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            make_ca()
    assert not (tmp_path / "ca").exists()
    (remains,) = tmp_path.glob(".ca.new-*")
    assert (remains / "keys" / "root-1.key").exists()
    make_ca()
    assert not list(tmp_path.glob(".ca.new-*"))
    assert (tmp_path / "ca" / "keys" / "root-1.key").exists()


def test_what_a_cut_has_left_of_a_file_goes_with_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        folder.write_whole(tmp_path / "a.pem", b"half", 0o644)
    assert [path.name for path in tmp_path.iterdir()] == [".a.pem.new"]
    folder.write_whole(tmp_path / "a.pem", b"whole", 0o644)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.pem", b"whole")]


@pytest.mark.slow
def test_killed_for_real(ca: Ca, tmp_path: Path) -> None:
    """SIGKILL at any moment of issuing again and again."""
    (tmp_path / "clinics.yaml").write_text(topology_text())
    environment = {**os.environ, "IPSECCTL_CA_PASSPHRASE": PASSPHRASE, "PYTHONUNBUFFERED": "1"}
    script = (
        "import sys; from datetime import datetime, UTC; from pathlib import Path\n"
        f"sys.path[:0] = {[str(Path(__file__).parent / 'shared')]!r}\n"
        "from small_ca import NOW, Ca; from ipsecctl.pki.folder import Folder\n"
        "ca = Ca(Path('.'), Folder(Path('ca'))); print('begun')\n"
        "while True: ca.issue(again=True)\n"
    )
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(0.15 + 0.07 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        ca.issue(now=NOW)
        is_whole(ca, {"a", "b", "dc"})
        assert not ca.ledger.under_way()

"""Age-encrypted files: edited in memory, encrypted to the same recipients, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyrage
import pytest
from typer.testing import CliRunner

from ipsecctl.cli.secret import app
from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import IDENTITY_VARIABLE, Secret, generate_psk
from ipsecctl.secrets.editing import edited
from ipsecctl.secrets.sealing import RECIPIENTS, add_recipient, recipients_of, seal, unsealed

PSK = generate_psk().encode()


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path / "identity.txt"
    path.write_text(f"{identity}\n")
    path.chmod(0o600)
    monkeypatch.setenv(IDENTITY_VARIABLE, str(path))
    return identity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    made.mkdir()
    return made


def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = tmp_path / "editor.sh"
    script.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/was\n{body}\n')
    script.chmod(0o700)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(script))


def is_left(tmp_path: Path) -> bool:
    """Whether the folder in which the editor's file was is still there."""
    return Path((tmp_path / "was").read_text().strip()).parent.exists()


def opens(identity: Any, path: Path) -> bytes:
    return bytes(pyrage.decrypt(path.read_bytes(), [identity]))


def test_a_file_that_is_edited_keeps_its_recipients(
    mine: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = pyrage.x25519.Identity.generate()
    file, seen = folder / "partner.age", tmp_path / "seen"
    (folder / RECIPIENTS).write_text(f"# the team\n{mine.to_public()}\n{other.to_public()}\n")
    seal(Secret(PSK), file, recipients_of(file))
    look = f'stat -c %a "$1" >{seen}; stat -f -c %T "$1" >>{seen}'
    editor(tmp_path, monkeypatch, f'{look}; echo + >>"$1"')
    done = CliRunner().invoke(app, ["edit", str(file)])
    assert done.exit_code == 0, done.output
    assert seen.read_text().split() == ["600", "tmpfs"]
    assert opens(mine, file) == opens(other, file) == PSK + b"+\n"
    assert not is_left(tmp_path)


def test_nothing_is_written_where_nothing_was_changed(
    mine: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "partner.age"
    seal(Secret(PSK), file, [str(mine.to_public())])
    before = file.read_bytes()
    editor(tmp_path, monkeypatch, "true")
    assert CliRunner().invoke(app, ["edit", str(file)]).exit_code == 0
    assert file.read_bytes() == before


@pytest.mark.parametrize("body", ["echo other >$1; exit 1", "rm $1", "kill -9 $$"])
def test_an_editor_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    editor(tmp_path, monkeypatch, body)
    with pytest.raises(SecretUnavailable, match="the editor") as refused:
        edited(Secret(PSK), "x")
    assert PSK.decode() not in str(refused.value)
    assert not is_left(tmp_path)


def test_a_new_file_is_for_its_maker(
    mine: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, f"echo {PSK.decode()} >$1")
    assert CliRunner().invoke(app, ["edit", str(folder / "new.age")]).exit_code == 0
    assert opens(mine, folder / "new.age") == PSK + b"\n"


def test_one_more_reads_all_of_a_folder(mine: Any, folder: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    for name in ("a", "b"):
        seal(Secret(PSK + name.encode()), folder / f"{name}.age", [str(mine.to_public())])
    done = CliRunner().invoke(app, ["add-recipient", str(other.to_public()), str(folder)])
    assert done.exit_code == 0, done.output
    for name in ("a", "b"):
        file = folder / f"{name}.age"
        assert opens(other, file) == opens(mine, file) == PSK + name.encode()
    listed = (folder / RECIPIENTS).read_text().split()
    assert sorted(listed) == sorted([str(mine.to_public()), str(other.to_public())])
    assert sorted(path.name for path in folder.iterdir()) == [RECIPIENTS, "a.age", "b.age"]
    add_recipient(folder, str(other.to_public()))
    assert (folder / RECIPIENTS).read_text().split() == listed


def test_where_one_cannot_be_opened_nothing_is_changed(mine: Any, folder: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    seal(Secret(PSK), folder / "a.age", [str(mine.to_public())])
    seal(Secret(PSK), folder / "b.age", [str(other.to_public())])
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SecretUnavailable, match="cannot be decrypted"):
        add_recipient(folder, str(other.to_public()))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_disk_that_is_full_leaves_what_was_there(
    mine: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "a.age"
    seal(Secret(PSK), file, [str(mine.to_public())])
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SecretUnavailable, match="No space left"):
        seal(Secret(PSK + b"2"), file, [str(mine.to_public())])
    assert [path.name for path in folder.iterdir()] == ["a.age"]
    assert file.read_bytes() == before


def test_recipients_that_nobody_names_are_not_lost(mine: Any, folder: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    file = folder / "a.age"
    file.write_bytes(pyrage.encrypt(PSK, [mine.to_public(), other.to_public()]))
    with pytest.raises(SecretUnavailable, match="has 2 recipients, and only you are known") as refused:
        recipients_of(file)
    assert RECIPIENTS in refused.value.hint
    assert bytes(unsealed(file)) == PSK


@pytest.mark.parametrize("line", ["age1nonsense", "ssh-ed25519 AAAA", "bob@example.org", "{identity}"])
def test_what_is_no_recipient_is_refused(mine: Any, folder: Path, line: str) -> None:
    seal(Secret(PSK), folder / "a.age", [str(mine.to_public())])
    with pytest.raises(SecretUnavailable, match="not an age recipient") as refused:
        add_recipient(folder, line.format(identity=mine))
    assert str(mine)[20:] not in f"{refused.value.summary}{refused.value.hint}"
    assert not (folder / RECIPIENTS).exists()


def test_a_folder_without_age_files(mine: Any, folder: Path) -> None:
    with pytest.raises(SecretUnavailable, match="no age file"):
        add_recipient(folder, str(mine.to_public()))

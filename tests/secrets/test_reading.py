"""Resolving references: what is read, and what is refused and why."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pyrage
import pytest

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import IDENTITY_VARIABLE, generate_psk, read
from ipsecctl.topology import SecretKind, SecretRef

PSK = "TJpoE2mV1-Qw9sXhZ4rKbyUcLd7FgNa3"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def file_ref(name: str = "psk") -> SecretRef:
    return SecretRef(SecretKind.FILE, name)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_file_without_its_line_end(tmp_path: Path, ending: bytes) -> None:
    write(tmp_path / "deep/psk", PSK.encode() + ending)
    assert bytes(read(file_ref("deep/psk"), tmp_path)) == PSK.encode()


def test_spaces_and_letters_of_all_alphabets_stay(tmp_path: Path) -> None:
    write(tmp_path / "psk", " Schlüssel für Łódź ☃ ".encode())
    assert bytes(read(file_ref(), tmp_path)) == " Schlüssel für Łódź ☃ ".encode()


def test_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSK_a-b", PSK)
    assert bytes(read(SecretRef(SecretKind.ENV, "PSK_a-b"), tmp_path)) == PSK.encode()


@pytest.mark.parametrize(
    "key", [b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", b"\x30\x82\x01\x0a\n"]
)
def test_a_private_key_is_left_as_it_is(tmp_path: Path, key: bytes) -> None:
    write(tmp_path / "key", key)
    assert bytes(read(file_ref("key"), tmp_path)) == key


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "psk", PSK.encode(), mode)
    with pytest.raises(SecretUnavailable, match=f"mode {mode:04o}") as caught:
        read(file_ref(), tmp_path)
    assert caught.value.code == "IP302"
    assert "chmod 600" in caught.value.hint
    assert PSK not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused_unless_it_is_sudos_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "psk", PSK.encode())
    os.chown(tmp_path / "psk", 12345, -1)
    monkeypatch.delenv("SUDO_UID", raising=False)
    with pytest.raises(SecretUnavailable, match="another user"):
        read(file_ref(), tmp_path)
    monkeypatch.setenv("SUDO_UID", "12345")
    assert bytes(read(file_ref(), tmp_path)) == PSK.encode()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"two\nlines\n", "control characters"),
        (b"twice\n\n", "control characters"),
        (b"nul\0l", "control characters"),
        (b"tab\there", "control characters"),
        ("line\u2028separator".encode(), "control characters"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"\xef\xbb\xbfPZk3w8mVQ1tYx7Lr5HcN9bDfJ2sG6aKe\n", "byte order mark"),
        (b"0x0123456789abcdef", "0x or 0s"),
        (b"0Sabcdef", "0x or 0s"),
    ],
)
def test_what_charon_would_not_take_as_it_stands_is_refused(
    tmp_path: Path, content: bytes, what: str
) -> None:
    write(tmp_path / "psk", content)
    with pytest.raises(SecretUnavailable, match=what) as caught:
        read(file_ref(), tmp_path)
    assert caught.value.code == "IP303"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("ref", [file_ref("no/where"), SecretRef(SecretKind.ENV, "IPSECCTL_TEST_NOT_SET")])
def test_what_is_not_there(tmp_path: Path, ref: SecretRef) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        read(ref, tmp_path)
    assert caught.value.code == "IP301"
    assert ref.value in caught.value.summary


def test_neither_a_directory_nor_a_pipe_is_a_secret(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(SecretUnavailable):
            read(file_ref(name), tmp_path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "psk", b"x" * ((1 << 20) + 1))
    with pytest.raises(SecretUnavailable, match="too large"):
        read(file_ref(), tmp_path)


class TestAge:
    ref = SecretRef(SecretKind.AGE, "psk.age")

    @pytest.fixture
    def identity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pyrage.x25519.Identity:
        identity = pyrage.x25519.Identity.generate()
        write(tmp_path / "identity.txt", f"# created: today\n{identity}\n".encode())
        monkeypatch.setenv(IDENTITY_VARIABLE, str(tmp_path / "identity.txt"))
        return identity

    @pytest.mark.parametrize("armored", [False, True])
    def test_a_sealed_file_may_be_readable_by_all(
        self, tmp_path: Path, identity: pyrage.x25519.Identity, armored: bool
    ) -> None:
        sealed = pyrage.encrypt(PSK.encode() + b"\n", [identity.to_public()], armored=armored)
        write(tmp_path / "psk.age", sealed, 0o644)
        assert bytes(read(self.ref, tmp_path)) == PSK.encode()

    def test_sealed_to_another(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
        other = pyrage.x25519.Identity.generate()
        write(tmp_path / "psk.age", pyrage.encrypt(PSK.encode(), [other.to_public()]))
        with pytest.raises(SecretUnavailable, match="cannot be decrypted") as caught:
            read(self.ref, tmp_path)
        assert caught.value.code == "IP304"
        assert IDENTITY_VARIABLE in caught.value.hint

    def test_not_an_age_file(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
        write(tmp_path / "psk.age", PSK.encode())
        with pytest.raises(SecretUnavailable, match="cannot be decrypted"):
            read(self.ref, tmp_path)

    def test_no_sealed_file(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
        with pytest.raises(SecretUnavailable, match="no such file"):
            read(self.ref, tmp_path)

    def test_no_identity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(IDENTITY_VARIABLE, str(tmp_path / "none"))
        write(tmp_path / "psk.age", b"age")
        with pytest.raises(SecretUnavailable, match="no age identity") as caught:
            read(self.ref, tmp_path)
        assert caught.value.code == "IP304"

    def test_an_identity_that_others_can_read_is_refused(
        self, tmp_path: Path, identity: pyrage.x25519.Identity
    ) -> None:
        (tmp_path / "identity.txt").chmod(0o644)
        write(tmp_path / "psk.age", pyrage.encrypt(PSK.encode(), [identity.to_public()]))
        with pytest.raises(SecretUnavailable, match="mode 0644"):
            read(self.ref, tmp_path)

    @pytest.mark.parametrize("content", [b"", b"# nothing\n", b"AGE-SECRET-KEY-1WRONG\n", b"\xff"])
    def test_a_file_that_holds_no_identity(
        self, tmp_path: Path, identity: pyrage.x25519.Identity, content: bytes
    ) -> None:
        write(tmp_path / "identity.txt", content)
        write(tmp_path / "psk.age", pyrage.encrypt(PSK.encode(), [identity.to_public()]))
        with pytest.raises(SecretUnavailable, match="not an age identity") as caught:
            read(self.ref, tmp_path)
        assert "WRONG" not in str(caught.value)


def test_generated_psks_are_read_back_as_they_are(tmp_path: Path) -> None:
    psks = {generate_psk() for _ in range(50)}
    assert len(psks) == 50
    for psk in psks:
        write(tmp_path / "psk", psk.encode())
        assert bytes(read(file_ref(), tmp_path)).decode() == psk
        assert len(psk) == 43


@pytest.mark.parametrize("mode", [0o777, 0o703])
def test_a_file_that_anybody_could_replace_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "open/psk", PSK.encode())
    (tmp_path / "open").chmod(mode)
    with pytest.raises(SecretUnavailable, match=f"anybody may replace it: .*open, mode {mode:04o}") as caught:
        read(file_ref("open/psk"), tmp_path)
    assert (caught.value.code, "chmod o-w" in caught.value.hint) == ("IP302", True)
    (tmp_path / "open").chmod(0o1777)  # as /tmp: only a file's owner may
    assert bytes(read(file_ref("open/psk"), tmp_path)) == PSK.encode()


@pytest.mark.parametrize("opened", ["of the link", "of the file"])
def test_neither_a_link_nor_what_it_leads_to_may_be_replaced(tmp_path: Path, opened: str) -> None:
    write(tmp_path / "of the file/psk", PSK.encode())
    (tmp_path / "of the link").mkdir()
    (tmp_path / "of the link/psk").symlink_to(tmp_path / "of the file/psk")
    assert bytes(read(file_ref("of the link/psk"), tmp_path)) == PSK.encode()
    (tmp_path / opened).chmod(0o777)
    with pytest.raises(SecretUnavailable, match=f"{opened}, mode 0777"):
        read(file_ref("of the link/psk"), tmp_path)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_who_may_write_further_up_may_replace_the_folder(tmp_path: Path, depth: int) -> None:
    write(tmp_path / "a/b/c/psk", PSK.encode())
    opened = (tmp_path / "a/b/c", tmp_path / "a/b", tmp_path / "a")[depth]
    opened.chmod(0o777)
    with pytest.raises(SecretUnavailable, match=rf"anybody may replace it: .*\({opened}, mode 0777\)"):
        read(file_ref("a/b/c/psk"), tmp_path)
    opened.chmod(0o1777)
    assert bytes(read(file_ref("a/b/c/psk"), tmp_path)) == PSK.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_who_owns_a_folder_further_up_may_replace_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a/b/psk", PSK.encode())
    os.chown(tmp_path / "a", 12345, -1)
    with pytest.raises(SecretUnavailable, match=rf"another user.*\({tmp_path}/a, uid 12345\)") as caught:
        read(file_ref("a/b/psk"), tmp_path)
    assert (caught.value.code, "belong to you or to root" in caught.value.hint) == ("IP302", True)
    monkeypatch.setenv("SUDO_UID", "12345")  # who called sudo is trusted
    assert bytes(read(file_ref("a/b/psk"), tmp_path)) == PSK.encode()


def test_a_socket_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its name may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("psk")
        with pytest.raises(SecretUnavailable, match="not a regular file: file:psk") as caught:
            read(file_ref(), tmp_path)
    assert (caught.value.code, "plain file" in caught.value.hint) == ("IP303", True)


def test_links_that_lead_in_a_circle_are_nobodys_to_give(tmp_path: Path) -> None:
    (tmp_path / "psk").symlink_to("other")
    (tmp_path / "other").symlink_to("psk")
    with pytest.raises(SecretUnavailable, match="links that lead in a circle: file:psk") as caught:
        read(file_ref(), tmp_path)
    assert (caught.value.code, "remove one of them" in caught.value.hint) == ("IP303", True)


def test_an_empty_variable_gets_no_hint_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSK", "")
    with pytest.raises(SecretUnavailable, match="empty: env:PSK") as caught:
        read(SecretRef(SecretKind.ENV, "PSK"), tmp_path)
    assert "export it" in caught.value.hint

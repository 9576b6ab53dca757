"""A CA's keys on the disk: encrypted so that others can open them, and nobody without the passphrase."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from small_ca import NOW, PASSPHRASE, Ca, no_passphrase, passphrase

from ipsecctl.errors import IpsecctlError, PkiError
from ipsecctl.pki import sealing
from ipsecctl.pki.authority import NewAuthority, init, make_crl
from ipsecctl.pki.folder import Folder, Settings
from ipsecctl.pki.keytypes import KeyType, key_pem, make_key, public_der
from ipsecctl.secrets import IDENTITY_VARIABLE, Secret

SLOW = {"_N": sealing._N, "_P": sealing._P}  # as they are before any test has made them quick


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KeyType))
def test_openssl_opens_it_and_so_do_we(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: KeyType
) -> None:
    for name, value in SLOW.items():
        monkeypatch.setattr(sealing, name, value)
    key = make_key(kind)
    sealed = sealing.seal(key, passphrase(""))
    (tmp_path / "k.pem").write_bytes(sealed)
    command = [
        "openssl",
        "pkey",
        "-in",
        str(tmp_path / "k.pem"),
        "-pubout",
        "-outform",
        "DER",
        "-passin",
        "stdin",
    ]
    done = subprocess.run(command, input=PASSPHRASE.encode() + b"\n", capture_output=True, check=True)
    assert done.stdout == public_der(key.public_key())
    again = sealing.unsealed(sealed, passphrase(""), "k.pem")
    assert public_der(again.public_key()) == done.stdout
    assert key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) not in sealed


def test_guessing_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLOW.items():
        monkeypatch.setattr(sealing, name, value)
    sealed = sealing.seal(make_key(KeyType.ED25519), passphrase(""))
    asn1 = subprocess.run(
        ["openssl", "asn1parse"], input=sealed, capture_output=True, check=True
    ).stdout.decode()
    numbers = [int(line.rpartition(":")[2], 16) for line in asn1.splitlines() if "INTEGER" in line]
    assert "scrypt" in asn1 and "aes-256-cbc" in asn1
    assert numbers == [2**14, 8, 5]


def test_the_same_key_never_looks_the_same() -> None:
    key = make_key(KeyType.ED25519)
    assert sealing.seal(key, passphrase("")) != sealing.seal(key, passphrase(""))


@pytest.mark.parametrize(
    ("change", "given", "complaint"),
    [
        (lambda c: c, "another passphrase", "the passphrase does not open k.pem"),
        (lambda c: c[: len(c) // 2], PASSPHRASE, "k.pem is cut off: it has no END line"),
        (lambda c: c[:80] + b"AAAA" + c[84:], PASSPHRASE, "does not open k.pem, or the file is damaged"),
        (lambda _: b"nothing", PASSPHRASE, "k.pem is not a private key"),
    ],
)
def test_what_cannot_be_opened(change: Any, given: str, complaint: str) -> None:
    sealed = change(sealing.seal(make_key(KeyType.ECDSA_P384), passphrase("")))
    with pytest.raises(PkiError, match=complaint):
        sealing.unsealed(sealed, Secret(given.encode()), "k.pem")


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(PkiError, match="fewer than 12 characters"):
        sealing.seal(make_key(KeyType.ED25519), Secret(b"hunter2"))


def test_age_recipients_open_it_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age: Any = importlib.import_module("pyrage").x25519
    identities = [age.Identity.generate(), age.Identity.generate()]
    to = [str(identity.to_public()) for identity in identities]
    new = NewAuthority(Settings("Clinics"), lambda made: sealing.seal_to_recipients(key_pem(made), to))
    init(tmp_path / "ca", new, NOW)
    folder = Folder(tmp_path / "ca")
    for number, identity in enumerate(identities):
        file = tmp_path / f"identity-{number}"
        file.write_text(f"{identity}\n")
        file.chmod(0o600)
        monkeypatch.setenv(IDENTITY_VARIABLE, str(file))
        make_crl(folder, "issuing-1", no_passphrase, NOW)
    stranger = tmp_path / "stranger"
    stranger.write_text(f"{age.Identity.generate()}\n")
    stranger.chmod(0o600)
    monkeypatch.setenv(IDENTITY_VARIABLE, str(stranger))
    with pytest.raises(IpsecctlError, match="cannot be decrypted"):
        make_crl(folder, "issuing-1", no_passphrase, NOW)


@pytest.mark.parametrize("recipient", ["age1nobody", "ssh-ed25519 AAAA", "me"])
def test_what_is_no_recipient(recipient: str) -> None:
    with pytest.raises(PkiError, match="is no age recipient"):
        sealing.seal_to_recipients(b"key", [recipient])


def test_a_gateways_key_is_encrypted_where_the_topology_says_age(
    ca: Ca, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To oneself, unless recipients are named; renewing keeps it so."""
    age: Any = importlib.import_module("pyrage")
    identity = age.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    (tmp_path / "identity").chmod(0o600)
    monkeypatch.setenv(IDENTITY_VARIABLE, str(tmp_path / "identity"))
    place = (
        '{certificate: "pki/{gateway}.pem", key: "age:pki/{gateway}.age", ca: pki/root.pem, chain: pki/i.pem}'
    )
    ca.issue("a", credential=place)
    sealed = (tmp_path / "pki" / "a.age").read_bytes()
    assert b"PRIVATE KEY" not in sealed
    opened = sealing.unsealed(age.decrypt(sealed, [identity]), None, "a.age")
    assert public_der(opened.public_key()) == public_der(ca.certificate("a").public_key())


def test_all_in_the_folder_is_its_owners_alone(ca: Ca) -> None:
    ca.issue()
    assert ca.folder.path.stat().st_mode & 0o777 == 0o700
    files = [path for path in ca.folder.path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not [path for path in files if b"-----BEGIN PRIVATE KEY-----" in path.read_bytes()]


@pytest.mark.parametrize("place", [".", "keys/issuing-1.key"])
def test_what_others_can_read_is_refused(ca: Ca, place: str) -> None:
    path = ca.folder.path / place
    path.chmod(0o755 if path.is_dir() else 0o644)
    with pytest.raises(IpsecctlError, match=r"is open to others|readable or writable by others") as refused:
        ca.issue("a")
    assert "chmod" in refused.value.hint
    assert ca.left() == set()


def test_the_roots_key_may_be_elsewhere(ca: Ca) -> None:
    key = ca.folder.key("root-1")
    away = key.rename(ca.base / "safe.key")
    ca.issue()
    make_crl(ca.folder, "issuing-1", passphrase, NOW)
    with pytest.raises(PkiError, match="the key of root-1 is not here"):
        make_crl(ca.folder, "root-1", passphrase, NOW)
    away.rename(key)
    make_crl(ca.folder, "root-1", passphrase, NOW)


def test_another_cas_key_signs_nothing(ca: Ca) -> None:
    ca.folder.key("issuing-1").write_bytes(ca.folder.key("root-1").read_bytes())
    with pytest.raises(PkiError, match="it does not match its certificate"):
        ca.issue("a")
    assert ca.left() == set()

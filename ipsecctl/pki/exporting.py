"""Certificates for other programs: PEM, DER, PKCS#12."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, serialize_key_and_certificates

from ipsecctl.errors import PkiError
from ipsecctl.pki.authority import chain_pem, issuing_chain, matching
from ipsecctl.pki.folder import Folder
from ipsecctl.pki.keytypes import public_der
from ipsecctl.pki.ledger import Entry, Kind, Ledger
from ipsecctl.pki.sealing import unsealed
from ipsecctl.secrets import Secret, read
from ipsecctl.topology import SecretKind, SecretRef

__all__ = ["FORMATS", "as_format", "pkcs12", "selected"]

FORMATS: Final = ("pem", "der", "p12")
_ROUNDS: Final = 600_000
"""PBKDF2 with HMAC-SHA256: OWASP's figure; PKCS#12 has no scrypt that others read."""


def selected(folder: Folder, what: str, *, with_chain: bool = False) -> tuple[Entry, ...]:
    """Return what a word names: ``root``, ``issuing``, ``chain`` (both), a gateway's newest, or by serial.

    ``with_chain`` adds the CAs above it, up to the root.
    """
    ledger = folder.ledger()
    chain = issuing_chain(folder, ledger)
    if what == "chain":
        return chain
    if what in ("root", "issuing"):
        found = chain[-1] if what == "root" else chain[0]
    else:
        found = matching(ledger, what)[-1]
    return (found, *_above(ledger, found)) if with_chain else (found,)


def _above(ledger: Ledger, entry: Entry) -> tuple[Entry, ...]:
    found = []
    while entry.kind is not Kind.ROOT:
        entry = ledger.authority(entry.issuer)
        found.append(entry)
    return tuple(found)


def as_format(entries: Sequence[Entry], form: str) -> bytes:
    """Return certificates as PEM, or one as DER. Raises ``PkiError``."""
    if form == "pem":
        return chain_pem(entries)
    if len(entries) > 1:
        raise PkiError("a DER file holds one certificate", "take --format pem, or leave out the chain")
    return entries[0].certificate.public_bytes(Encoding.DER)


def pkcs12(folder: Folder, entry: Entry, passphrase: Secret) -> bytes:
    """Return a gateway's key, certificate and chain in one file, under a passphrase. Raises ``PkiError``."""
    places = entry.places
    if not places.key:
        raise PkiError(f"the key of {entry.name} did not come from here", "pack it where it was made")
    kind = SecretKind.AGE if places.encrypted else SecretKind.FILE
    key = unsealed(bytes(read(SecretRef(kind, places.key), Path())), None, places.key)
    if public_der(key.public_key()) != public_der(entry.certificate.public_key()):
        raise PkiError(f"{places.key} is not the key of {entry.serial_text}", "name the newest certificate")
    above = [ca.certificate for ca in _above(folder.ledger(), entry)]
    protection = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    protection = protection.key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    return serialize_key_and_certificates(
        entry.name.encode(), key, entry.certificate, above, protection.build(bytes(passphrase))
    )

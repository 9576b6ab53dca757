"""Reading certificates, requests, CRLs and keys that others made: PEM or DER, one or several in a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ipsecctl.errors import PkiError
from ipsecctl.pki.keytypes import SigningKey
from ipsecctl.pki.sealing import unsealed
from ipsecctl.secrets import Secret, read
from ipsecctl.topology import SecretKind, SecretRef

__all__ = ["certificates_in", "content_of", "crls_in", "key_in", "request_in"]

_Read = TypeVar("_Read")
_MAX_BYTES: Final = 4 << 20
_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def content_of(file: Path) -> bytes:
    """Return the content of a file. Raises ``PkiError`` when it cannot be read, is empty or too large."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise PkiError(f"cannot read {file}: {error.strerror}", "name a PEM or DER file") from None
    if len(content) > _MAX_BYTES:
        raise PkiError(f"{file} has more than {_MAX_BYTES >> 20} MiB", "name a PEM or DER file")
    if not content.strip():
        raise PkiError(f"{file} is empty", "have it sent again")
    return content


def certificates_in(content: bytes, name: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a file, in its order; ``name`` is for messages. Raises ``PkiError``."""
    return _all(content, name, "CERTIFICATE", x509.load_pem_x509_certificate, x509.load_der_x509_certificate)


def crls_in(content: bytes, name: str) -> tuple[x509.CertificateRevocationList, ...]:
    """Return the CRLs of a file, in its order. Raises ``PkiError``."""
    return _all(content, name, "X509 CRL", x509.load_pem_x509_crl, x509.load_der_x509_crl)


def request_in(content: bytes, name: str) -> x509.CertificateSigningRequest:
    """Return the request (PKCS#10) in a file. Raises ``PkiError``."""
    if b"-----BEGIN NEW CERTIFICATE REQUEST-----" in content:
        content = content.replace(b" NEW CERTIFICATE", b" CERTIFICATE")
    kind = "CERTIFICATE REQUEST"
    found = _all(content, name, kind, x509.load_pem_x509_csr, x509.load_der_x509_csr)
    if len(found) > 1:
        raise PkiError(f"{name} holds {len(found)} requests", "one at a time")
    return found[0]


def _all(
    content: bytes, name: str, kind: str, pem: Callable[[bytes], _Read], der: Callable[[bytes], _Read]
) -> tuple[_Read, ...]:
    """Read each of a kind, by itself, so that a message can say which one is damaged."""
    begun = [match[1].decode() for match in _BEGIN.finditer(content)]
    if not begun:
        try:
            return (der(content),)
        except (ValueError, UnsupportedAlgorithm):
            what = f"neither PEM nor DER of a {kind.lower()}"
            raise PkiError(f"{name} is {what}", "have it sent again, as PEM") from None
    blocks = list(_BLOCK.finditer(content))
    if len(blocks) < len(begun):
        hint = f"it has {len(begun)} BEGIN lines and {len(blocks)} whole blocks: have it sent again"
        raise PkiError(f"{name} is cut off: an END line is missing", hint)
    wanted = [match[0] for match in blocks if match[1].decode() == kind]
    if not wanted:
        raise PkiError(f"{name} holds no {kind.lower()}, but: {', '.join(dict.fromkeys(begun)).lower()}", "")
    found = []
    for number, block in enumerate(wanted, 1):
        try:
            found.append(pem(block))
        except (ValueError, UnsupportedAlgorithm) as error:
            what = f"{name}: {kind.lower()} {number} of {len(wanted)} is damaged"
            raise PkiError(f"{what} ({_first_line(error)})", "have it sent again") from None
    return tuple(found)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["unreadable"])[0][:100]


def key_in(file: Path, passphrase: Callable[[str], Secret]) -> SigningKey:
    """Return the private key in a PEM file that only its owner can read. Raises ``PkiError``."""
    secret = read(SecretRef(SecretKind.FILE, str(file)), Path())
    content = bytes(secret)
    wanted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in content or b"Proc-Type: 4,ENCRYPTED" in content
    return unsealed(content, passphrase(str(file)) if wanted else None, str(file))

"""Reading certificates, and checking that charon will accept them for an end of a tunnel.

charon takes an identity from a certificate's subjectAltName or whole subject, never from its CN alone. A
certificate is issued by the CA itself, or by one between that the CA has issued (``chain``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ipsecctl.errors import SecretUnavailable, Severity

if TYPE_CHECKING:
    from cryptography import x509

    from ipsecctl.secrets.secret import Secret

__all__ = [
    "CertificateProblem",
    "Fault",
    "faults_of_ca",
    "faults_of_certificate",
    "faults_of_key",
    "holds",
    "read_certificate",
]

_MAX_BYTES: Final = 1 << 20
_SOON: Final = timedelta(days=30)
_MIN_RSA_BITS: Final = 2048
_RENEW: Final = "issue a new one"


class CertificateProblem(SecretUnavailable):
    """A certificate that cannot be had: ``IP320`` not there, ``IP321`` not a certificate."""

    def __init__(self, code: str, what: str, subject: str, hint: str) -> None:
        super().__init__(f"{what}: {subject}", hint)
        self.code = code
        self.what = what
        self.subject = subject

    @property
    def is_missing(self) -> bool:
        """Whether a file is not there."""
        return isinstance(self.__cause__, (FileNotFoundError, NotADirectoryError))


@dataclass(frozen=True, order=True, slots=True)
class Fault:
    """What is wrong with a certificate.

    ``code`` is stable: ``IP322`` expired or not yet valid, ``IP323`` expires soon, ``IP324`` does not match
    its key, ``IP325`` does not hold the identity, ``IP326`` not issued by the CA, ``IP327`` weak, ``IP328``
    not a CA or not to be used as one, ``IP329`` more than one certificate in a file.
    """

    severity: Severity
    code: str
    what: str
    subject: str
    hint: str


def read_certificate(path: str, base: Path) -> bytes:
    """Return the certificate in a PEM or DER file as PEM; ``path`` is relative to ``base``.

    Of several certificates in a file it is the first. Raises ``SecretUnavailable`` when there is none.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    return load(path, base)[0].public_bytes(Encoding.PEM)


def load(path: str, base: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM or DER file, at least one."""
    from cryptography import x509

    try:
        with (base / path).open("rb") as file:
            content = file.read(_MAX_BYTES)
    except OSError as error:
        hint = "have your CA issue it, and put it there; paths are relative to the topology file"
        if isinstance(error, IsADirectoryError):
            hint = "name the file that holds it"
        elif isinstance(error, PermissionError):
            hint = "make it readable for the user who runs ipsecctl"
        raise CertificateProblem("IP320", f"no certificate ({error.strerror})", path, hint) from error
    try:
        if b"-----BEGIN" in content:
            return x509.load_pem_x509_certificates(content)
        return [x509.load_der_x509_certificate(content)]
    except ValueError:
        raise CertificateProblem("IP321", "not a certificate", path, "a PEM or DER file is wanted") from None


def faults_of_certificate(
    path: str, base: Path, ca: str, identity: str, now: datetime, *, chain: str = ""
) -> Iterator[Fault]:
    """Yield what is wrong with the certificate of an end: validity, strength, identity, issuer.

    Raises ``CertificateProblem`` when it, or the CA, cannot be read.
    """
    certificates = load(path, base)
    certificate = certificates[0]
    if len(certificates) > 1:
        hint = "leave the end's own certificate alone in the file"
        yield Fault(Severity.WARNING, "IP329", "only the first certificate is used", path, hint)
    yield from _faults_of_validity(certificate, path, now)
    yield from _faults_of_strength(certificate, path)
    if not holds(certificate, identity):
        hint = f"issue it with the subjectAltName {_wanted_name(identity)}, or set the gateway's 'identity'"
        yield Fault(Severity.ERROR, "IP325", f"does not hold the identity {identity!r}", path, hint)
    issuer = chain or ca
    if not _is_issued_by(certificate, load(issuer, base)[0]):
        hint = f"its issuer is {certificate.issuer.rfc4514_string()!r}"
        if not chain:
            hint += "; if that is a CA below this one, name its certificate in 'chain'"
        yield Fault(Severity.ERROR, "IP326", f"not issued by the CA in {issuer}", path, hint)


def faults_of_ca(path: str, base: Path, now: datetime, *, above: str = "") -> Iterator[Fault]:
    """Yield what is wrong with a CA certificate; ``above`` is the CA that must have issued it, if any.

    Raises ``CertificateProblem`` when one of them cannot be read.
    """
    from cryptography import x509

    certificate = load(path, base)[0]
    yield from _faults_of_validity(certificate, path, now)
    yield from _faults_of_strength(certificate, path)
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        hint = "name the certificate of the CA that issues the gateways' certificates"
        yield Fault(Severity.ERROR, "IP328", "not a CA (basicConstraints)", path, hint)
    if above and not _is_issued_by(certificate, load(above, base)[0]):
        hint = f"its issuer is {certificate.issuer.rfc4514_string()!r}"
        yield Fault(Severity.ERROR, "IP326", f"not issued by the CA in {above}", path, hint)


def faults_of_key(key: Secret, name: str, path: str, base: Path) -> Iterator[Fault]:
    """Yield what is wrong with the private key of the certificate in ``path``; ``name`` is its reference."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_der_private_key,
        load_pem_private_key,
    )

    content = bytes(key)
    load_key = load_pem_private_key if b"-----BEGIN" in content else load_der_private_key
    try:
        private = load_key(content, password=None)
    except TypeError:
        hint = "charon cannot ask for its password: store it unencrypted, or as age:"
        yield Fault(Severity.ERROR, "IP303", "a private key with a password", name, hint)
        return
    except (ValueError, UnsupportedAlgorithm):
        yield Fault(Severity.ERROR, "IP303", "not a private key", name, "a PEM or DER file is wanted")
        return
    encoding, form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    certificate_key = load(path, base)[0].public_key()
    if private.public_key().public_bytes(encoding, form) != certificate_key.public_bytes(encoding, form):
        hint = "name the key that the certificate was made for"
        yield Fault(Severity.ERROR, "IP324", f"does not match its key {name}", path, hint)


def _faults_of_validity(certificate: x509.Certificate, path: str, now: datetime) -> Iterator[Fault]:
    until = certificate.not_valid_after_utc
    since = certificate.not_valid_before_utc
    now = now.astimezone(UTC)
    if until < now:
        yield Fault(Severity.ERROR, "IP322", f"expired on {until:%Y-%m-%d}", path, _RENEW)
    elif since > now:
        hint = "check this machine's clock, or issue a new one"
        yield Fault(Severity.ERROR, "IP322", f"not valid before {since:%Y-%m-%d %H:%M} UTC", path, hint)
    elif until < now + _SOON:
        yield Fault(Severity.WARNING, "IP323", f"expires on {until:%Y-%m-%d}", path, _RENEW)


def _faults_of_strength(certificate: x509.Certificate, path: str) -> Iterator[Fault]:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        hint = "take ECDSA P-384, or RSA with 3072 bits"
        yield Fault(Severity.ERROR, "IP327", f"an RSA key of {key.key_size} bits", path, hint)
    if digest is not None and digest.name in {"md5", "sha1"} and certificate.issuer != certificate.subject:
        yield Fault(Severity.ERROR, "IP327", f"signed with {digest.name}", path, _RENEW)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _wanted_name(identity: str) -> str:
    return f"{'IP' if _address(identity) else 'email' if '@' in identity else 'DNS'}:{identity}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def holds(certificate: x509.Certificate, identity: str) -> bool:
    """Return whether charon finds the identity in the certificate."""
    from cryptography import x509

    if "=" in identity:
        wanted = {part.strip().lower() for part in identity.replace("/", ",").split(",") if part.strip()}
        return wanted == {rdn.rfc4514_string().lower() for rdn in certificate.subject.rdns}
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    address = _address(identity)
    if address is not None:
        return address in names.get_values_for_type(x509.IPAddress)
    texts = names.get_values_for_type(x509.DNSName) + names.get_values_for_type(x509.RFC822Name)
    return identity.lower() in {text.lower() for text in texts}

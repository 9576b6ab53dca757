"""Credentials that a topology refers to and that are not there yet: the lab makes them.

PSKs come from ``ipsecctl.secrets``. Certificates are issued by a small CA of the lab, whose key is kept
beside its certificate so that a gateway that is added later gets one too. What is there already is never
touched.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ipsecctl.errors import LabError
from ipsecctl.secrets import write_missing
from ipsecctl.topology import Credential, SecretKind, Topology

__all__ = ["make_missing"]

_CA_LIFE = timedelta(days=3650)
_LIFE = timedelta(days=1825)
_CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, order=True, slots=True)
class _Wanted:
    """A certificate that the topology refers to: its owner and files; ``ca_key`` is the lab's own."""

    ca: Path
    certificate: Path
    key: Path
    identity: str

    @property
    def ca_key(self) -> Path:
        return self.ca.with_suffix(".key")


def make_missing(topology: Topology) -> tuple[Path, ...]:
    """Make the PSKs and certificates that a topology refers to and that are missing; keys are owner-only.

    Returns the files made, in the order in which they were. Raises ``LabError`` when a certificate is missing
    that the lab cannot issue, because the CA is not its own.
    """
    base = Path(topology.file).parent
    made = [Path(path) for path in write_missing(topology, base)]
    for wanted in sorted(set(_certificates(topology, base))):
        if wanted.certificate.exists() and wanted.key.exists():
            continue
        if wanted.certificate.exists() or wanted.key.exists():
            there, gone = sorted((wanted.certificate, wanted.key), key=Path.exists, reverse=True)
            raise LabError(
                f"{there} is there and {gone} is not", "Bring it back, or remove both for new ones."
            )
        made += _issue(wanted)
    return tuple(made)


def _certificates(topology: Topology, base: Path) -> Iterator[_Wanted]:
    for tunnel in topology.tunnels:
        for end in (tunnel.left, tunnel.right):
            wanted = _wanted(end.credential, end.gateway.identity, base)
            if wanted is not None:
                yield wanted


def _wanted(credential: Credential, identity: str, base: Path) -> _Wanted | None:
    key = credential.key
    if not credential.certificate or key is None or key.kind is not SecretKind.FILE:
        return None
    return _Wanted(base / credential.ca, base / credential.certificate, base / key.value, identity)


def _issue(wanted: _Wanted) -> Iterator[Path]:
    """Issue a certificate, and make the CA first if there is none; yields the files as they are made."""
    if not wanted.ca.exists():
        yield from _make_ca(wanted)
    if not wanted.ca_key.exists():
        raise LabError(
            f"{wanted.certificate} is missing, and {wanted.ca} is not the lab's: there is no {wanted.ca_key}",
            "Put the certificate there, or remove the CA's certificate for a new one.",
        )
    authority = x509.load_pem_x509_certificate(wanted.ca.read_bytes())
    authority_key = serialization.load_pem_private_key(wanted.ca_key.read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise LabError(f"{wanted.ca_key} is not a key of a lab's CA", "Remove the CA for a new one.")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _draft(wanted.identity, authority.subject, key, _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(wanted.identity)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(_authority_identifier(authority), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    yield _write(wanted.key, _pem_key(key), 0o600)
    yield _write(wanted.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _make_ca(wanted: _Wanted) -> Iterator[Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = f"ipsecctl lab CA {wanted.ca.parent.name}"
    certificate = (
        _draft(subject, _common_name(subject), key, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .sign(key, hashes.SHA256())
    )
    yield _write(wanted.ca_key, _pem_key(key), 0o600)
    yield _write(wanted.ca, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _draft(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_common_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(identity: str) -> x509.GeneralName:
    """Return an IKE identity as the subjectAltName that charon compares it with (RFC 4945 section 3.1)."""
    try:
        return x509.IPAddress(ip_address(identity))
    except ValueError:
        return x509.RFC822Name(identity) if "@" in identity else x509.DNSName(identity)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Write a file whole or not at all; with its mode from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path

"""What commands of the CA print as JSON, and how they spell it for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipsecctl.pki.keytypes import key_type_of
from ipsecctl.pki.ledger import Entry, Ledger, State
from ipsecctl.pki.names import names_text

__all__ = ["certificate_json", "crl_json", "entry_json", "fingerprint", "list_json", "states", "usages"]

_EXTENDED = {
    ExtendedKeyUsageOID.IPSEC_IKE: "ipsecIKE",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
}
_USAGES = ("digital_signature", "content_commitment", "key_cert_sign", "crl_sign")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def states(ledger: Ledger, now: datetime) -> dict[int, State]:
    """Return what each certificate of a CA is, by serial number, in the order of issue."""
    current = {entry.serial for entry in ledger.current()}
    return {
        entry.serial: entry.state(
            now, superseded=bool(entry.places.certificate) and entry.serial not in current
        )
        for entry in ledger.issued()
    }


def usages(certificate: x509.Certificate) -> list[str]:
    """Return key usage and extended key usage by their names."""
    found: list[str] = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            found += [name for name in _USAGES if getattr(value, name)]
        elif isinstance(value, x509.ExtendedKeyUsage):
            found += [_EXTENDED.get(oid, oid.dotted_string) for oid in value]
    return found


def certificate_json(certificate: x509.Certificate) -> dict[str, Any]:
    """Return what stands in a certificate."""
    names: list[str] = []
    limits: dict[str, list[str]] = {}
    path_length: int | None = None
    is_ca = False
    addresses: list[str] = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names = names_text(value)
        elif isinstance(value, x509.NameConstraints):
            limits = {
                "permitted": names_text(value.permitted_subtrees or ()),
                "excluded": names_text(value.excluded_subtrees or ()),
            }
        elif isinstance(value, x509.BasicConstraints):
            is_ca, path_length = value.ca, value.path_length
        elif isinstance(value, x509.CRLDistributionPoints):
            addresses += [f"CRL {name.value}" for point in value for name in point.full_name or ()]
        elif isinstance(value, x509.AuthorityInformationAccess):
            addresses += [f"{access.access_method._name} {access.access_location.value}" for access in value]
    return {
        "serial": f"{certificate.serial_number:040x}",
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": names,
        "key": key_type_of(certificate.public_key()),
        "not_before": _time(certificate.not_valid_before_utc),
        "not_after": _time(certificate.not_valid_after_utc),
        "ca": is_ca,
        "path_length": path_length,
        "usages": usages(certificate),
        "name_constraints": limits,
        "addresses": addresses,
        "sha256": fingerprint(certificate),
    }


def entry_json(entry: Entry, state: State) -> dict[str, Any]:
    """Return what the CA knows of a certificate."""
    certificate = entry.certificate
    return {
        "serial": entry.serial_text,
        "kind": entry.kind,
        "name": entry.name,
        "identity": entry.identity,
        "issuer": entry.issuer,
        "state": state,
        "key": entry.key_type,
        "not_before": _time(certificate.not_valid_before_utc),
        "not_after": _time(certificate.not_valid_after_utc),
        "certificate": entry.places.certificate,
        "key_file": entry.places.key,
        "revoked": _time(entry.revoked) if entry.revoked is not None else None,
        "reason": entry.reason,
        "sha256": fingerprint(certificate),
    }


def list_json(folder: str, ledger: Ledger, entries: list[Entry], now: datetime) -> dict[str, Any]:
    """Return the document ``ipsecctl/pki-list/1``."""
    known = states(ledger, now)
    return {
        "schema": "ipsecctl/pki-list/1",
        "ca": folder,
        "certificates": [entry_json(entry, known[entry.serial]) for entry in entries],
        "crls": [
            {"issuer": name, "number": number, "next_update": _time(until)}
            for name, (number, until) in ledger.crls.items()
        ],
    }


def crl_json(name: str, found: x509.CertificateRevocationList) -> dict[str, Any]:
    """Return what stands in a CRL."""
    number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    until = found.next_update_utc
    return {
        "issuer": name,
        "number": number,
        "next_update": _time(until) if until is not None else None,
        "revoked": [f"{revoked.serial_number:040x}" for revoked in found],
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")

"""What stands in a CA's certificate, a gateway's, a request and a CRL: time and serial number are arguments.

Lifetimes: a gateway's certificate has 90 days, so that renewing is a habit and not an event (as Let's Encrypt
has it); the CA that issues 2 years, the span that NIST SP 800-57 part 1 rev. 5 (table 1) gives a private
signature key is 1 to 3; the root, whose key lies in a safe, 10 years.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from ipsecctl.pki.keytypes import SigningKey, hash_for
from ipsecctl.pki.names import Constraints, common_name, general_names, subject_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = [
    "CLOCK_SLACK",
    "GATEWAY_DAYS",
    "ISSUING_DAYS",
    "ROOT_DAYS",
    "Addresses",
    "Issuer",
    "Subject",
    "ca_certificate",
    "crl",
    "end_certificate",
    "request",
    "validity",
]

ROOT_DAYS: Final = 3650
ISSUING_DAYS: Final = 730
GATEWAY_DAYS: Final = 90

_NONE: Final = Constraints()

CLOCK_SLACK: Final = timedelta(hours=1)
"""How far the clocks of gateways may be behind: a certificate is valid from so long before it was made."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where others find what an issuer publishes: URLs, empty for none; ``{ca}`` stands for its name."""

    crl: str = ""
    ocsp: str = ""
    issuer: str = ""

    def of(self, name: str) -> Addresses:
        """Return those of a CA as ``issuing-1``."""
        return Addresses(*(url.replace("{ca}", name) for url in (self.crl, self.ocsp, self.issuer)))


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs: its certificate and its key, and where it publishes."""

    certificate: x509.Certificate
    key: SigningKey
    addresses: Addresses = Addresses()


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a gateway's certificate is for: the IKE identity and the gateway's name (for the CN)."""

    identity: str
    name: str = ""


def validity(now: datetime, days: float, issuer: x509.Certificate | None = None) -> tuple[datetime, datetime]:
    """Return from when and until when a certificate holds: within its issuer's own time.

    Whole seconds: a certificate has no fractions (RFC 5280 section 4.1.2.5).
    """
    now = now.replace(microsecond=0)
    since, until = now - CLOCK_SLACK, now + timedelta(days=days)
    if issuer is None:
        return since, until
    return max(since, issuer.not_valid_before_utc), min(until, issuer.not_valid_after_utc)


def ca_certificate(
    name: str,
    public_key: CertificatePublicKeyTypes,
    serial: int,
    now: datetime,
    days: float,
    *,
    issuer: Issuer | None = None,
    signer: SigningKey | None = None,
    path_length: int = 0,
    constraints: Constraints = _NONE,
) -> x509.Certificate:
    """Return a CA's certificate, signed by ``issuer``, or a root's, signed by its own key ``signer``.

    ``path_length`` is how many CAs may follow below it. ``constraints`` are critical (RFC 5280 section
    4.2.1.10).
    """
    subject = common_name(name)
    above = issuer.certificate if issuer is not None else None
    draft = _draft(subject, above.subject if above else subject, public_key, serial)
    since, until = validity(now, days, above)
    draft = draft.not_valid_before(since).not_valid_after(until)
    draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    draft = draft.add_extension(_key_usage(ca=True), critical=True)
    if constraints:
        draft = draft.add_extension(constraints.extension(), critical=True)
    if issuer is not None:
        draft = _with_issuer(draft, issuer)
    key = issuer.key if issuer is not None else signer
    if key is None:
        raise ValueError("a root signs itself: its key is wanted")
    return draft.sign(key, hash_for(key))


def end_certificate(
    subject: Subject,
    public_key: CertificatePublicKeyTypes,
    serial: int,
    now: datetime,
    days: float,
    issuer: Issuer,
    *,
    server_auth: bool = False,
) -> x509.Certificate:
    """Return a gateway's certificate for IKE.

    Key usage is digitalSignature (RFC 4945 section 5.1.3.2), extended key usage ipsecIKE (RFC 4945 section
    5.1.3.12); ``server_auth`` adds serverAuth and clientAuth, which some vendors' clients ask for. Raises
    ``PkiError`` for an identity that no certificate can hold.
    """
    draft = _draft(
        subject_for(subject.identity, subject.name), issuer.certificate.subject, public_key, serial
    )
    since, until = validity(now, days, issuer.certificate)
    usages = [ExtendedKeyUsageOID.IPSEC_IKE]
    if server_auth:
        usages += [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    draft = (
        draft.not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    names = general_names(subject.identity)
    if names:
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _with_issuer(draft, issuer).sign(issuer.key, hash_for(issuer.key))


def request(subject: Subject, key: SigningKey) -> x509.CertificateSigningRequest:
    """Return a request (PKCS#10) for another CA, with the names that the certificate must hold."""
    draft = x509.CertificateSigningRequestBuilder().subject_name(subject_for(subject.identity, subject.name))
    names = general_names(subject.identity)
    if names:
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
    draft = draft.add_extension(_key_usage(ca=False), critical=True)
    draft = draft.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.IPSEC_IKE]), critical=False)
    return draft.sign(key, hash_for(key))


def crl(
    issuer: Issuer,
    number: int,
    now: datetime,
    days: float,
    revoked: Sequence[tuple[int, datetime, x509.ReasonFlags]],
) -> x509.CertificateRevocationList:
    """Return a CRL (RFC 5280 section 5) of (serial, since when, why), sorted by serial.

    The next one is due ``days`` after ``now``. The reason "unspecified" is left out (section 5.3.1).
    """
    now = now.replace(microsecond=0)
    draft = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now)
        .next_update(now + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(issuer.certificate), critical=False)
    )
    for serial, since, reason in sorted(revoked, key=lambda entry: entry[0]):
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        entry = entry.revocation_date(since.replace(microsecond=0))
        if reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        draft = draft.add_revoked_certificate(entry.build())
    return draft.sign(issuer.key, hash_for(issuer.key))


def _draft(
    subject: x509.Name, issuer: x509.Name, public_key: CertificatePublicKeyTypes, serial: int
) -> x509.CertificateBuilder:
    draft = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    draft = draft.public_key(public_key).serial_number(serial)
    return draft.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _with_issuer(draft: x509.CertificateBuilder, issuer: Issuer) -> x509.CertificateBuilder:
    """Add what says who signed, and where its CRL, its OCSP responder and its certificate are."""
    draft = draft.add_extension(_authority_key(issuer.certificate), critical=False)
    addresses = issuer.addresses
    if addresses.crl:
        point = x509.DistributionPoint(_url(addresses.crl), None, None, None)
        draft = draft.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    ways = (
        (AuthorityInformationAccessOID.OCSP, addresses.ocsp),
        (AuthorityInformationAccessOID.CA_ISSUERS, addresses.issuer),
    )
    found = [x509.AccessDescription(way, _url(address)[0]) for way, address in ways if address]
    if found:
        draft = draft.add_extension(x509.AuthorityInformationAccess(found), critical=False)
    return draft


def _url(address: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(address)]


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the issuer's key identifier: its own, if it has one, as another CA may compute it otherwise."""
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )

"""Checking a gateway's certificate that somebody else's CA has issued, and the chain up to its root.

All that is wrong is found, not the first alone. The codes are IP330 to IP349.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from ipsecctl.errors import Severity
from ipsecctl.pki.keytypes import public_der, weakness
from ipsecctl.pki.names import general_names, names_text, outside
from ipsecctl.secrets.certificates import Fault, holds

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = ["Presented", "faults_of_chain", "faults_of_crl", "faults_of_request", "in_order"]

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_OLD_RSA_BITS: Final = 2048
_USAGES: Final = frozenset(
    {
        ExtendedKeyUsageOID.IPSEC_IKE,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
)
_ASK: Final = "ask who issued it for another"


@dataclass(frozen=True, slots=True)
class Presented:
    """A certificate and where it stands: the file's name, with the position where it holds several."""

    certificate: x509.Certificate
    where: str


def in_order(given: Sequence[Presented]) -> tuple[Presented, ...] | None:
    """Return certificates from a gateway's up to the root, ``None`` where they are not one chain.

    A gateway's certificate is the one that has issued none of the others.
    """
    issuers = {p.certificate.issuer for p in given if p.certificate.issuer != p.certificate.subject}
    firsts = [p for p in given if p.certificate.subject not in issuers]
    if len(firsts) != 1:
        return None
    chain = firsts
    while len(chain) < len(given):
        above = [p for p in given if p.certificate.subject == chain[-1].certificate.issuer and p not in chain]
        if len(above) != 1:
            return None
        chain.append(above[0])
    return tuple(chain)


def faults_of_chain(
    given: Sequence[Presented], identity: str, key: PublicKeyTypes | None, now: datetime
) -> Iterator[Fault]:
    """Yield what is wrong with a gateway's certificate and its chain, given from it up to the root.

    ``key`` is the public half of the gateway's key, if that is known.
    """
    chain = in_order(given)
    if chain is None:
        names = "; ".join(_named(p) for p in given)
        hint = "give the gateway's certificate first, then each one's issuer, the root last"
        yield _error("IP333", "not one chain", names, hint)
        return
    if list(chain) != list(given):
        names = ", ".join(_named(p) for p in chain)
        yield _error("IP333", "in the wrong order", given[0].where, f"the right one is: {names}")
    yield from _faults_of_end(chain[0], identity, key)
    for position, each in enumerate(chain):
        yield from _faults_of_time(each, now)
        yield from _faults_of_strength(each)
        if position:
            yield from _faults_of_ca(each, position - 1)
            yield from _faults_of_names(chain[0], each)
    for below, above in pairwise(chain):
        if not _issued(below.certificate, above.certificate):
            hint = "the name is that issuer's, the signature is not: its key has changed, or it is forged"
            yield _error("IP338", f"not signed by {_subject(above)}", below.where, hint)
    top = chain[-1]
    if not _issued(top.certificate, top.certificate):
        hint = (
            f"add the certificate of {top.certificate.issuer.rfc4514_string()!r}: charon trusts only a root"
        )
        yield _error("IP341", "the root is missing", top.where, hint)


def _faults_of_end(end: Presented, identity: str, key: PublicKeyTypes | None) -> Iterator[Fault]:
    certificate = end.certificate
    if _is_ca(certificate):
        yield _error(
            "IP339", "a CA's certificate where a gateway's is wanted", end.where, "add the gateway's"
        )
    if not holds(certificate, identity):
        wanted = names_text(general_names(identity)) or [f"subject {identity}"]
        hint = f"it must hold {wanted[0]}; it holds {', '.join(_names_of(certificate)) or 'no name'}"
        yield _error("IP332", f"does not hold the identity {identity!r}", end.where, hint)
    if key is not None and public_der(key) != public_der(certificate.public_key()):
        hint = "it was issued for another request: import that of this key, or send this key's request"
        yield _error("IP331", "does not match the gateway's key", end.where, hint)
    usage = _key_usage(certificate)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        hint = "it needs digitalSignature (RFC 4945 section 5.1.3.2)"
        yield _error("IP340", "may not sign (key usage)", end.where, hint)
    extended = _extended(certificate)
    if extended is not None and not extended & _USAGES:
        hint = "it needs ipsecIKE, serverAuth or clientAuth, or no extended key usage at all"
        yield _error("IP340", "is not for IKE (extended key usage)", end.where, hint)


def _faults_of_time(each: Presented, now: datetime) -> Iterator[Fault]:
    since, until = each.certificate.not_valid_before_utc, each.certificate.not_valid_after_utc
    if until < now:
        yield _error("IP334", f"expired on {until:%Y-%m-%d}", each.where, _ASK)
    elif now < since:
        hint = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC: set it right, or wait"
        yield _error("IP335", f"not valid before {since:%Y-%m-%d %H:%M} UTC", each.where, hint)


def _faults_of_strength(each: Presented) -> Iterator[Fault]:
    key, digest = each.certificate.public_key(), each.certificate.signature_hash_algorithm
    why = weakness(key)
    if why:
        bearable = isinstance(key, RSAPublicKey) and key.key_size >= _OLD_RSA_BITS
        severity = Severity.WARNING if bearable else Severity.ERROR
        yield Fault(severity, "IP337", why, each.where, _ASK)
    is_root = each.certificate.issuer == each.certificate.subject
    if digest is not None and digest.name in {"md5", "sha1"} and not is_root:
        yield _error("IP337", f"signed with {digest.name}", each.where, _ASK)


def _faults_of_ca(each: Presented, below: int) -> Iterator[Fault]:
    """Yield why a certificate cannot stand above another; ``below`` CAs are between it and the gateway's."""
    certificate = each.certificate
    if not _is_ca(certificate):
        hint = "its basicConstraints or key usage do not allow it to issue: leave it out"
        yield _error("IP339", "not a CA", each.where, hint)
        return
    longest = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if longest is not None and below > longest:
        yield _error("IP339", f"allows {longest} CAs below it, and there are {below}", each.where, _ASK)


def _faults_of_names(end: Presented, ca: Presented) -> Iterator[Fault]:
    limits = _extension(ca.certificate, x509.NameConstraints)
    if limits is None:
        return
    found = outside(_general_names(end.certificate), limits)
    if found is not None:
        what = f"{names_text([found])[0]} is outside of what {_subject(ca)} may issue for"
        yield _error("IP342", what, end.where, "charon will refuse it: " + _ASK)


def faults_of_crl(
    found: x509.CertificateRevocationList, where: str, chain: Sequence[Presented], now: datetime
) -> Iterator[Fault]:
    """Yield what is wrong with a CRL for a chain, and what of the chain it says is revoked."""
    issuers = [p for p in chain if p.certificate.subject == found.issuer]
    if not any(_signed_crl(found, p.certificate) for p in issuers):
        hint = f"it is of {found.issuer.rfc4514_string()!r}: get that of the CA that issued the certificate"
        yield _error("IP336", "a CRL of another CA", where, hint)
        return
    if found.next_update_utc is not None and found.next_update_utc < now:
        hint = "get the CA's new one"
        yield _error("IP345", f"a CRL that ran out on {found.next_update_utc:%Y-%m-%d}", where, hint)
    for each in chain:
        issued_here = each.certificate.issuer == found.issuer
        if issued_here and found.get_revoked_certificate_by_serial_number(each.certificate.serial_number):
            yield _error("IP343", "revoked", f"{each.where} (by {where})", _ASK)


def faults_of_request(found: x509.CertificateSigningRequest, where: str) -> Iterator[Fault]:
    """Yield why a request must not be signed: its signature, its key."""
    if not found.is_signature_valid:
        hint = "whoever made it does not have the key: have it made again"
        yield _error("IP338", "a request that its own key has not signed", where, hint)
    why = weakness(found.public_key())
    if why:
        yield _error("IP337", f"a request with {why}", where, "have it made with ecdsa-p256, or RSA 3072")


def _error(code: str, what: str, subject: str, hint: str) -> Fault:
    return Fault(Severity.ERROR, code, what, subject, hint)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _signed_crl(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False


def _is_ca(certificate: x509.Certificate) -> bool:
    basic, usage = _extension(certificate, x509.BasicConstraints), _key_usage(certificate)
    return basic is not None and basic.ca and (usage is None or usage.key_cert_sign)


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    return _extension(certificate, x509.KeyUsage)


def _extended(certificate: x509.Certificate) -> set[x509.ObjectIdentifier] | None:
    found = _extension(certificate, x509.ExtendedKeyUsage)
    return None if found is None else set(found)


def _general_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    found = _extension(certificate, x509.SubjectAlternativeName)
    return [] if found is None else list(found)


def _names_of(certificate: x509.Certificate) -> list[str]:
    return [*names_text(_general_names(certificate)), f"subject {certificate.subject.rfc4514_string()}"]


def _subject(each: Presented) -> str:
    return repr(each.certificate.subject.rfc4514_string())


def _named(each: Presented) -> str:
    return f"{each.certificate.subject.rfc4514_string()} ({each.where})"


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None

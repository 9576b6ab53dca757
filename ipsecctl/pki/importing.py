"""Gateways under an organisation's own CA: the request that goes out, the certificate that comes back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl.errors import Diagnostic, PkiError, Severity, TopologyRefused, worst_first
from ipsecctl.pki.chains import Presented, faults_of_chain, faults_of_crl, in_order
from ipsecctl.pki.folder import remove, sync, write_new, write_whole
from ipsecctl.pki.keytypes import KeyType, SigningKey, key_pem, make_key, public_der
from ipsecctl.pki.material import certificates_in, content_of, crls_in
from ipsecctl.pki.profiles import Subject, request
from ipsecctl.pki.sealing import seal_to_recipients, unsealed
from ipsecctl.pki.wanted import Wanted, is_written
from ipsecctl.secrets import age_recipients, read
from ipsecctl.secrets.certificates import holds
from ipsecctl.secrets.reading import replaceable

__all__ = ["Imported", "examine", "install", "key_of", "owner", "presented", "request_for"]


@dataclass(frozen=True, slots=True)
class Imported:
    """A chain that has passed all checks: the certificate, the CA between if there is one, the root."""

    wanted: Wanted
    chain: tuple[Presented, ...]
    warnings: tuple[Diagnostic, ...]


def presented(files: Sequence[Path]) -> tuple[Presented, ...]:
    """Return the certificates in files, in the order given. Raises ``PkiError``."""
    found: list[Presented] = []
    for file in files:
        certificates = certificates_in(content_of(file), str(file))
        for number, certificate in enumerate(certificates, 1):
            where = f"{file}, certificate {number}" if len(certificates) > 1 else str(file)
            found.append(Presented(certificate, where))
    return tuple(found)


def owner(every: Sequence[Wanted], given: Sequence[Presented], name: str) -> Wanted:
    """Return whose certificate this is: the gateway named, else the one whose identity it holds."""
    if name:
        found = [one for one in every if one.gateway == name]
        if not found:
            known = ", ".join(sorted({one.gateway for one in every})[:10])
            raise PkiError(f"no gateway {name!r} shows a certificate", f"there is {known}")
        return found[0]
    chain = in_order(given)
    end = chain[0] if chain else given[0]
    found = [one for one in every if holds(end.certificate, one.identity)]
    if len(found) != 1:
        hint = "say whose it is: --gateway NAME"
        names = ", ".join(one.gateway for one in found) or "none"
        raise PkiError(f"{end.where}: gateways whose identity it holds: {names}", hint)
    return found[0]


def key_of(wanted: Wanted, base: Path) -> SigningKey | None:
    """Return the gateway's key where the topology has it, ``None`` where there is none yet.

    Raises ``SecretUnavailable`` when it is there and cannot be read, or others can read it.
    """
    if is_written(wanted.key) and not (base / wanted.key.value).exists():
        return None
    return unsealed(bytes(read(wanted.key, base)), None, str(wanted.key))


def request_for(
    wanted: Wanted, base: Path, key_type: KeyType, recipients: tuple[str, ...] = ()
) -> tuple[x509.CertificateSigningRequest, bool]:
    """Return a request with the gateway's key, and whether the key was made for it.

    A key that is there is used: a request made again is of the same key. Raises ``PkiError``.
    """
    key = key_of(wanted, base)
    made = key is None
    if key is None:
        key = make_key(key_type)
        _put_key(key, wanted, base, recipients)
    return request(Subject(wanted.identity, wanted.gateway), key), made


def _put_key(key: SigningKey, wanted: Wanted, base: Path, recipients: tuple[str, ...]) -> None:
    """Write a new key whole, where there is none."""
    content, place = key_pem(key), base / wanted.key.value
    for problem in replaceable(place, wanted.key.value):
        raise problem
    if wanted.key.kind.value == "age":
        content = seal_to_recipients(content, recipients or age_recipients())
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        remove([draft])
        write_new(draft, content, 0o600)
        sync([draft])
        place.hardlink_to(draft)
    except FileExistsError:
        raise PkiError(f"{place} is there already", "somebody made it in this moment: try again") from None
    finally:
        remove([draft])


def examine(
    wanted: Wanted,
    given: Sequence[Presented],
    crls: Sequence[Path],
    key: SigningKey | None,
    now: datetime,
) -> Imported:
    """Check a certificate and its chain for a gateway; nothing is written.

    ``key`` is the gateway's, there or to be brought with it. Raises ``TopologyRefused`` with all findings.
    """
    public = key.public_key() if key is not None else None
    faults = list(faults_of_chain(given, wanted.identity, public, now))
    for file in crls:
        for found in crls_in(content_of(file), str(file)):
            faults += faults_of_crl(found, str(file), given, now)
    findings = [
        Diagnostic(f.severity, f.code, f"{f.subject}: {f.what}", f.hint, wanted.certificate, 0, 0)
        for f in faults
    ]
    chain = in_order(given) or ()
    findings += _faults_of_place(wanted, chain)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise TopologyRefused(findings)
    return Imported(wanted, chain, worst_first(findings))


def _faults_of_place(wanted: Wanted, chain: Sequence[Presented]) -> Iterable[Diagnostic]:
    """Yield where the topology has no place for what has come."""
    between = max(0, len(chain) - 2)
    what, hint = "", ""
    if between > 1:
        what, hint = (
            f"{between} CAs between it and the root",
            "one is possible: ask for another",
        )
    elif between and not wanted.chain:
        what, hint = "a CA between it and the root", "add 'chain: PATH' to the gateway's credential"
    elif chain and not between and wanted.chain:
        what, hint = "no CA between it and the root", "remove 'chain' from the gateway's credential"
    if what:
        yield Diagnostic(Severity.ERROR, "IP344", what, hint, wanted.certificate, 0, 0)


def install(
    imported: Imported, base: Path, *, key: SigningKey | None = None, replaces: bool = False
) -> tuple[Path, ...]:
    """Put a checked chain into the topology's places; return the files written.

    What is there and the same stays; what is another is refused unless ``replaces``, all of it before
    anything is written. The gateway's certificate comes last: with it all others are there. ``key`` is
    written, too, where one was brought.
    """
    wanted = imported.wanted
    chain = [p.certificate.public_bytes(Encoding.PEM) for p in imported.chain]
    places = [base / wanted.anchor, *([base / wanted.chain] if len(chain) > 2 else ())]
    content = dict(
        zip([*places, base / wanted.certificate], [chain[-1], *chain[1:-1], chain[0]], strict=True)
    )
    missing = {place: pem for place, pem in content.items() if not _is_there(place, pem, replaces=replaces)}
    if key is not None and _is_other_key(key, wanted, base):
        raise PkiError(f"{base / wanted.key.value} is there already", "move it away: no key is overwritten")
    for place in missing:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if key is not None and key_of(wanted, base) is None:
        _put_key(key, wanted, base, ())
    for place, pem in missing.items():
        write_whole(place, pem, 0o644)
    sync(list(missing))
    return tuple(missing)


def _is_other_key(key: SigningKey, wanted: Wanted, base: Path) -> bool:
    there = key_of(wanted, base)
    return there is not None and public_der(there.public_key()) != public_der(key.public_key())


def _is_there(place: Path, pem: bytes, *, replaces: bool) -> bool:
    """Whether a file holds a certificate already. Raises ``PkiError`` where it holds another."""
    if not place.exists():
        return False
    if certificates_in(content_of(place), str(place))[0].public_bytes(Encoding.PEM) == pem:
        return True
    if not replaces:
        raise PkiError(f"{place} is there already and another one", "replace it with --replace")
    return False

"""What a CA does: it is made, it issues, renews and revokes, and publishes what it has revoked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl.errors import PkiError
from ipsecctl.pki import ledger as journal
from ipsecctl.pki.delivery import Order, issue, mend, new_serial
from ipsecctl.pki.folder import Folder, Settings, Writer, create, seconds, sync, write_whole
from ipsecctl.pki.keytypes import KeyType, SigningKey, make_key, public_der
from ipsecctl.pki.ledger import Entry, Kind, Ledger, Places, State
from ipsecctl.pki.names import Constraints, general_names, names_text, outside, subject_for
from ipsecctl.pki.profiles import ISSUING_DAYS, ROOT_DAYS, Issuer, ca_certificate, crl
from ipsecctl.pki.sealing import is_age, is_under_passphrase, unsealed
from ipsecctl.secrets import Secret, read
from ipsecctl.topology import SecretKind, SecretRef

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "REASONS",
    "Made",
    "NewAuthority",
    "Passphrase",
    "chain_pem",
    "init",
    "issue_orders",
    "issuing_chain",
    "make_crl",
    "matching",
    "revoke",
    "signer",
]

Passphrase: TypeAlias = Callable[[str], Secret]
"""Returns the passphrase of a CA's key, whose name it is given; called only where one is needed."""

REASONS: Final = {
    "unspecified": x509.ReasonFlags.unspecified,
    "key-compromise": x509.ReasonFlags.key_compromise,
    "ca-compromise": x509.ReasonFlags.ca_compromise,
    "affiliation-changed": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessation-of-operation": x509.ReasonFlags.cessation_of_operation,
    "privilege-withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
"""Why a certificate is revoked (RFC 5280 section 5.3.1). A hold, which can be taken back, is not offered."""

_ROOT_CRL_DAYS: Final = 365
"""A root's key is taken out of its safe once a year."""


@dataclass(frozen=True, slots=True)
class NewAuthority:
    """What a CA is made with. ``seal`` encrypts a key; days are those of the CAs' own certificates."""

    settings: Settings
    seal: Callable[[SigningKey], bytes]
    key: KeyType = KeyType.ECDSA_P384
    root_days: float = ROOT_DAYS
    issuing_days: float = ISSUING_DAYS


@dataclass(frozen=True, slots=True)
class Made:
    """What came of an order to issue: the entries, and sentences about what was mended before."""

    entries: tuple[Entry, ...]
    mended: tuple[str, ...] = ()
    kept: tuple[str, ...] = field(default=())


def init(path: Path, new: NewAuthority, now: datetime) -> Ledger:
    """Make a CA: a root and, with two levels, the CA that issues; their CRLs, empty, and its folder.

    Raises ``PkiError`` where something is in its place, or a constraint is none.
    """
    settings = new.settings
    below = settings.levels - 1
    key, serial = make_key(new.key), new_serial(())
    constraints = settings.constraints
    root = ca_certificate(
        f"{settings.name} root 1",
        key.public_key(),
        serial,
        now,
        new.root_days,
        signer=key,
        path_length=below,
        constraints=Constraints() if below else constraints,
    )
    made = [("root-1", Kind.ROOT, "root-1", Issuer(root, key), new.root_days)]
    if below:
        addresses = settings.addresses
        above = Issuer(root, key, addresses.of("root-1"))
        key = make_key(new.key)
        certificate = ca_certificate(
            f"{settings.name} issuing 1",
            key.public_key(),
            new_serial({serial}),
            now,
            new.issuing_days,
            issuer=above,
            constraints=constraints,
        )
        made.append(("issuing-1", Kind.ISSUING, "root-1", Issuer(certificate, key), new.issuing_days))
    files: dict[str, bytes] = {}
    records: list[journal.Record] = []
    for name, kind, issuer, who, days in made:
        entry = Entry(who.certificate.serial_number, kind, issuer, name, "", Places(), now, days)
        number, lifetime = seconds(now), _crl_days(settings, kind)
        list_of = crl(who, number, now, lifetime, ())
        files[f"keys/{name}.key"] = new.seal(who.key)
        files[f"crl/{name}.crl"] = list_of.public_bytes(Encoding.DER)
        records += (
            journal.reserve(entry),
            journal.issue(entry.serial, who.certificate.public_bytes(Encoding.DER), now),
            journal.deliver(entry.serial, now),
            journal.crl(name, number, _until(list_of), now),
        )
    create(path, settings, files, records)
    return Folder(path).ledger()


def _crl_days(settings: Settings, kind: Kind) -> float:
    return _ROOT_CRL_DAYS if kind is Kind.ROOT and settings.levels > 1 else settings.crl_days


def _until(found: x509.CertificateRevocationList) -> datetime:
    until = found.next_update_utc
    if until is None:
        raise PkiError("a CRL without an end", "ours always have one")
    return until


def issuing_chain(folder: Folder, ledger: Ledger) -> tuple[Entry, ...]:
    """Return the CAs from the one that issues up to its root."""
    newest = ledger.newest(Kind.ISSUING) or ledger.newest(Kind.ROOT)
    if newest is None:
        raise PkiError(f"the journal in {folder} has no CA", "bring the CA's folder back from a backup")
    chain = [newest]
    while chain[-1].kind is not Kind.ROOT:
        chain.append(ledger.authority(chain[-1].issuer))
    return tuple(chain)


def signer(folder: Folder, entry: Entry, passphrase: Passphrase, now: datetime) -> Issuer:
    """Return a CA with its key, ready to sign.

    Raises ``PkiError`` when the CA has expired, is not valid yet or is revoked, and when its key is not
    there, cannot be opened or is another's; ``SecretUnavailable`` when others can read the key's file.
    """
    _is_in_force(entry, now)
    file = folder.key(entry.name)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        hint = f"bring it to {file} for as long as it is needed; what other CAs here sign needs it not"
        raise PkiError(f"the key of {entry.name} is not here", hint) from None
    except OSError as error:
        raise PkiError(f"cannot read {file}: {error.strerror}", "it is of the user who made the CA") from None
    secret, base = None, Path()
    if is_age(content):
        content = bytes(read(SecretRef(SecretKind.AGE, str(file)), base))
    else:
        read(SecretRef(SecretKind.FILE, str(file)), base)  # refuses a file that others can read
        if is_under_passphrase(content):
            secret = passphrase(entry.name)
    key = unsealed(content, secret, str(file))
    if public_der(key.public_key()) != public_der(entry.certificate.public_key()):
        hint = "bring back the key of this CA; nothing was signed"
        raise PkiError(f"{file} is not the key of {entry.name}: it does not match its certificate", hint)
    return Issuer(entry.certificate, key, folder.settings().addresses.of(entry.name))


def _is_in_force(entry: Entry, now: datetime) -> None:
    state = entry.state(now)
    if state is State.EXPIRED:
        until = entry.certificate.not_valid_after_utc
        raise PkiError(f"{entry.name} expired on {until:%Y-%m-%d}", "make a new CA: ipsecctl pki init")
    if state is State.NOT_YET:
        since = entry.certificate.not_valid_before_utc
        hint = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC: set it right"
        raise PkiError(f"{entry.name} is not valid before {since:%Y-%m-%d %H:%M} UTC", hint)
    if state is State.REVOKED:
        raise PkiError(f"{entry.name} is revoked ({entry.reason})", "make a new CA: ipsecctl pki init")


def issue_orders(
    folder: Folder,
    orders: Callable[[Ledger], Sequence[Order]],
    passphrase: Passphrase,
    now: datetime,
    told: Callable[[int], None] = lambda _: None,
) -> Made:
    """Issue what ``orders`` asks for, given what was issued before, under the lock.

    Checks everything before the first serial number is taken: a name that the CA may not issue for, or that
    no certificate can hold, stops all. Raises ``PkiError``.
    """
    with folder.changing() as writer:
        mended = mend(writer, now)
        wanted = list(orders(writer.ledger))
        if not wanted:
            return Made((), mended)
        above = issuing_chain(folder, writer.ledger)
        for entry in above:
            _is_in_force(entry, now)
        _may_issue(above, wanted)
        issuer = signer(folder, above[0], passphrase, now)
        return Made(issue(writer, issuer, above[0].name, wanted, now, told), mended)


def _may_issue(chain: Sequence[Entry], orders: Iterable[Order]) -> None:
    """Refuse what no certificate can hold, and what constraints do not allow, all of that together."""
    refused = []
    for order in orders:
        subject_for(order.identity, order.name)
        names = general_names(order.identity)
        for entry in chain:
            limits = _constraints(entry.certificate)
            found = outside(names, limits) if limits is not None else None
            if found is not None:
                refused.append(f"{order.name}: {names_text([found])[0]} (constraints of {entry.name})")
    if refused:
        hint = "give it an identity within them, or make a CA with other --permit"
        raise PkiError(f"the CA may not issue for {'; '.join(refused[:10])}", hint)


def _constraints(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def chain_pem(entries: Iterable[Entry]) -> bytes:
    """Return certificates as PEM, one after the other."""
    return b"".join(entry.certificate.public_bytes(Encoding.PEM) for entry in entries)


def matching(ledger: Ledger, word: str) -> tuple[Entry, ...]:
    """Return what a word names: a CA, a serial number or the first 8 digits of it or more, or a gateway.

    Of a gateway it is every certificate that has not been abandoned or revoked. Raises ``PkiError``.
    """
    digits = word.lower().replace(":", "")
    issued = ledger.issued()
    for entry in issued:
        if entry.kind is not Kind.END and entry.name == word:
            return (entry,)
    if len(digits) >= 8 and set(digits) <= set("0123456789abcdef"):
        found = [entry for entry in issued if entry.serial_text.startswith(digits)]
        found = found or [entry for entry in issued if f"{entry.serial:x}".startswith(digits)]
        if len(found) > 1:
            raise PkiError(f"{len(found)} serial numbers begin with {word}", "give more digits of it")
        if found:
            return (found[0],)
    named = [e for e in issued if e.kind is Kind.END and word in (e.name, e.identity) and not e.abandoned]
    if not named:
        hint = "'ipsecctl pki list --all' shows all there are, with their serial numbers"
        raise PkiError(f"nothing here is named {word!r} or has such a serial number", hint)
    return tuple(named)


def revoke(
    folder: Folder, word: str, reason: str, passphrase: Passphrase, now: datetime
) -> tuple[tuple[Entry, ...], dict[str, x509.CertificateRevocationList]]:
    """Revoke what a word names, and make the CRLs anew; return what was revoked and the CRLs by CA.

    The journal has it before the CRL is made: cut off in between, the next ``crl`` has it. What was revoked
    before stays as it was. The issuers' keys are opened first, so that nothing is revoked without a CRL.
    Raises ``PkiError``.
    """
    with folder.changing() as writer:
        mend(writer, now)
        found = [entry for entry in matching(writer.ledger, word) if entry.revoked is None]
        found = [entry for entry in found if now <= entry.certificate.not_valid_after_utc]
        if not found:
            hint = "what is revoked stays so, and what has expired needs no revoking"
            raise PkiError(f"all certificates of {word!r} are revoked or expired", hint)
        if any(entry.kind is Kind.ROOT for entry in found):
            hint = "take it from the gateways instead: a root cannot revoke itself"
            raise PkiError("a root is not revoked by its own CRL", hint)
        names = dict.fromkeys(entry.issuer for entry in found)
        issuers = {name: signer(folder, writer.ledger.authority(name), passphrase, now) for name in names}
        writer.append([journal.revoke(entry.serial, reason, now) for entry in found])
        lists = {name: _make_crl(writer, name, issuer, now, None) for name, issuer in issuers.items()}
        return tuple(writer.ledger.entries[entry.serial] for entry in found), lists


def make_crl(
    folder: Folder, name: str, passphrase: Passphrase, now: datetime, days: float | None = None
) -> x509.CertificateRevocationList:
    """Make the CRL of a CA anew, valid for ``days`` (default: the CA's), and put it into the folder."""
    with folder.changing() as writer:
        mend(writer, now)
        issuer = signer(folder, writer.ledger.authority(name), passphrase, now)
        return _make_crl(writer, name, issuer, now, days)


def _make_crl(
    writer: Writer, name: str, issuer: Issuer, now: datetime, days: float | None
) -> x509.CertificateRevocationList:
    """Make a CRL whose number is above all before it: it is in the journal first."""
    folder, ledger = writer.folder, writer.ledger
    last = ledger.crls[name][0] if name in ledger.crls else 0
    number = max(last + 1, seconds(now))
    if days is None:
        days = _crl_days(folder.settings(), ledger.authority(name).kind)
    revoked = [
        (entry.serial, entry.revoked, REASONS.get(entry.reason, x509.ReasonFlags.unspecified))
        for entry in ledger.revoked_by(name, now)
        if entry.revoked is not None
    ]
    made = crl(issuer, number, now, days, revoked)
    writer.append([journal.crl(name, number, _until(made), now)])
    file = folder.crl(name)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(file, made.public_bytes(Encoding.DER), 0o600)
    sync([file])
    return made

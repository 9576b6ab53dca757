"""From a serial number to key and certificate in their places, so that it can be cut off at any moment.

The order, for each batch: serials and places into the journal; keys as drafts beside their places;
certificates into the journal; drafts into their places; "delivered" into the journal. What was cut off before
the certificates leaves nothing but serial numbers that are never used; what was cut off after them is carried
to its end. ``mend`` does both, whenever the lock is taken next.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl.errors import IpsecctlError, PkiError
from ipsecctl.pki import ledger as journal
from ipsecctl.pki.folder import Writer, sync, write_new, write_whole
from ipsecctl.pki.keytypes import KeyType, key_pem, make_key, public_der
from ipsecctl.pki.ledger import Entry, Kind, Places
from ipsecctl.pki.profiles import Issuer, Subject, end_certificate
from ipsecctl.pki.sealing import seal_to_recipients, unsealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

__all__ = ["Order", "issue", "mend", "new_serial"]

BATCH: Final = 256
"""Certificates that share the journal's and the file system's syncs."""

_SERIAL_BITS: Final = 159
"""20 octets at most, the first bit 0 as it is the sign (RFC 5280 section 4.1.2.2)."""


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate to be issued: to whom, where it goes, and with which key.

    With ``public_key`` none is made, and ``places.key`` is empty. ``recipients`` are those that a key is
    encrypted to (``places.encrypted``).
    """

    name: str
    identity: str
    places: Places
    days: float
    key_type: KeyType = KeyType.ECDSA_P256
    server_auth: bool = False
    public_key: CertificatePublicKeyTypes | None = None
    recipients: tuple[str, ...] = ()


def new_serial(taken: Iterable[int]) -> int:
    """Return a random serial number that is not taken."""
    taken = taken if isinstance(taken, set | dict) else set(taken)
    while True:
        serial = secrets.randbits(_SERIAL_BITS)
        if serial.bit_length() > _SERIAL_BITS - 64 and serial not in taken:
            return serial


def issue(
    writer: Writer,
    issuer: Issuer,
    name: str,
    orders: Sequence[Order],
    now: datetime,
    told: Callable[[int], None] = lambda _: None,
) -> tuple[Entry, ...]:
    """Issue certificates and put them and their keys into their places; return them in the order given.

    ``name`` is the issuer's, as ``issuing-1``; ``told`` hears how many are done. What fails leaves what came
    before it issued, and nothing of its own batch half done.
    """
    done: list[int] = []
    for at in range(0, len(orders), BATCH):
        try:
            done += _batch(writer, issuer, name, orders[at : at + BATCH], now)
        except BaseException:
            with suppress(OSError, IpsecctlError):  # else whoever takes the lock next does it
                mend(writer, now)
            raise
        told(len(done))
    return tuple(writer.ledger.entries[serial] for serial in done)


def _batch(writer: Writer, issuer: Issuer, name: str, orders: Sequence[Order], now: datetime) -> list[int]:
    entries: list[Entry] = []
    taken = set(writer.ledger.entries)
    for order in orders:
        serial = new_serial(taken)
        taken.add(serial)
        entries.append(
            Entry(
                serial=serial,
                kind=Kind.END,
                issuer=name,
                name=order.name,
                identity=order.identity,
                places=order.places,
                at=now,
                days=order.days,
                server_auth=order.server_auth,
            )
        )
    writer.append([journal.reserve(entry) for entry in entries])
    pairs = list(zip(entries, orders, strict=True))
    keys = [_key(entry, order) for entry, order in pairs]
    sync([_draft(entry) for entry in entries if entry.places.new_key])
    certificates = [
        end_certificate(
            Subject(order.identity, order.name),
            key,
            entry.serial,
            now,
            order.days,
            issuer,
            server_auth=order.server_auth,
        )
        for (entry, order), key in zip(pairs, keys, strict=True)
    ]
    writer.append(
        [
            journal.issue(entry.serial, certificate.public_bytes(Encoding.DER), now)
            for entry, certificate in zip(entries, certificates, strict=True)
        ]
    )
    _deliver(writer, [writer.ledger.entries[entry.serial] for entry in entries], now)
    return [entry.serial for entry in entries]


def _key(entry: Entry, order: Order) -> CertificatePublicKeyTypes:
    """Return the public key of an order; one that is made here lies in its draft then."""
    if order.public_key is not None:
        return order.public_key
    key = make_key(order.key_type)
    content = key_pem(key)
    if entry.places.encrypted:
        content = seal_to_recipients(content, order.recipients)
    write_new(_draft(entry), content, 0o600)
    return key.public_key()


def _draft(entry: Entry) -> Path:
    place = Path(entry.places.key)
    return place.with_name(f".{place.name}.{entry.serial_text[-16:]}.new")


def _deliver(writer: Writer, entries: Sequence[Entry], now: datetime) -> None:
    """Put keys and certificates into their places; raise ``PkiError`` where something came in between."""
    for entry in entries:
        why = _place(entry)
        if why:
            raise PkiError(why, "what is in the way came while this was at work; nothing of it was changed")
    sync([Path(place) for e in entries for place in (e.places.new_key, e.places.certificate) if place])
    writer.append([journal.deliver(entry.serial, now) for entry in entries])


def _place(entry: Entry) -> str:
    """Put key and certificate of one entry into their places; return why that cannot be, else ``""``."""
    places = entry.places
    if places.new_key:
        draft, key = _draft(entry), Path(places.key)
        if draft.exists():
            if places.replaces:
                draft.replace(key)
            else:
                try:
                    key.hardlink_to(draft)
                except FileExistsError:
                    if not key.samefile(draft):
                        return f"{key} is somebody else's"
                draft.unlink()
        elif not _is_key_of(entry, key):
            return f"the key of {entry.serial_text} is not in {key}"
    if places.certificate:
        certificate, pem = Path(places.certificate), entry.certificate.public_bytes(Encoding.PEM)
        there = certificate.read_bytes() if certificate.exists() else None
        if there is not None and there != pem and not places.replaces:
            return f"{certificate} is somebody else's"
        if there != pem:
            write_whole(certificate, pem, 0o644)
    return ""


def _is_key_of(entry: Entry, key: Path) -> bool:
    """Whether a file holds an entry's key; of one that is encrypted only that it is there can be seen."""
    if not key.exists() or entry.places.encrypted:
        return key.exists()
    try:
        found = unsealed(key.read_bytes(), None, str(key))
    except (OSError, PkiError):
        return False
    return public_der(found.public_key()) == public_der(entry.certificate.public_key())


def mend(writer: Writer, now: datetime) -> tuple[str, ...]:
    """Bring to an end what was cut off; return what was found and done, a sentence for each."""
    return tuple(_mended(writer, now))


def _mended(writer: Writer, now: datetime) -> Iterator[str]:
    for entry in writer.ledger.under_way():
        who = f"{entry.name} ({entry.serial_text})"
        if not entry.der:
            if entry.places.new_key:
                _draft(entry).unlink(missing_ok=True)
            writer.append([journal.abandon(entry.serial, "cut off before it was signed", now)])
            yield f"A certificate for {who} was not made: that was cut off. Its key was removed."
            continue
        why = _place(entry)
        if not why:
            writer.append([journal.deliver(entry.serial, now)])
            yield f"The certificate for {who} was made and not put in its place: now it is."
            continue
        if entry.places.new_key:
            _draft(entry).unlink(missing_ok=True)
        writer.append(
            [
                journal.revoke(entry.serial, "cessation-of-operation", now),
                journal.deliver(entry.serial, now),
            ]
        )
        yield (
            f"The certificate for {who} was made and could not be put in its place ({why}): "
            "it is revoked, and on the next CRL."
        )

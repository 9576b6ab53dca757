"""The CA's journal: what it says, and what follows from it. Text in, text out; the file is ``folder``'s.

One record a line, JSON, numbered from 1 without gaps. What is said in it has happened, or is about to: a
serial number is in it before anything is signed with it, a certificate before anybody gets it.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from cryptography import x509

from ipsecctl.errors import PkiError
from ipsecctl.pki.keytypes import key_type_of

__all__ = ["Entry", "Kind", "Ledger", "Places", "Record", "State", "fold", "lines_of", "parse"]

_WORDS: Final = frozenset({"reserve", "issue", "deliver", "abandon", "revoke", "crl"})


class Kind(StrEnum):
    """Whose certificate it is."""

    ROOT = "root"
    ISSUING = "issuing"
    END = "end"


class State(StrEnum):
    """What a certificate is at a moment."""

    VALID = "valid"
    NOT_YET = "not yet valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a certificate and its key go: absolute paths, empty for none.

    ``encrypted`` is for a key that is encrypted with age; ``replaces`` when what is there is to be replaced;
    ``keeps_key`` when the key is that of the certificate before.
    """

    certificate: str = ""
    key: str = ""
    encrypted: bool = False
    replaces: bool = False
    keeps_key: bool = False

    @property
    def new_key(self) -> str:
        """Where a key goes that is made, empty when none is."""
        return "" if self.keeps_key else self.key

    def as_json(self) -> dict[str, Any]:
        return {
            "certificate": self.certificate,
            "key": self.key,
            "encrypted": self.encrypted,
            "replaces": self.replaces,
            "keeps_key": self.keeps_key,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal: what was done, with what."""

    do: str
    at: datetime
    values: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A serial number and what became of it. ``issuer`` and ``name`` are as ``issuing-1`` for a CA's own."""

    serial: int
    kind: Kind
    issuer: str
    name: str
    identity: str
    places: Places
    at: datetime
    days: float = 0
    server_auth: bool = False
    der: bytes = b""
    delivered: bool = False
    abandoned: str = ""
    revoked: datetime | None = None
    reason: str = ""

    @cached_property
    def certificate(self) -> x509.Certificate:
        """The certificate, of an entry that has come so far."""
        return x509.load_der_x509_certificate(self.der)

    @property
    def serial_text(self) -> str:
        return f"{self.serial:040x}"

    @property
    def is_under_way(self) -> bool:
        """Whether its issuing was begun and has not come to an end."""
        return not self.delivered and not self.abandoned

    @cached_property
    def key_type(self) -> str:
        return key_type_of(self.certificate.public_key())

    def state(self, now: datetime, *, superseded: bool = False) -> State:
        """Return what it is; a CA's CRL needs no more than ``revoked``."""
        if self.abandoned:
            return State.ABANDONED
        if self.revoked is not None:
            return State.REVOKED
        if now > self.certificate.not_valid_after_utc:
            return State.EXPIRED
        if now < self.certificate.not_valid_before_utc:
            return State.NOT_YET
        return State.SUPERSEDED if superseded else State.VALID


@dataclass(frozen=True, slots=True)
class Ledger:
    """All entries by serial in the order of the journal, and the last CRL of each CA: number, until when."""

    entries: dict[int, Entry] = field(default_factory=dict)
    crls: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    records: int = 0

    def issued(self) -> tuple[Entry, ...]:
        """Return what has a certificate, in the order of issue."""
        return tuple(entry for entry in self.entries.values() if entry.der)

    def under_way(self) -> tuple[Entry, ...]:
        """Return what was begun and has not come to an end."""
        return tuple(entry for entry in self.entries.values() if entry.is_under_way)

    def authority(self, name: str) -> Entry:
        """Return the CA of a name as ``issuing-1``. Raises ``PkiError``."""
        for entry in self.issued():
            if entry.kind is not Kind.END and entry.name == name:
                return entry
        known = ", ".join(e.name for e in self.issued() if e.kind is not Kind.END)
        raise PkiError(f"there is no CA {name!r} here", f"there is {known}")

    def newest(self, kind: Kind) -> Entry | None:
        """Return the CA of a kind that was made last."""
        found = [entry for entry in self.issued() if entry.kind is kind]
        return found[-1] if found else None

    def current(self) -> tuple[Entry, ...]:
        """Return of each gateway and place the certificate that was issued last, in the order of issue.

        What was abandoned or revoked is none, and takes nobody's place.
        """
        last: dict[tuple[str, str], Entry] = {}
        for entry in self.issued():
            if entry.kind is Kind.END and not entry.abandoned and entry.revoked is None:
                key = (entry.name, entry.places.certificate)
                last.pop(key, None)
                last[key] = entry
        return tuple(last.values())

    def revoked_by(self, issuer: str, now: datetime) -> tuple[Entry, ...]:
        """Return what belongs on a CA's CRL: revoked, and not expired (RFC 5280 section 3.3)."""
        return tuple(
            entry
            for entry in self.issued()
            if entry.issuer == issuer
            and entry.revoked is not None
            and now <= entry.certificate.not_valid_after_utc
        )


def lines_of(records: Iterable[Record], first: int) -> bytes:
    """Return records as lines, numbered from ``first``."""
    return b"".join(
        json.dumps(
            {"n": number, "at": _time_text(record.at), "do": record.do, **record.values},
            separators=(",", ":"),
        ).encode()
        + b"\n"
        for number, record in enumerate(records, first)
    )


def parse(content: bytes, file: str) -> tuple[tuple[Record, ...], int]:
    """Return the records of a journal, and of how many bytes they are: fewer where the last line was cut off.

    Raises ``PkiError`` where a line is damaged, or one is missing.
    """
    end = content.rfind(b"\n") + 1
    records = tuple(_records(content[:end], file))
    return records, end


def _records(content: bytes, file: str) -> Iterator[Record]:
    for number, line in enumerate(content.splitlines(), 1):
        try:
            values = json.loads(line)
            said, at, do = values.pop("n"), _time(values.pop("at")), values.pop("do")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise _damaged(file, number, "is damaged") from None
        if said != number:
            raise _damaged(file, number, f"has the number {said}: something is missing before it, or doubled")
        if do not in _WORDS:
            hint = "it was written by a newer ipsecctl: use that"
            raise PkiError(f"{file}:{number}: 'do' is {do!r}, which is not known here", hint)
        yield Record(do, at, values)


def _damaged(file: str, number: int, what: str) -> PkiError:
    return PkiError(f"{file}:{number}: this line {what}", "bring the CA's folder back from a backup")


def fold(records: Sequence[Record], file: str, before: Ledger | None = None) -> Ledger:
    """Return what follows from a journal, or more of it. Raises ``PkiError`` where it contradicts itself."""
    before = before or Ledger()
    entries, crls = dict(before.entries), dict(before.crls)
    for number, record in enumerate(records, before.records + 1):
        values = record.values
        try:
            if record.do == "crl":
                crls[values["issuer"]] = (values["number"], _time(values["until"]))
                continue
            serial = int(values["serial"], 16)
            if record.do == "reserve":
                if serial in entries:
                    raise _damaged(file, number, "has a serial number for the second time")
                entries[serial] = _reserved(serial, record)
            else:
                entries[serial] = _gone_on(entries[serial], record)
        except (KeyError, ValueError, TypeError):
            raise _damaged(file, number, "fits nothing before it") from None
    return Ledger(entries, crls, before.records + len(records))


def _reserved(serial: int, record: Record) -> Entry:
    values = record.values
    return Entry(
        serial=serial,
        kind=Kind(values["kind"]),
        issuer=values["issuer"],
        name=values["name"],
        identity=values["identity"],
        places=Places(**values["places"]),
        at=record.at,
        days=values["days"],
        server_auth=values["server_auth"],
    )


def _gone_on(entry: Entry, record: Record) -> Entry:
    values = record.values
    if record.do == "issue":
        return replace(entry, der=b64decode(values["der"], validate=True))
    if record.do == "deliver":
        return replace(entry, delivered=True)
    if record.do == "abandon":
        return replace(entry, abandoned=values["why"])
    return replace(entry, revoked=record.at, reason=values["reason"])


def reserve(entry: Entry) -> Record:
    """Return the record by which a serial number is taken for good."""
    return Record(
        "reserve",
        entry.at,
        {
            "serial": entry.serial_text,
            "kind": entry.kind,
            "issuer": entry.issuer,
            "name": entry.name,
            "identity": entry.identity,
            "places": entry.places.as_json(),
            "days": entry.days,
            "server_auth": entry.server_auth,
        },
    )


def issue(serial: int, der: bytes, at: datetime) -> Record:
    """Return the record that holds a certificate."""
    return Record("issue", at, {"serial": f"{serial:040x}", "der": b64encode(der).decode()})


def deliver(serial: int, at: datetime) -> Record:
    """Return the record that key and certificate are in their places."""
    return Record("deliver", at, {"serial": f"{serial:040x}"})


def abandon(serial: int, why: str, at: datetime) -> Record:
    """Return the record that a serial number came to nothing."""
    return Record("abandon", at, {"serial": f"{serial:040x}", "why": why})


def revoke(serial: int, reason: str, at: datetime) -> Record:
    """Return the record that a certificate is revoked from now on."""
    return Record("revoke", at, {"serial": f"{serial:040x}", "reason": reason})


def crl(issuer: str, number: int, until: datetime, at: datetime) -> Record:
    """Return the record that a CA has made a CRL."""
    return Record("crl", at, {"issuer": issuer, "number": number, "until": _time_text(until)})


def _time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

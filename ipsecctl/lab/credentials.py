"""Credentials that a topology refers to and that are not there yet: the lab makes them.

PSKs come from ``ipsecctl.secrets``. Certificates are issued by a small CA of the lab, whose keys are kept
in plain beside its certificates so that a gateway that is added later gets one too. What stands in them is
decided where it is for ``ipsecctl pki``. What is there already is never touched.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl.errors import LabError
from ipsecctl.pki.keytypes import KeyType, key_pem, make_key
from ipsecctl.pki.profiles import Issuer, Subject, ca_certificate, end_certificate
from ipsecctl.pki.sealing import unsealed
from ipsecctl.pki.wanted import Wanted, wanted
from ipsecctl.secrets import write_missing
from ipsecctl.topology import SecretKind, Topology

__all__ = ["make_missing"]

_CA_DAYS: Final = 3650
_DAYS: Final = 1825
_KEYS: Final = KeyType.ECDSA_P256


@dataclass(frozen=True, order=True, slots=True)
class _Missing:
    """A certificate that the topology refers to: its owner, and its places; ``chain`` may be none."""

    ca: Path
    chain: Path | None
    certificate: Path
    key: Path
    identity: str
    gateway: str


def make_missing(topology: Topology) -> tuple[Path, ...]:
    """Make the PSKs and certificates that a topology refers to and that are missing; keys are owner-only.

    Returns the files made, in the order in which they were. Raises ``LabError`` when a certificate is missing
    that the lab cannot issue, because the CA is not its own.
    """
    base = Path(topology.file).parent
    made = [Path(path) for path in write_missing(topology, base)]
    in_files = (one for one in wanted(topology) if one.key.kind is SecretKind.FILE)
    for one in sorted(_missing(one, base) for one in in_files):
        if one.certificate.exists() and one.key.exists():
            continue
        if one.certificate.exists() or one.key.exists():
            there, gone = sorted((one.certificate, one.key), key=Path.exists, reverse=True)
            raise LabError(
                f"{there} is there and {gone} is not", "Bring it back, or remove both for new ones."
            )
        made += _issue(one)
    return tuple(made)


def _missing(one: Wanted, base: Path) -> _Missing:
    chain = base / one.chain if one.chain else None
    places = (base / one.anchor, chain, base / one.certificate, base / one.key.value)
    return _Missing(*places, one.identity, one.gateway)


def _issue(one: _Missing) -> Iterator[Path]:
    """Issue a certificate, and make the CAs first if there are none; yields the files as they are made."""
    now = datetime.now(UTC)
    yield from _make_authority(one, one.ca, None, now)
    issuer = _authority(one, one.ca)
    if one.chain is not None:
        yield from _make_authority(one, one.chain, issuer, now)
        issuer = _authority(one, one.chain)
    key = make_key(_KEYS)
    serial = x509.random_serial_number()
    certificate = end_certificate(
        Subject(one.identity, one.gateway), key.public_key(), serial, now, _DAYS, issuer
    )
    yield _write(one.key, key_pem(key), 0o600)
    yield _write(one.certificate, certificate.public_bytes(Encoding.PEM), 0o644)


def _make_authority(one: _Missing, place: Path, above: Issuer | None, now: datetime) -> Iterator[Path]:
    """Make a CA where its certificate is not there: a root, or one that another has issued."""
    if place.exists():
        return
    key = make_key(_KEYS)
    certificate = ca_certificate(
        f"ipsecctl lab CA {place.parent.name}{' issuing' if above else ''}",
        key.public_key(),
        x509.random_serial_number(),
        now,
        _CA_DAYS,
        issuer=above,
        signer=key,
        path_length=1 if above is None and one.chain is not None else 0,
    )
    yield _write(_key_beside(place), key_pem(key), 0o600)
    yield _write(place, certificate.public_bytes(Encoding.PEM), 0o644)


def _key_beside(place: Path) -> Path:
    return place.with_suffix(".key")


def _authority(one: _Missing, place: Path) -> Issuer:
    key = _key_beside(place)
    if not key.exists():
        raise LabError(
            f"{one.certificate} is missing, and {place} is not the lab's: there is no {key}",
            "Put the certificate there, or remove the CA's certificate for a new one.",
        )
    certificate = x509.load_pem_x509_certificate(place.read_bytes())
    return Issuer(certificate, unsealed(key.read_bytes(), None, str(key)))


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

"""What is to be renewed: time is an argument."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from ipsecctl.errors import PkiError
from ipsecctl.pki.profiles import CLOCK_SLACK

if TYPE_CHECKING:
    from cryptography import x509

    from ipsecctl.pki.ledger import Entry

__all__ = ["due", "duration", "is_due"]

_UNITS: Final = {"h": 1 / 24, "d": 1, "w": 7, "y": 365}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([hdwy]?)")


def is_due(certificate: x509.Certificate, now: datetime, within: timedelta | None) -> bool:
    """Whether a certificate has less than ``within`` to run, by default a third of its life.

    Its life begins when it was made, which is a while after it became valid.
    """
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if life > CLOCK_SLACK:
        life -= CLOCK_SLACK
    return certificate.not_valid_after_utc - now < (life / 3 if within is None else within)


def due(entries: Iterable[Entry], now: datetime, within: timedelta | None = None) -> tuple[Entry, ...]:
    """Return the entries that are to be renewed, those that run out first in front."""
    found = (entry for entry in entries if is_due(entry.certificate, now, within))
    return tuple(sorted(found, key=lambda entry: (entry.certificate.not_valid_after_utc, entry.name)))


def duration(text: str) -> timedelta:
    """Return a span as ``30d``, ``12h``, ``2w``, ``1y``; days without a unit. Raises ``PkiError``."""
    match = _DURATION.fullmatch(text.strip().lower())
    days = float(match[1]) * _UNITS[match[2] or "d"] if match else 0.0
    if not 0 < days <= 100 * 365:
        raise PkiError(f"{text!r} is no span of time", "as 30d, 12h, 2w or 1y")
    return timedelta(days=days)

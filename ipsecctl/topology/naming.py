"""What a tunnel in route mode is called on a gateway: the name of its interface, and its if_id."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["HOLDING_INTERFACE", "INTERFACE_PREFIX", "derived_if_id", "interface_name"]

INTERFACE_PREFIX: Final = "ix-"
"""How the names of all our interfaces begin."""

HOLDING_INTERFACE: Final = f"{INTERFACE_PREFIX}hold"
"""The one that leads nowhere; no tunnel's has its name."""

_LONGEST: Final = 15
"""IFNAMSIZ less the NUL (linux/if.h)."""


def interface_name(tunnel: str) -> str:
    """Return the name of a tunnel's interface, at most 15 characters, the same for the same tunnel.

    ``ix-`` and the tunnel's name where that fits and is free, else five characters of it and six digits of
    its SHA-256.
    """
    name = f"{INTERFACE_PREFIX}{tunnel}"
    if len(name) <= _LONGEST and name != HOLDING_INTERFACE:
        return name
    return f"{INTERFACE_PREFIX}{tunnel[:5]}-{hashlib.sha256(tunnel.encode()).hexdigest()[:6]}"


def derived_if_id(topology: str, tunnel: str) -> int:
    """Return the if_id of a tunnel that names none: 31 bits of a SHA-256 of both names, never 0."""
    digest = hashlib.sha256(f"{topology}/{tunnel}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1 or 1

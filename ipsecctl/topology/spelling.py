"""What charon can be told: which names it takes, and which identities it takes for one peer and no other."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from netaddr import valid_ipv4, valid_ipv6

__all__ = ["LONGEST_CHILD_NAME", "RESERVED_NAME", "identity_fault"]

RESERVED_NAME: Final = "include"
"""The one name that strongSwan's settings files take for a directive (settings_lexer.l)."""

LONGEST_CHILD_NAME: Final = 240
"""VICI counts the bytes of a name in one byte; ``list-sas`` adds ``-`` and a number to a child's."""

# vici_message.c refuses other characters, vici_cred.c cuts what is longer.
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,255}")
_ANY: Final = frozenset({"", "%any", "%any6", "0.0.0.0", "*", "::", "0::0"})  # noqa: S104 - not an address to bind
# identification.c: blocks of addresses, and types by their number (any and blocks are among them).
_BLOCK_TYPE: Final = re.compile(r"ipv[46](net|range):|\{[^}]*\}:", re.IGNORECASE)


@lru_cache(maxsize=1 << 16)  # each is written, or sent, many times
def identity_fault(text: str) -> str:
    """Return why a text cannot be an IKE identity, "" when it can.

    charon refuses, or cuts, what is not printable ASCII or longer than 255 characters. What it takes as a
    pattern (identification.c: ``%any``, wildcards, blocks of addresses, regular expressions) names more than
    one peer.
    """
    if not _PRINTABLE.fullmatch(text):
        return "charon takes identities of 1 to 255 printable ASCII characters"
    kind, _, rest = text.rpartition(":^")
    is_expression = text.startswith("^") or bool(kind and rest.endswith("$"))
    if text.strip() in _ANY or "*" in text or is_expression or _is_block(text):
        return "it is a pattern that several peers match, and an identity names one"
    return ""


def _is_block(text: str) -> bool:
    """Whether an identity reads as ``ADDRESS/LENGTH`` or ``ADDRESS-ADDRESS``."""
    if _BLOCK_TYPE.match(text):
        return True
    if "/" in text:
        return _is_address(text.partition("/")[0])  # charon reads any length, "x" as 0
    first, dash, last = text.partition("-")
    return bool(dash) and _is_address(first) and _is_address(last)


def _is_address(text: str) -> bool:
    return bool(valid_ipv4(text) or valid_ipv6(text))

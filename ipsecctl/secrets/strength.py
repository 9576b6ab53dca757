"""How hard a PSK is to guess: an upper bound from what an attacker tries first.

IKEv2's PSK authentication can be attacked offline by whoever plays the responder once (RFC 7296 section 8),
so a PSK needs the strength of a key. The estimate reduces repetitions, sequences and known words before it
counts characters; it says "at most": a PSK that a person made up has less.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

__all__ = ["STRONG_BITS", "WEAK_BITS", "guess_bits"]

WEAK_BITS: Final = 64
"""Below this a PSK can be guessed by a determined person."""

STRONG_BITS: Final = 112
"""From this on a PSK is as strong as the weakest key exchange allowed (NIST SP 800-131A)."""

_WORD_BITS: Final = 12.9  # one of a list of 7,776 words
_WORDS: Final = (
    "administrator",
    "password",
    "passwort",
    "fortinet",
    "juniper",
    "strongswan",
    "changeme",
    "preshared",
    "letmein",
    "default",
    "welcome",
    "sharedkey",
    "company",
    "example",
    "hospital",
    "clinic",
    "secret",
    "tunnel",
    "shared",
    "cisco",
    "ipsec",
    "qwertyuiop",
    "qwertzuiop",
    "asdfghjkl",
    "zxcvbnm",
    "yxcvbnm",
    "qwertz",
    "qwerty",
    "azerty",
    "monkey",
    "dragon",
    "admin",
    "hello",
    "test",
    "vpn",
    "psk",
    "key",
)
_LEET: Final = str.maketrans("013457@$!", "oieastasi")
_CLASSES: Final = (("0123456789", 10), ("abcdefghijklmnopqrstuvwxyz", 26), ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26))
_OTHERS: Final = 33
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_PHRASE: Final = re.compile(r"[A-Za-z][a-z]+(?:[ ._-]?[A-Z][a-z]+|[ ._-][a-z]+)+")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+")
_YEAR: Final = re.compile(r"(?:19|20)[0-9]{2}")
_VOWEL: Final = re.compile(r"[aeiouyAEIOUY]")


def guess_bits(psk: str, names: Iterable[str] = ()) -> int:
    """Return an upper bound of the bits of strength of ``psk``.

    ``names`` are words that an attacker of this very tunnel tries: names of sites, gateways and tunnels.
    """
    bits = _character_bits(_reduced(psk, names), _alphabet(psk))
    words = _WORD.findall(psk) if _PHRASE.fullmatch(psk) else []
    if words and all(map(_VOWEL.search, words)):
        bits = min(bits, _WORD_BITS * len(words))
    return int(bits)


def _reduced(psk: str, names: Iterable[str]) -> str:
    """Return ``psk`` with one character for each thing that is guessed as a whole."""
    text = _YEAR.sub("\0", _one_period(psk))
    return _without_runs(_without_words(text, names))


def _one_period(text: str) -> str:
    """Return the part that ``text`` repeats: a text turned within its double shows its period."""
    period = (text + text).find(text, 1)
    return text[:period] if 0 < period < len(text) else text


def _without_words(text: str, names: Iterable[str]) -> str:
    """Return ``text`` with two characters for each known word, about the 13 bits of one of many."""
    plain = text.lower().translate(_LEET)
    parts = (part for name in names for part in re.split(r"[^a-z]+", name.lower()))
    known = {*_WORDS, *(part for part in parts if len(part) > 2)}
    for word in sorted(known, key=lambda word: (-len(word), word)):
        while (at := plain.find(word)) >= 0:
            text = f"{text[:at]}\0\0{text[at + len(word) :]}"
            plain = f"{plain[:at]}\0\0{plain[at + len(word) :]}"
    return text


def _without_runs(text: str) -> str:
    """Return ``text`` with equal or consecutive characters in a row (``aaaa``, ``4321``) as two."""
    kept: list[str] = []
    last_step: int | None = None
    for character in text:
        step = ord(character) - ord(kept[-1]) if kept else None
        if step in {0, 1, -1} and step == last_step:
            kept[-1] = character
        else:
            kept.append(character)
        last_step = step
    return "".join(kept)


def _alphabet(psk: str) -> int:
    if _HEX.fullmatch(psk) and not psk.isdecimal():
        return 16
    size = sum(count for characters, count in _CLASSES if any(c in characters for c in psk))
    known = "".join(characters for characters, _ in _CLASSES)
    return size + (_OTHERS if any(c not in known for c in psk) else 0)


def _character_bits(text: str, alphabet: int) -> float:
    """Return the strength of ``text`` if its characters are random, less where few of them differ."""
    distinct = len(set(text))
    if distinct < 2:
        return math.log2(alphabet)
    # Random text of the usual lengths shows at least a quarter of its alphabet.
    return len(text) * math.log2(min(alphabet, 4 * distinct))

"""How hard a PSK is to guess: an estimate from what an attacker tries first.

IKEv2's PSK authentication can be attacked offline by whoever plays the responder once (RFC 7296 section 8),
so a PSK needs the strength of a key. The estimate reduces repetitions, sequences and known words before it
counts characters as if they were random: what a person made up has less still.
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
_KNOWN: Final = re.compile("|".join(sorted(_WORDS, key=len, reverse=True)))
_LETTERS: Final = re.compile(r"[a-z]{3,}")
_LEET: Final = str.maketrans("013457@$!", "oieastasi")
_KINDS: Final = (
    (re.compile(r"[0-9]"), 10),
    (re.compile(r"[a-z]"), 26),
    (re.compile(r"[A-Z]"), 26),
    (re.compile(r"[^0-9a-zA-Z]"), 33),
)
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_PHRASE: Final = re.compile(r"[A-Za-z][a-z]+(?:[ ._-]?[A-Z][a-z]+|[ ._-][a-z]+)+")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+")
_YEAR: Final = re.compile(r"(?:19|20)[0-9]{2}")
_VOWEL: Final = re.compile(r"[aeiouyAEIOUY]")


def guess_bits(psk: str, names: Iterable[str] = ()) -> int:
    """Return about how many bits of strength ``psk`` has.

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
    return _without_words(_without_runs(text), names)


def _one_period(text: str) -> str:
    """Return the part that ``text`` repeats: a text turned within its double shows its period."""
    period = (text + text).find(text, 1)
    return text[:period] if 0 < period < len(text) else text


def _without_words(text: str, names: Iterable[str]) -> str:
    """Return ``text`` with two characters for each known word, about the 13 bits of one of many."""
    plain = text.lower().translate(_LEET)
    found = [match.span() for match in _KNOWN.finditer(plain)]
    for part in {part for name in names for part in _LETTERS.findall(name.lower())}:
        at = plain.find(part)
        if at >= 0:
            found.append((at, at + len(part)))
    out, end = "", 0
    for first, last in sorted(found, key=lambda span: (span[0], -span[1])):
        if first >= end:
            # Characters of their own: two different words are no repetition.
            out += text[end:first] + chr(0xE000 + first) + chr(0xF000 + first)
            # What joins words adds next to nothing.
            end = last + (text[last : last + 1] in {" ", ".", "_", "-"})
    return out + text[end:]


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
    """Return how many characters there are of the kinds that ``psk`` uses."""
    if _HEX.fullmatch(psk) and not psk.isdecimal():
        return 16
    return sum(size for kind, size in _KINDS if kind.search(psk))


def _character_bits(text: str, alphabet: int) -> float:
    """Return the strength of ``text`` if its characters are random, less where few of them differ."""
    distinct = len(set(text))
    if distinct < 2:
        return math.log2(alphabet)
    # Random text of the usual lengths shows at least a quarter of its alphabet.
    return len(text) * math.log2(min(alphabet, 4 * distinct))

"""Reading proposals as swanctl writes them, and finding what IKEv2 would choose.

Syntax and meaning follow strongSwan (https://docs.strongswan.org/docs/latest/config/proposals.html): keywords
joined by ``-``; several of one kind are alternatives in order of preference; an IKE proposal without a PRF
takes the PRF of its integrity algorithms. Stricter in one thing: what charon drops silently (integrity beside
an AEAD) or what protects nothing (encryption without integrity) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from ipsecctl.crypto.algorithms import KEYWORDS, Algorithm, Kind, Status, nearest

__all__ = [
    "Examined",
    "Proposal",
    "ProposalError",
    "Protocol",
    "examine_proposal",
    "in_common",
    "negotiate",
    "parse_esp_proposal",
    "parse_ike_proposal",
]

_ADDITIONAL: Final = re.compile(r"ke([1-7])_(.+)")
_NONE: Final = KEYWORDS["none"]
_UNBROKEN: Final = {keyword.replace("_", ""): keyword for keyword in KEYWORDS}
"""Keywords as they look when their parts are put together."""
_LONGEST_TEAR: Final = 4


class Protocol(StrEnum):
    """What a proposal protects: the IKE SA or CHILD_SAs."""

    IKE = "ike"
    ESP = "esp"


class ProposalError(ValueError):
    """A proposal that cannot be used.

    ``keyword`` is the word at fault (or the whole proposal), ``nearest`` the right word or proposal in its
    place or ``""``. ``code`` is stable: ``IP201`` unknown keyword, ``IP202`` a proposal that does not hang
    together, ``IP203`` no proposal at all. ``hint`` says how to mend it.
    """

    def __init__(self, code: str, summary: str, *, keyword: str, nearest: str = "", hint: str = "") -> None:
        super().__init__(summary)
        self.code = code
        self.summary = summary
        self.keyword = keyword
        self.nearest = nearest
        self.hint = hint or (f"did you mean {nearest!r}?" if nearest else "")


@dataclass(frozen=True, order=True, slots=True)
class Proposal:
    """One proposal: for each kind of algorithm the alternatives, in order of preference.

    ``additional`` holds the additional key exchanges of RFC 9370 as pairs of their number (1 to 7) and their
    alternatives, ascending. The algorithm ``none`` among key exchanges makes that exchange optional. ``prf``
    is empty for ESP, ``sequence_numbers`` for IKE. ``str()`` gives the proposal in swanctl's syntax.
    """

    protocol: Protocol
    encryption: tuple[Algorithm, ...]
    integrity: tuple[Algorithm, ...] = ()
    prf: tuple[Algorithm, ...] = ()
    key_exchange: tuple[Algorithm, ...] = ()
    additional: tuple[tuple[int, tuple[Algorithm, ...]], ...] = ()
    sequence_numbers: tuple[Algorithm, ...] = ()

    @property
    def esn(self) -> bool:
        """Whether extended sequence numbers are offered (RFC 4304)."""
        return any(algorithm.keyword == "esn" for algorithm in self.sequence_numbers)

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """Every algorithm named, each once, in the order encryption, integrity, PRF, key exchanges."""
        everything = [*self.encryption, *self.integrity, *self.prf, *self.key_exchange]
        everything += [algorithm for _, choices in self.additional for algorithm in choices]
        return tuple(dict.fromkeys([*everything, *self.sequence_numbers]))

    @property
    def status(self) -> Status:
        """The worst status of its algorithms."""
        found = {algorithm.status for algorithm in self.algorithms}
        return next((s for s in (Status.BROKEN, Status.LEGACY) if s in found), Status.GOOD)

    @property
    def pfs(self) -> bool:
        """Whether every key agreed with this proposal comes from a key exchange of its own."""
        return bool(self.key_exchange) and _NONE not in self.key_exchange

    def __str__(self) -> str:
        words = [a.keyword for a in (*self.encryption, *self.integrity, *self.prf, *self.key_exchange)]
        words += [f"ke{number}_{a.keyword}" for number, choices in self.additional for a in choices]
        # charon takes "noesn" for granted.
        words += [a.keyword for a in self.sequence_numbers] if self.esn else []
        return "-".join(words)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a proposal says, right or wrong.

    ``proposal`` is ``None`` exactly when there are ``errors``; ``algorithms`` are those that it names, also
    beside what is wrong.
    """

    proposal: Proposal | None
    algorithms: tuple[Algorithm, ...]
    errors: tuple[ProposalError, ...]


def examine_proposal(text: str, protocol: Protocol) -> Examined:
    """Read a proposal and find everything that is wrong with it, not only the first thing.

    What is missing is no fault of its own beside a word that is not known: it may be just that.
    """
    try:
        words = _read(text)
    except ProposalError as error:
        return Examined(None, (), (error,))
    named = _named(words, protocol)
    errors = (*words.unknown, *_incoherences(words, named))
    return Examined(None if errors else named, named.algorithms, errors)


def parse_ike_proposal(text: str) -> Proposal:
    """Read a proposal of ``connections.<conn>.proposals``.

    Raises ``ProposalError`` for an unknown keyword and for a proposal that lacks encryption, integrity
    (unless the cipher is an AEAD), a PRF or a key exchange.
    """
    return _parse(text, Protocol.IKE)


def parse_esp_proposal(text: str) -> Proposal:
    """Read a proposal of ``connections.<conn>.children.<child>.esp_proposals``.

    A PRF is ignored, as charon does. Raises ``ProposalError`` for an unknown keyword and for a proposal that
    lacks encryption or integrity, or has an additional key exchange without a first one.
    """
    return _parse(text, Protocol.ESP)


def _parse(text: str, protocol: Protocol) -> Proposal:
    examined = _examined(text, protocol)
    if examined.proposal is None:
        raise examined.errors[0]
    return examined.proposal


@lru_cache(maxsize=256)
def _examined(text: str, protocol: Protocol) -> Examined:
    """Examine what thousands of connections have in common once."""
    return examine_proposal(text, protocol)


def in_common(ours: Iterable[Proposal], theirs: Iterable[Proposal]) -> bool:
    """Return whether two ends with these proposals can agree (RFC 7296 section 2.7)."""
    return negotiate(ours, theirs) is not None


def negotiate(ours: Iterable[Proposal], theirs: Iterable[Proposal]) -> Proposal | None:
    """Return what two ends would agree on, our preference first, or ``None``.

    All key exchanges count, though a CHILD_SA made inside IKE_AUTH uses none: its first rekey would fail.
    """
    supplied = tuple(theirs)
    pairs = ((mine, other) for mine in ours for other in supplied)
    return next((chosen for mine, other in pairs if (chosen := _agree(mine, other)) is not None), None)


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of a proposal: (0, algorithm), or (n, algorithm) for additional key exchange n."""

    text: str
    entries: tuple[tuple[int, Algorithm], ...]
    unknown: tuple[ProposalError, ...]

    def of(self, kind: Kind) -> tuple[Algorithm, ...]:
        return tuple(dict.fromkeys(a for number, a in self.entries if not number and a.kind is kind))

    def additional(self) -> tuple[tuple[int, tuple[Algorithm, ...]], ...]:
        numbers = sorted({number for number, _ in self.entries if number})
        return tuple((n, tuple(dict.fromkeys(a for m, a in self.entries if m == n))) for n in numbers)


def _named(words: _Words, protocol: Protocol) -> Proposal:
    """Return what the words name, whether or not it hangs together."""
    exchanges = words.of(Kind.KEY_EXCHANGE)
    encryption, integrity = words.of(Kind.ENCRYPTION), words.of(Kind.INTEGRITY)
    if protocol is Protocol.ESP:
        numbers = words.of(Kind.SEQUENCE_NUMBERS) or (KEYWORDS["noesn"],)
        return Proposal(protocol, encryption, integrity, (), exchanges, words.additional(), numbers)
    prf = words.of(Kind.PRF) or _prfs_of(integrity)
    # charon drops an optional first exchange from IKE proposals: without one there is no IKE SA.
    exchanges = tuple(a for a in exchanges if a is not _NONE)
    return Proposal(protocol, encryption, integrity, prf, exchanges, words.additional())


def _read(text: str) -> _Words:
    """Split a proposal into its algorithms."""
    stripped = text.strip()
    if not stripped:
        raise ProposalError(
            "IP203", "an empty proposal", keyword=text, hint="write one such as 'aes256gcm16-x25519'"
        )
    if stripped == "default":
        raise ProposalError(
            "IP203",
            "'default' stands for whatever the gateway's charon happens to support",
            keyword=stripped,
            hint="name the algorithms, or a profile such as 'modern'",
        )
    words = [word.strip() for word in stripped.split("-")]
    entries: dict[int, tuple[int, Algorithm]] = {}
    unknown: list[ProposalError] = []
    position = 0
    while position < len(words):
        entry = _entry(words[position])
        if entry is not None:
            entries[position] = entry
            position += 1
            continue
        first, end = _torn(words, position)
        # What is a keyword by itself may be a part of the torn one.
        entries = {at: known for at, known in entries.items() if at < first}
        unknown.append(_unknown(words, first, end))
        position = end
    return _Words(stripped, tuple(entries.values()), tuple(unknown))


def _entry(word: str) -> tuple[int, Algorithm] | None:
    """Return the number of the additional key exchange (else 0) and the algorithm of a word."""
    algorithm = KEYWORDS.get(word)
    if algorithm is not None:
        return 0, algorithm
    additional = _ADDITIONAL.fullmatch(word)
    if additional is not None:
        algorithm = KEYWORDS.get(additional[2])
        if algorithm is not None and algorithm.kind is Kind.KEY_EXCHANGE:
            return int(additional[1]), algorithm
    return None


def _torn(words: list[str], position: int) -> tuple[int, int]:
    """Return first and end of the words around ``position`` that are one keyword torn by hyphens.

    The longest such keyword (``aes-256-gcm16``, ``sha2-256``); just the word itself when there is none.
    """
    if not words[position]:
        return position, position + 1
    spans = [
        (first, end)
        for first in range(max(0, position - _LONGEST_TEAR + 1), position + 1)
        for end in range(position + 1, min(len(words), first + _LONGEST_TEAR) + 1)
        if end - first > 1 and "".join(words[first:end]) in _UNBROKEN
    ]
    return max(spans, key=lambda span: span[1] - span[0], default=(position, position + 1))


def _unknown(words: list[str], first: int, end: int) -> ProposalError:
    """Return the error for a word that is no algorithm, or for words that are one torn apart."""
    word = words[first]
    if not word:
        return ProposalError("IP201", "an empty word in a proposal", keyword="", hint="remove a '-'")
    if end - first > 1:
        # "aes-256", "sha-256": the hyphen belongs between algorithms only.
        split, joined = "-".join(words[first:end]), _UNBROKEN["".join(words[first:end])]
        hint = f"write {joined!r} in place of {split!r}"
        return ProposalError(
            "IP201", f"unknown algorithm {split!r}", keyword=split, nearest=joined, hint=hint
        )
    hint = _misplaced(word)
    near = "" if hint else _nearest_word(word)
    return ProposalError("IP201", f"unknown algorithm {word!r}", keyword=word, nearest=near, hint=hint)


def _misplaced(word: str) -> str:
    """Return what is wrong with a ``keN_`` word whose number or algorithm cannot stand there, else ``""``."""
    if re.match(r"ke[089]_", word):
        return "additional key exchanges are 'ke1_' to 'ke7_'"
    additional = _ADDITIONAL.fullmatch(word)
    if additional is not None and additional[2] in KEYWORDS:
        return f"{additional[2]!r} is no key exchange; one such as 'ke1_mlkem768' is meant here"
    return ""


def _nearest_word(word: str) -> str:
    """Return the keyword that was probably meant, also with its ``keN_`` prefix."""
    prefix = re.match(r"ke_?([1-7])[_-]?(?=[a-z])", word.lower())
    if prefix is None:
        return nearest(word, KEYWORDS)
    exchanges = (w for w, a in KEYWORDS.items() if a.kind is Kind.KEY_EXCHANGE)
    near = nearest(word[prefix.end() :], exchanges)
    return f"ke{prefix[1]}_{near}" if near else ""


def _incoherences(words: _Words, named: Proposal) -> Iterator[ProposalError]:
    """Yield what does not hang together in a proposal, and what it lacks unless a word is not known."""
    yield from _misfits(words, named)
    if words.unknown:
        return
    text, ciphers = words.text, named.encryption
    if not ciphers:
        summary = f"{text}: names no encryption algorithm"
        yield _incoherent(text, summary, hint="begin with one such as 'aes256gcm16'")
    elif not named.integrity and not any(a.aead for a in ciphers):
        summary = f"{text}: '{ciphers[0]}' without an integrity algorithm protects nothing"
        yield _incoherent(text, summary, hint="add 'sha256', or take an AEAD such as 'aes256gcm16'")
    elif named.protocol is Protocol.IKE and not named.prf:
        summary = f"{text}: an IKE proposal with an AEAD cipher must name its PRF"
        yield _incoherent(text, summary, hint="add 'prfsha256' or 'prfsha384'")
    if named.additional and not words.of(Kind.KEY_EXCHANGE):
        first = f"ke{named.additional[0][0]}_"
        summary = f"{text}: additional key exchange '{first}' without a first key exchange"
        yield _incoherent(text, summary, hint=f"add 'x25519' or 'ecp384' before '{first}'")
    elif named.protocol is Protocol.IKE and not named.key_exchange:
        summary = f"{text}: an IKE proposal must name a key exchange"
        yield _incoherent(text, summary, hint="add 'x25519' or 'ecp384'")


def _misfits(words: _Words, named: Proposal) -> Iterator[ProposalError]:
    """Yield ciphers and integrity algorithms that do not fit each other."""
    aead = [a for a in named.encryption if a.aead]
    plain = [a for a in named.encryption if not a.aead]
    if aead and plain:
        summary = (
            f"{words.text}: mixes '{aead[0]}', an AEAD, with '{plain[0]}', which needs integrity beside it"
        )
        yield _incoherent(words.text, summary, hint="make two proposals of it")
    elif aead and named.integrity:
        summary = (
            f"{words.text}: '{aead[0]}' protects integrity itself, "
            f"'{named.integrity[0]}' has no use beside it"
        )
        near = "" if words.unknown else _without_integrity(words, named.protocol)
        hint = "" if near else f"remove '{named.integrity[0]}'"
        yield _incoherent(words.text, summary, near=near, hint=hint)


def _without_integrity(words: _Words, protocol: Protocol) -> str:
    """Return what charon makes of integrity beside an AEAD: nothing in ESP, a PRF in IKE if none is named."""
    becomes_prf = protocol is Protocol.IKE and not words.of(Kind.PRF)
    out: list[str] = []
    for number, algorithm in words.entries:
        if algorithm.kind is not Kind.INTEGRITY:
            out.append(f"ke{number}_{algorithm}" if number else str(algorithm))
        elif becomes_prf:
            out.extend(str(prf) for prf in _prfs_of((algorithm,)))
    return "-".join(out)


def _prfs_of(integrity: Iterable[Algorithm]) -> tuple[Algorithm, ...]:
    """Return the PRFs built on the same functions as the integrity algorithms."""
    stems = (re.sub(r"_\d+$", "", algorithm.keyword) for algorithm in integrity)
    return tuple(dict.fromkeys(KEYWORDS[f"prf{stem}"] for stem in stems))


def _incoherent(text: str, summary: str, *, near: str = "", hint: str = "") -> ProposalError:
    return ProposalError("IP202", summary, keyword=text, nearest=near, hint=hint)


def _agree(mine: Proposal, other: Proposal) -> Proposal | None:
    """Return the one choice of each kind that both proposals allow, or ``None``."""
    if mine.protocol is not other.protocol:
        return None
    chosen: dict[str, tuple[Algorithm, ...]] = {}
    for kind in ("encryption", "integrity", "prf", "sequence_numbers"):
        ours, theirs = getattr(mine, kind), getattr(other, kind)
        both = [a for a in ours if a in theirs]
        if not both and (ours or theirs):
            return None
        chosen[kind] = tuple(both[:1])
    exchanges = _agree_on_exchanges(mine, other)
    if exchanges is None:
        return None
    return Proposal(
        mine.protocol,
        key_exchange=tuple(a for n, a in exchanges if n == 0),
        additional=tuple((n, (a,)) for n, a in exchanges if n),
        **chosen,
    )


def _agree_on_exchanges(mine: Proposal, other: Proposal) -> list[tuple[int, Algorithm]] | None:
    """Choose first and additional key exchanges, none twice (RFC 9370 section 2.2.2)."""
    used: set[Algorithm] = set()
    agreed: list[tuple[int, Algorithm]] = []
    ours, theirs = dict(_exchanges(mine)), dict(_exchanges(other))
    for number in sorted({*ours, *theirs}):
        # To leave an exchange out is the same as to propose "none" for it.
        offered, accepted = ours.get(number, (_NONE,)), theirs.get(number, (_NONE,))
        both = [a for a in offered if a in accepted and a not in used]
        if not both:
            return None
        if both[0] is not _NONE:
            used.add(both[0])
            agreed.append((number, both[0]))
    return agreed


def _exchanges(proposal: Proposal) -> Iterator[tuple[int, tuple[Algorithm, ...]]]:
    if proposal.key_exchange:
        yield 0, proposal.key_exchange
    yield from proposal.additional

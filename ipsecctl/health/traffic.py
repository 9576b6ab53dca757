"""What a child must carry and with which algorithms, against what charon says it negotiated.

charon has words of its own: services by name, ranges in place of prefixes, algorithms without IANA's
prefixes. Where one is not understood nothing is said: a tunnel is never called wrong by a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from netaddr import AddrFormatError, IPNetwork, IPSet

from ipsecctl.crypto import ALGORITHMS, KEYWORDS, Algorithm, Kind, Proposal
from ipsecctl.health.sa import ChildSa, IkeSa

__all__ = ["Selector", "Traffic", "departures", "ike_departures", "narrower", "parse_selector"]

_SELECTOR = re.compile(r"([0-9a-fA-F:.]+(?:/\d+)?)(?:\[([a-z0-9-]+)(?:/(\d+)(?:-(\d+))?)?\])?")
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}
_EXCHANGE = re.compile(r"(MODP|ECP|CURVE|ML_KEM)_(\d+)")
_STEMS = {"MODP": "modp", "ECP": "ecp", "CURVE": "x", "ML_KEM": "mlkem"}
_ALL_PORTS = (0, 65535)
_NONE = KEYWORDS["none"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is declared for a child, as one end sees it: selectors in swanctl's form, and its proposals."""

    local_ts: tuple[str, ...]
    remote_ts: tuple[str, ...]
    proposals: tuple[Proposal, ...]


def departures(declared: Traffic, sa: ChildSa, *, narrowing: bool = False) -> list[str]:
    """Return in what a CHILD_SA is not as declared, as far as charon's words are understood.

    With ``narrowing`` selectors may be narrower than declared.
    """
    found = []
    for side, wanted, got in _sides(declared, sa):
        if not _same(wanted, got, narrowing=narrowing):
            found.append(f"its {side} selectors are {' '.join(got)}, declared are {' '.join(wanted)}")
    return found + _suite_departs(declared.proposals, sa)


def narrower(declared: Traffic, sa: ChildSa) -> bool:
    """Whether a CHILD_SA's selectors allow less than declared, and nothing else."""
    sides = _sides(declared, sa)
    return all(_same(wanted, got, narrowing=True) for _, wanted, got in sides) and not all(
        _same(wanted, got, narrowing=False) for _, wanted, got in sides
    )


def _sides(declared: Traffic, sa: ChildSa) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return the selectors of each side as declared and as charon tells them, where it does."""
    sides = (("local", declared.local_ts, sa.local_ts), ("remote", declared.remote_ts, sa.remote_ts))
    return [side for side in sides if side[2]]


def ike_departures(declared: tuple[Proposal, ...], sa: IkeSa) -> list[str]:
    """Return in what an IKE_SA is not as declared, as far as charon's words are understood."""
    return _suite_departs(declared, sa)


def _suite_departs(declared: tuple[Proposal, ...], sa: ChildSa | IkeSa) -> list[str]:
    said = dict(sa.algorithms)
    if not declared or any(_allows(proposal, said) for proposal in declared):
        return []
    return [f"it uses {sa.suite}, declared is {', '.join(map(str, declared))}"]


# -------------------------------------------------------------------------------------------------- selectors

_Ports: TypeAlias = tuple[int, int]
Selector: TypeAlias = tuple[IPNetwork, int | None, _Ports]
"""Prefix, protocol (IANA's number, ``None`` for any), and the first and last port."""


def parse_selector(text: str) -> Selector | None:
    """Return prefix, protocol and ports of a selector, ``None`` if it is not understood."""
    if not (match := _SELECTOR.fullmatch(text)):
        return None
    address, name, first, last = match.groups()
    try:
        prefix = IPNetwork(address)
        protocol = None if name is None else _PROTOCOLS[name] if name in _PROTOCOLS else int(name)
    except (AddrFormatError, ValueError):
        return None
    if first is None:
        return prefix, protocol, _ALL_PORTS
    if protocol not in (6, 17):
        return None  # types and codes of ICMP are written in several ways
    return prefix, protocol, (int(first), int(last or first))


def _same(wanted: Iterable[str], got: Iterable[str], *, narrowing: bool) -> bool:
    """Whether selectors allow the same packets; also true if one of them is not understood.

    With ``narrowing`` it is enough that they allow no others.
    """
    ours, theirs = [parse_selector(text) for text in wanted], [parse_selector(text) for text in got]
    left, right = [s for s in ours if s], [s for s in theirs if s]
    if len(left) < len(ours) or len(right) < len(theirs):
        return True
    # Between two neighbouring starts of ranges all ports are alike.
    starts = {first for _, _, (first, _) in left + right} | {last + 1 for _, _, (_, last) in left + right}
    return all(
        _fit(_addresses(left, protocol, port), _addresses(right, protocol, port), narrowing=narrowing)
        for protocol in {protocol for _, protocol, _ in left + right}
        for port in starts
        if port <= _ALL_PORTS[1]
    )


def _fit(wanted: IPSet, got: IPSet, *, narrowing: bool) -> bool:
    return bool(got <= wanted if narrowing else got == wanted)


def _addresses(selectors: Iterable[Selector], protocol: int | None, port: int) -> IPSet:
    return IPSet(
        prefix.cidr
        for prefix, of, (first, last) in selectors
        if of in (None, protocol) and first <= port <= last
    )


# ------------------------------------------------------------------------------------------------- algorithms


def _allows(proposal: Proposal, said: Mapping[str, str]) -> bool:
    """Whether a proposal allows what charon says of an SA, by its names of the fields."""
    bits = said.get("encr-keysize", "")
    encryption = [a for a in proposal.encryption if not a.key_bits or bits in ("", str(a.key_bits))]
    return (
        _among(said.get("encr-alg", ""), Kind.ENCRYPTION, encryption)
        and _among(said.get("integ-alg", ""), Kind.INTEGRITY, proposal.integrity)
        and _among(said.get("prf-alg", ""), Kind.PRF, proposal.prf)
        and _same_exchanges(proposal, said)
        and _same_numbers(proposal, said)
    )


def _same_exchanges(proposal: Proposal, said: Mapping[str, str]) -> bool:
    """Whether the key exchanges are allowed, the additional ones of RFC 9370 included.

    A CHILD_SA made together with its IKE_SA has none of its own, and so no additional ones.
    """
    first = said.get("dh-group", "")
    if not _exchange_among(first, proposal.key_exchange):
        return False
    additional = dict(proposal.additional)
    return not first or all(
        _exchange_among(said[key], additional.get(n, ()))
        if (key := f"ake{n}") in said
        else _optional(additional.get(n, ()))
        for n in range(1, 8)
    )


def _optional(choices: tuple[Algorithm, ...]) -> bool:
    return not choices or _NONE in choices


def _same_numbers(proposal: Proposal, said: Mapping[str, str]) -> bool:
    """Whether extended sequence numbers are in use or not as a proposal for ESP has it."""
    if not proposal.sequence_numbers or "encr-alg" not in said:
        return True
    return ("esn" if said.get("esn") else "noesn") in {a.keyword for a in proposal.sequence_numbers}


def _short(iana_name: str) -> str:
    """Return an algorithm's name as charon writes it, as far as it is IANA's."""
    return iana_name.removeprefix("ENCR_").removeprefix("AUTH_")


_KNOWN = {
    kind: frozenset(_short(a.iana_name) for a in ALGORITHMS if a.kind is kind and not a.private)
    for kind in (Kind.ENCRYPTION, Kind.INTEGRITY, Kind.PRF)
}


def _among(said: str, kind: Kind, allowed: Iterable[Algorithm]) -> bool:
    return said not in _KNOWN[kind] or said in {_short(a.iana_name) for a in allowed}


def _exchange_among(said: str, allowed: Iterable[Algorithm]) -> bool:
    match = _EXCHANGE.fullmatch(said)
    # What charon calls CURVE_25519 is "x25519", ML_KEM_768 "mlkem768".
    keyword = f"{_STEMS[match[1]]}{match[2]}" if match else ""
    return keyword not in KEYWORDS or keyword in {a.keyword for a in allowed}

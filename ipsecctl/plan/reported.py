"""A connection as charon reports it against the one that we sent: which fields somebody has altered.

``list-conns`` has words of its own for what ``load-conn`` was told, and says nothing of many options. So this
names the fields that a person will want to know of; that anything differs at all is found by the digest of
the whole report. Source: ``vici_query.c`` of strongSwan 5.9.8 to 6.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ipsecctl.crypto import KEYWORDS

__all__ = ["departing"]

_CLASSES: Final = {"public key": "pubkey", "pre-shared key": "psk"}
_VERSIONS: Final = {"IKEv1": "1", "IKEv2": "2", "IKEv1/2": "0"}
# "clear" and "none" are one action to charon, "restart" and "start" another, "hold" and "trap" a third.
_ACTIONS: Final = {"clear": "none", "restart": "start", "hold": "trap"}
_SECONDS: Final = ("rekey_time", "reauth_time", "dpd_delay")
_EXCHANGE: Final = re.compile("(modp|ecp|x|mlkem)([0-9]+)")
_EXCHANGES: Final = {"modp": "MODP", "ecp": "ECP", "x": "CURVE", "mlkem": "ML_KEM"}
_PROPOSALS: Final = ("proposals", "esp_proposals")


def departing(
    reported: Mapping[str, Any], message: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields, by dotted name, that charon reports otherwise than they were sent: now, and sent.

    Proposals, for which charon has other words, are named where these are understood and differ, or if
    nothing else explains the difference.
    """
    seen, sent = _told(reported), _sent(message)
    proposals = {name for name in seen if name.rpartition(".")[2] in _PROPOSALS}
    other = {name for name in proposals & sent.keys() if not _same_proposals(seen[name], sent[name])}
    names = {name for name in seen.keys() & sent.keys() - proposals if seen[name] != sent[name]} | other
    children = (reported.get("children", {}), message.get("children", {}))
    names |= {f"children.{name}" for name in children[0].keys() ^ children[1].keys()}
    names = names or proposals
    there = {f"children.{name}": "loaded" for name in children[0]} | seen
    wanted = {f"children.{name}": "declared" for name in children[1]} | sent
    return (
        {name: there[name] for name in names if name in there},
        {name: wanted[name] for name in names if name in wanted},
    )


def _told(reported: Mapping[str, Any]) -> dict[str, str]:
    """Return what a report says, in the names and words of ``load-conn``."""
    found = _common(reported, "")
    if version := reported.get("version"):
        found["version"] = _VERSIONS.get(version, version)
    if unique := reported.get("unique"):
        found["unique"] = unique.removeprefix("UNIQUE_").lower()
    for end in ("local", "remote"):
        authentication = reported.get(f"{end}-1", {})
        if "class" in authentication:
            found[f"{end}.auth"] = _CLASSES.get(authentication["class"], authentication["class"])
        if "id" in authentication:
            found[f"{end}.id"] = authentication["id"]
    for name, child in reported.get("children", {}).items():
        prefix = f"children.{name}."
        found |= _common(child, prefix)
        for side in ("local", "remote"):
            if isinstance(child.get(f"{side}-ts"), list):
                found[f"{prefix}{side}_ts"] = ", ".join(sorted(child[f"{side}-ts"]))
    return found


def _sent(message: Mapping[str, Any]) -> dict[str, str]:
    """Return what a message says, for the fields that a report may have."""
    found = _common(message, "")
    found |= {name: message[name] for name in ("version", "unique") if name in message}
    for end in ("local", "remote"):
        found |= {f"{end}.{key}": message[end][key] for key in ("auth", "id") if key in message.get(end, {})}
    for name, child in message.get("children", {}).items():
        prefix = f"children.{name}."
        found |= _common(child, prefix)
        for side in ("local_ts", "remote_ts"):
            if side in child:
                found[f"{prefix}{side}"] = ", ".join(sorted(child[side]))
    return found


def _common(section: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the fields that reports and messages call by one name, in one form."""
    found = {f"{prefix}{n}": section[n].removesuffix("s") + "s" for n in _SECONDS if section.get(n)}
    for name in ("local_addrs", "remote_addrs"):
        if section.get(name):
            found[f"{prefix}{name}"] = ", ".join(section[name])
    for name in ("dpd_action", "close_action"):
        if name in section:
            found[f"{prefix}{name}"] = _ACTIONS.get(section[name], section[name])
    if isinstance(section.get("mode"), str):
        found[f"{prefix}mode"] = section["mode"].lower()
    for name in _PROPOSALS:
        if section.get(name):
            found[f"{prefix}{name}"] = _proposals(section[name])
    return found


def _proposals(value: Any) -> str:
    """Return proposals as text: our list of keywords, or charon's numbered sections of transforms."""
    if not isinstance(value, Mapping):
        return ", ".join(value)
    return ", ".join(
        "-".join("|".join(transforms) for transforms in proposal.values() if transforms != ["NO_EXT_SEQ"])
        for proposal in value.values()
    )


def _same_proposals(reported: str, sent: str) -> bool:
    """Whether charon's words stand for the proposals that were sent, transform by transform."""
    ours = [_words(keywords) for keywords in sent.split(", ")]
    theirs = [set(re.split(r"[-|]", proposal)) for proposal in reported.split(", ")]
    return ours == theirs


def _words(keywords: str) -> set[str]:
    """Return what charon calls the algorithms of a proposal."""
    found = set()
    for keyword in keywords.split("-"):
        algorithm = KEYWORDS.get(keyword.partition("_")[2] if keyword.startswith("ke") else keyword)
        exchange = _EXCHANGE.fullmatch(algorithm.keyword) if algorithm else None
        if exchange:
            found.add(f"{_EXCHANGES[exchange[1]]}_{exchange[2]}")
        elif algorithm is not None:
            name = algorithm.iana_name.removeprefix("ENCR_").removeprefix("AUTH_")
            found.add(f"{name}_{algorithm.key_bits}" if algorithm.key_bits else name)
    return found

"""A plan in a file: reviewed now, carried out later, and only as long as all that it was made of is the same.

It holds what a person has seen (the document of the plan), and marks of what it was made of: the digest of
the topology's text, of certificates and secrets that it refers to, and of each gateway its record, and which
start of charon and of the kernel it was. No secret is in it: of all secrets together there is one digest,
salted and slow to compute, so that the file is no way to guess a weak one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from ipsecctl.errors import IpsecctlError

__all__ = ["SavedGateway", "SavedPlan", "is_saved_plan", "load_plan", "stale_because"]

_FORMAT: Final = "ipsecctl/saved-plan/1"
_FAMILY: Final = "ipsecctl/saved-plan/"
_LISTS: Final = ("allowed", "limit")
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class SavedGateway:
    """What a gateway was when it was planned: SHA-256 of its record, and which start of charon and kernel."""

    record: str
    charon: str
    kernel: str


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan and what it was made of.

    ``made`` is when (ISO 8601, UTC), ``by`` who made it. ``file`` is the topology's absolute path, ``text``
    the SHA-256 of its text. ``lab``, ``take_over``, ``allowed`` and ``limit`` are what was said with it.
    ``certificates`` are SHA-256 by gateway and target; ``salt`` and ``secrets`` (hexadecimal) the digest of
    all secrets. ``document`` is ``ipsecctl/plan/1``.
    """

    made: str
    by: str
    topology: str
    file: str
    text: str
    lab: str
    take_over: bool
    allowed: tuple[str, ...]
    limit: tuple[str, ...]
    certificates: Mapping[str, str]
    salt: str
    secrets: str
    gateways: Mapping[str, SavedGateway]
    document: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the file's content."""
        content = {"schema": _FORMAT} | asdict(self)
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def is_saved_plan(content: bytes) -> bool:
    """Whether a file is a saved plan of any version; a topology is none."""
    try:
        document = json.loads(content)
    except ValueError:
        return False
    schema = document.get("schema") if isinstance(document, dict) else None
    return isinstance(schema, str) and schema.startswith(_FAMILY)


def load_plan(content: bytes, file: str) -> SavedPlan:
    """Return the plan in a file's content.

    Raises ``IpsecctlError`` when it is damaged, or of a version of the format that we do not read.
    """
    document = json.loads(content)
    schema = document.pop("schema")
    if schema != _FORMAT:
        raise IpsecctlError(
            f"{file} was saved by another version of ipsecctl ({schema}; this one reads {_FORMAT})",
            "Nothing was done. Plan again with this one: ipsecctl plan TOPOLOGY --out FILE",
        )
    try:
        for name in _LISTS:
            if not isinstance(document[name], list):
                raise TypeError(f"'{name}' is no list")
        gateways = {name: SavedGateway(**marks) for name, marks in document.pop("gateways").items()}
        plan = SavedPlan(
            **(document | {"gateways": gateways} | {name: tuple(document[name]) for name in _LISTS}),
        )
        _check(plan)
    except (TypeError, KeyError, ValueError, AttributeError) as exc:
        raise IpsecctlError(
            f"{file} is a damaged plan: {exc}",
            "Nothing was done. Plan again: ipsecctl plan TOPOLOGY --out FILE",
        ) from exc
    return plan


def _check(plan: SavedPlan) -> None:
    """Raise ``ValueError`` where a value is not of its type."""
    texts = [getattr(plan, f.name) for f in fields(plan) if f.type == "str"]
    texts += [*plan.allowed, *plan.limit, *plan.certificates.values(), *plan.certificates]
    texts += [text for marks in plan.gateways.values() for text in (marks.record, marks.charon, marks.kernel)]
    if not all(isinstance(text, str) for text in texts) or not isinstance(plan.take_over, bool):
        raise ValueError("a value is not of its type")
    bytes.fromhex(plan.salt)
    if plan.document["schema"] != "ipsecctl/plan/1":
        raise ValueError(f"it holds {plan.document['schema']!r}")
    if any(not isinstance(change["address"], str) for change in plan.document["changes"]):
        raise ValueError("a change without an address")


def stale_because(saved: SavedPlan, now: SavedPlan) -> tuple[str, ...]:
    """Return what has changed between a saved plan and one made of the same file now; nothing if it holds.

    ``now`` must have been made with the saved one's options and salt.
    """
    return tuple(_changes(saved, now))


def _changes(saved: SavedPlan, now: SavedPlan) -> Iterator[str]:
    if saved.text != now.text:
        yield f"{saved.file} has other text"
        return  # whatever else differs follows from that
    if saved.secrets != now.secrets:
        yield "a secret that the topology refers to is another one"
    for name in sorted(saved.certificates.keys() | now.certificates.keys()):
        if saved.certificates.get(name) != now.certificates.get(name):
            yield f"the certificate {name} is another one"
    before, after = _by_gateway(saved), _by_gateway(now)
    for name in sorted(saved.gateways.keys() | now.gateways.keys()):
        why = now.document["failures"].get(name)
        if name not in now.gateways or why is not None:
            yield why or f"{name} has no plan any more"
        elif name not in saved.gateways:
            yield f"{name} could not be looked at when the plan was saved"
        elif marks := tuple(_marks(saved.gateways[name], now.gateways[name])):
            yield f"{name}: {', '.join(marks)}"
        elif before.get(name) != after.get(name):
            yield f"{name}: {_otherwise(before.get(name, {}), after.get(name, {}))}"


def _marks(saved: SavedGateway, now: SavedGateway) -> Iterator[str]:
    if saved.kernel != now.kernel:
        yield "it was rebooted"
    elif saved.charon != now.charon:
        yield "charon was started anew"
    if saved.record != now.record:
        yield "another apply was there (its record has changed)"


def _by_gateway(plan: SavedPlan) -> dict[str, dict[str, Any]]:
    """Return by gateway what its plan has: each change by its address, and all that stands beside changes."""
    found: dict[str, dict[str, Any]] = {}
    for change in plan.document["changes"]:
        found.setdefault(change["gateway"], {})[change["address"]] = change
    for gateway in plan.document["gateways"]:
        beside = {key: gateway.get(key) for key in ("charon", "charon_down", "conflicts", "restart_for")}
        found.setdefault(gateway["name"], {})[""] = beside
    return found


def _otherwise(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return in what two plans of one gateway differ."""
    more = sorted(after.keys() - before.keys())
    less = sorted(before.keys() - after.keys())
    other = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    said = [
        f"{words} {_listed(names)}"
        for words, names in (
            ("is to be changed as well:", more),
            ("is not to be changed any more:", less),
            ("is to be changed in another way:", [name for name in other if name]),
        )
        if names
    ]
    return "what is there has changed: " + (
        "; ".join(said) or "its charon is another, or something stands in the way"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

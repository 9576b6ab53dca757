"""What changed between two desired states: the same words as in a plan, without a gateway to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields as members
from dataclasses import is_dataclass
from typing import Any

from ipsecctl.desired import GatewayState
from ipsecctl.plan.change import Change, Kind, Part, fields

__all__ = ["between"]

_NEW = "only the later one declares it"
_GONE = "only the earlier one declares it"
_OTHER = "declared otherwise"

# What follows from the gateway's facts, not from the topology, or says nothing to a person.
_LEFT_OUT = frozenset(("name", "where", "unaided_mtu"))


def between(before: Iterable[GatewayState], after: Iterable[GatewayState]) -> tuple[Change, ...]:
    """Return what differs between the states of gateways, sorted by address.

    Both sides must be compiled with the same knowledge of the gateways. Fields of what is there on one side
    only are all given, else those that differ.
    """
    old = {state.name: _objects(state) for state in before}
    new = {state.name: _objects(state) for state in after}
    return tuple(
        sorted(
            change
            for gateway in old.keys() | new.keys()
            for change in _changes(gateway, old.get(gateway, {}), new.get(gateway, {}))
        )
    )


_Objects = Mapping[tuple[Part, str], Mapping[str, str]]


def _changes(gateway: str, old: _Objects, new: _Objects) -> Iterable[Change]:
    for part, name in old.keys() | new.keys():
        was, is_now = old.get((part, name)), new.get((part, name))
        if was is None and is_now is not None:
            yield Change(gateway, part, name, Kind.CREATE, (), fields(is_now), (_NEW,))
        elif is_now is None and was is not None:
            yield Change(gateway, part, name, Kind.REMOVE, fields(was), (), (_GONE,))
        elif was is not None and is_now is not None and was != is_now:
            differing = {key for key in was.keys() | is_now.keys() if was.get(key) != is_now.get(key)}
            yield Change(
                gateway,
                part,
                name,
                Kind.CHANGE,
                fields({key: value for key, value in was.items() if key in differing}),
                fields({key: value for key, value in is_now.items() if key in differing}),
                (_OTHER,),
            )


def _objects(state: GatewayState) -> _Objects:
    """Return all that a state declares, by kind and name, as fields with dotted names."""
    found: dict[tuple[Part, str], Mapping[str, str]] = {}
    for connection in state.connections:
        found[Part.CONNECTION, connection.name] = _flat(connection)
    for key in state.shared_keys:
        found[Part.SHARED, key.name] = _flat(key)
    for certificate in state.certificates:
        found[Part.CERTIFICATE, certificate.target] = _flat(certificate)
    for private in state.private_keys:
        found[Part.KEY, private.target] = _flat(private)
    for interface in state.interfaces:
        found[Part.INTERFACE, interface.name] = _flat(interface)
    for route in state.routes:
        found[Part.ROUTE, f"{route.prefix} {route.kind} {route.tunnel}"] = _flat(route)
    for number, rule in enumerate(state.firewall):
        same = sum((r.tunnel, r.family) == (rule.tunnel, rule.family) for r in state.firewall[:number])
        name = f"{rule.tunnel} IPv{rule.family}{f' #{same + 1}' if same else ''}"
        found[Part.FIREWALL, name] = _flat(rule)
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Return an object's fields as text: those of what is inside it by dotted names, a child by its own."""
    flat: dict[str, str] = {}
    for member in members(value):
        if member.name in _LEFT_OUT:
            continue
        inner, name = getattr(value, member.name), f"{prefix}{member.name}"
        if isinstance(inner, tuple) and inner and hasattr(inner[0], "name") and is_dataclass(inner[0]):
            for item in inner:
                flat |= _flat(item, f"{name}.{item.name}.")
        elif isinstance(inner, tuple):
            flat[name] = ", ".join(str(item) for item in inner)
        elif is_dataclass(inner) and type(inner).__str__ is object.__str__:
            flat |= _flat(inner, f"{name}.")
        else:
            flat[name] = "" if inner is None else str(inner)
    return {name: text for name, text in flat.items() if text != ""}

"""Compare two versions of one connection: which fields differ, and which traffic they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from netaddr import AddrFormatError, IPNetwork

__all__ = [
    "NetworkPairs",
    "child_pairs",
    "differing",
    "differing_keys",
    "flatten",
    "network_pairs",
    "not_held_any_more",
    "remote_networks",
]

NetworkPairs: TypeAlias = frozenset[tuple[IPNetwork, IPNetwork]]
"""Of a local and a remote network each."""


def flatten(message: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return a load-conn message as fields with dotted names and values as text; blobs as their SHA-256."""
    flat: dict[str, str] = {}
    for key, value in message.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and set(value) != {"bytes"}:
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list):
            flat[name] = ", ".join(_shown(item) for item in value)
        else:
            flat[name] = _shown(value)
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):  # a blob as a record holds it
        value = bytes.fromhex(value["bytes"])
    if isinstance(value, bytes):
        return f"(sha256 {hashlib.sha256(value).hexdigest()[:16]})"
    return str(value)


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the fields that differ, old values and new ones; one that is not set is left out there."""
    before, after = flatten(old), flatten(new)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return (
        {name: value for name, value in before.items() if name in changed},
        {name: value for name, value in after.items() if name in changed},
    )


def network_pairs(connections: Iterable[Mapping[str, Any]]) -> NetworkPairs:
    """Return between which networks connections carry traffic; selectors that take anything name none."""
    return frozenset(
        (local, remote)
        for connection in connections
        for child in connection.get("children", {}).values()
        for local, remote in child_pairs(child)
        if local.prefixlen and remote.prefixlen
    )


def child_pairs(child: Mapping[str, Any]) -> NetworkPairs:
    """Return between which networks a child carries traffic, those that are all of a family among them."""
    return frozenset(
        (local, remote)
        for local in _networks(child.get("local_ts", ()))
        for remote in _networks(child.get("remote_ts", ()))
        if local.version == remote.version
    )


def remote_networks(connection: Mapping[str, Any]) -> frozenset[IPNetwork]:
    """Return the far networks of a connection; selectors that are no prefix are left out."""
    children = connection.get("children", {}).values()
    return frozenset(network for child in children for network in _networks(child.get("remote_ts", ())))


def _networks(selectors: Iterable[str]) -> list[IPNetwork]:
    found = (_network(selector) for selector in selectors)
    return [network for network in found if network is not None]


@lru_cache(maxsize=1 << 16)
def _network(selector: str) -> IPNetwork | None:
    """Return the network of a selector; thousands of connections are asked for theirs again and again."""
    try:
        return IPNetwork(selector.partition("[")[0])
    except (AddrFormatError, ValueError):  # "dynamic", or a range
        return None


def not_held_any_more(old: Mapping[str, Any], kept: NetworkPairs) -> tuple[str, ...]:
    """Return, as a reason, what a connection carried that nothing of ``kept`` covers; empty when all is."""
    lost = sorted(
        pair
        for pair in network_pairs([old]) - kept
        if not any(pair[0] in local and pair[1] in remote for local, remote in kept)
    )
    if not lost:
        return ()
    named = ", ".join(f"{local} and {remote}" for local, remote in lost[:3])
    more = f" and {len(lost) - 3} more pairs of networks" if len(lost) > 3 else ""
    what = f"traffic between {named}{more}"
    return (f"no longer protected: {what} is not held back any more, may leave in clear",)


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Return the keys of two sections whose values differ; bytes may be those of a record."""
    return {
        key
        for key in old.keys() | new.keys()
        if flatten({key: old[key]} if key in old else {}) != flatten({key: new[key]} if key in new else {})
    }

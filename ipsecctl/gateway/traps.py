"""charon's traps: policies that have it bring up a CHILD_SA when a packet meets them.

charon keeps a trap under the name of the child that it was installed for. Where a connection is loaded again
with a child that has another name and is the same otherwise, the trap stays under the old one
(``child_cfg_t.equals`` does not compare names, so ``replace_children`` of vici_config.c sees no change), and
no later load or unload finds it: both uninstall by the names that are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from ipsecctl.vici import Client

__all__ = ["Traps", "list_traps"]

Traps: TypeAlias = Mapping[str, frozenset[str]]
"""The children that have a trap, by connection."""


async def list_traps(client: Client) -> dict[str, frozenset[str]]:
    """Return the traps that charon has, its own and others' alike. Raises what ``Client.stream`` does."""
    found: dict[str, set[str]] = {}
    for message in await client.stream("list-policies", "list-policy", {"trap": "yes"}):
        for policy in message.values():
            if isinstance(policy, Mapping) and policy.get("child"):
                found.setdefault(str(policy.get("ike", "")), set()).add(str(policy["child"]))
    return {connection: frozenset(children) for connection, children in found.items()}

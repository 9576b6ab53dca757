"""The health gate between batches: what carried before, and what carries now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping

from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.watch import Watch
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.health import Declared, parse_list_sas
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Message

__all__ = ["carrying", "carrying_before", "new_tunnels"]

_SETTLE_S = 3.0 * PATIENCE
"""How long a tunnel that is only half changed may be without a CHILD_SA: a rekey has none for a moment."""

_POLL_S = 0.2


def carrying_before(prepared: Prepared, tunnels: Iterable[Declared]) -> frozenset[str]:
    """Return the tunnels that had a CHILD_SA at each of our ends when the gateways were observed."""
    seen = {name: _with_sas(each.sas) for name, each in prepared.observed.items() if each.charon_down is None}
    return frozenset(t.name for t in tunnels if all(t.name in seen.get(end, ()) for end in _ours(t)))


def new_tunnels(prepared: Prepared, tunnels: Iterable[Declared]) -> frozenset[str]:
    """Return the tunnels that were applied at no end yet, and have ends that can all be changed now."""
    planned = {plan.gateway for plan in prepared.plans} - prepared.failures.keys()
    records = {name: seen.facts.record for name, seen in prepared.observed.items()}
    known = {tunnel for record in records.values() if record is not None for tunnel in record.messages}
    return frozenset(t.name for t in tunnels if t.name not in known and {*_ours(t)} <= planned)


async def carrying(watch: Watch, tunnels: Collection[str], ends: Mapping[str, Collection[str]]) -> set[str]:
    """Return those of ``tunnels`` that have a CHILD_SA at each of our ``ends``; looks for some seconds."""
    found: set[str] = set()
    deadline = time.monotonic() + _SETTLE_S
    while tunnels:
        views = await watch.look({end for name in tunnels for end in ends[name]})
        seen = {
            name: _with_sas(view.sas)
            for name, view in views.items()
            if not isinstance(view, GatewayUnreachable)
        }
        found = {name for name in tunnels if all(name in seen.get(end, ()) for end in ends[name])}
        if found >= {*tunnels} or time.monotonic() > deadline:
            break
        await asyncio.sleep(_POLL_S)
    return found


def _ours(tunnel: Declared) -> tuple[str, ...]:
    return tuple(gateway.name for gateway in (tunnel.left, tunnel.right) if gateway.managed)


def _with_sas(sas: Iterable[Message]) -> frozenset[str]:
    """Return the names of connections that have a CHILD_SA that carries."""
    return frozenset(sa.name for sa in parse_list_sas(sas) if any(child.carries for child in sa.children))

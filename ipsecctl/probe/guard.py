"""The gateways of a tunnel themselves: is the no-leak firewall in force there, and do they forward?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from ipsecctl.gateway import NFT_TABLE, Guard, Handle, look_at_guard
from ipsecctl.patience import PATIENCE
from ipsecctl.probe.report import Check, Finding, Outcome
from ipsecctl.topology import Tunnel

__all__ = ["GUARD", "GuardSeen", "guard_checks", "look_at_guards"]

GUARD = "guard"
"""The name of the check in a report."""

_CLAIM = "the no-leak firewall is loaded as applied, and the gateway forwards"
_WANTED = "loaded, forwards"
_TIMEOUT_S = 4.0 * PATIENCE


@dataclass(frozen=True, slots=True)
class GuardSeen:
    """What was seen of a gateway's firewall and forwarding; by default nothing."""

    guard: Guard = Guard.UNKNOWN
    forwarding: bool | None = None


async def look_at_guards(handles: Mapping[str, Handle]) -> dict[str, GuardSeen]:
    """Look at gateways side by side, whether charon runs there or not; nobody's absence is an error."""
    async with asyncio.TaskGroup() as group:
        looks = {
            name: group.create_task(look_at_guard(handle, timeout_s=_TIMEOUT_S))
            for name, handle in handles.items()
        }
    return {name: GuardSeen(*task.result()) for name, task in looks.items()}


def guard_checks(tunnel: Tunnel, seen: Mapping[str, GuardSeen]) -> list[Check]:
    """Return a check for each managed end of a tunnel, the left one first."""
    checks = []
    for end in (tunnel.left, tunnel.right):
        if not end.gateway.managed:
            continue
        name = end.gateway.name
        found = _judge(seen.get(name, GuardSeen()))
        checks.append(
            Check(
                check=GUARD,
                claim=_CLAIM,
                flow=None,
                direction=f"at {name}",
                family=None,
                outcome=found.outcome,
                expected=found.expected,
                measured=found.measured,
                evidence=found.evidence,
            )
        )
    return checks


def _judge(seen: GuardSeen) -> Finding:
    table = f"table {' '.join(NFT_TABLE)}"
    firewall = {
        Guard.LOADED: f"{table} is loaded as it was applied",
        Guard.ALTERED: f"{table} is not as it was applied: 'ipsecctl apply' loads it anew",
        Guard.MISSING: f"{table} is missing: 'ipsecctl apply' loads it",
        Guard.UNKNOWN: f"{table} could not be held against what was applied",
    }[seen.guard]
    forwarding = {
        True: "the kernel forwards",
        False: "the kernel does not forward: 'ipsecctl apply' lets it",
        None: "whether the kernel forwards could not be seen",
    }[seen.forwarding]
    measured = f"{seen.guard}, {_FORWARDS[seen.forwarding]}"
    evidence = f"{firewall}; {forwarding}"
    if seen.guard in (Guard.ALTERED, Guard.MISSING) or seen.forwarding is False:
        return Finding(Outcome.FAILS, _WANTED, measured, evidence)
    if seen.guard is Guard.LOADED and seen.forwarding:
        return Finding(Outcome.HOLDS, _WANTED, measured, evidence)
    return Finding(Outcome.COULD_NOT_RUN, _WANTED, None, evidence)


_FORWARDS = {True: "forwards", False: "does not forward", None: "forwarding not known"}

"""SAs that have to go before new ones come up: which they are, which stay, and that they are gone.

Those that are moved (deploy/move.py) are not among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from ipsecctl.deploy.outcome import GatewayResult
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.watch import Watch, watch
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, IpsecctlError, ViciRefused
from ipsecctl.gateway import RECORD_PATH, NewFile, Record, write_files
from ipsecctl.health import parse_list_sas
from ipsecctl.plan import Disruption

__all__ = ["before", "left", "let_go", "still_there", "strike_out"]

_WRITE_TRIES = 2


def left(prepared: Prepared, gateways: Iterable[GatewayResult]) -> dict[str, str]:
    """Return the disturbed tunnels whose SAs stay, with the reason: an end could not be changed.

    Torn down, such a tunnel could not come up again, as its ends would not agree.
    """
    failed = {gateway.name for gateway in gateways if gateway.error is not None}
    disturbed = {tunnel for plan in prepared.plans for tunnel in plan.disturbed}
    return {
        t.name: f"{end.name} could not be changed"
        for t in prepared.topology.tunnels
        for end in (t.right.gateway, t.left.gateway)
        if t.name in disturbed and end.name in failed
    }


async def before(
    prepared: Prepared, calling: Mapping[str, str], moving: Collection[str]
) -> dict[str, frozenset[int]]:
    """Return the unique ids of the IKE_SAs, by tunnel, that run with a configuration about to be replaced.

    Those of tunnels that are moved are not among them.
    """
    disturbed = {tunnel for plan in prepared.plans for tunnel in plan.disturbed if tunnel not in moving}
    ends = {name: calling[name] for name in disturbed if calling.get(name) in prepared.observed}
    if not ends:
        return {}
    async with watch({name: prepared.handles[name] for name in set(ends.values())}) as watched:
        # Waited for: one that charon is busy with, if only with a DPD, would stay, and be taken for new.
        views = await watched.look_well(set(ends.values()))
    there: dict[str, dict[str, set[int]]] = {}
    for gateway, view in views.items():
        if not isinstance(view, GatewayUnreachable):
            running = there.setdefault(gateway, {})
            for sa in parse_list_sas(view.sas):
                running.setdefault(sa.name, set()).add(sa.unique_id)
    return {
        tunnel: frozenset(there[gateway].get(tunnel, ()))
        for tunnel, gateway in ends.items()
        if gateway in there
    }


def still_there(
    renew: Mapping[str, frozenset[int]], calling: Mapping[str, str], fresh: Collection[str]
) -> dict[str, frozenset[int]]:
    """Return of the SAs that had to go those that still have to: a restarted charon has none of them.

    It counts its SAs from 1 again, and a new one must not be taken for an old one.
    """
    return {tunnel: frozenset() if calling[tunnel] in fresh else ids for tunnel, ids in renew.items()}


async def strike_out(
    prepared: Prepared, records: Mapping[str, Record], renewed: set[str]
) -> dict[str, IpsecctlError]:
    """Take from the records the tunnels whose SAs were made anew.

    A gateway that was not changed has none of them in its record: one that stands there is a change. Returns
    the gateways where that cannot be written, so that nobody is surprised by the next apply.
    """
    failed: dict[str, IpsecctlError] = {}

    async def one(name: str, record: Record) -> None:
        for _ in range(_WRITE_TRIES):
            try:
                await write_files(prepared.handles[name], [NewFile(RECORD_PATH, record.to_json(), 0o600)])
            except IpsecctlError as error:
                failed[name] = ApplyFailed(
                    f"{name}: done, but its record cannot be written: {error.summary}",
                    "The next apply makes SAs that are new already anew once more.",
                )
            else:
                failed.pop(name, None)
                return

    async with asyncio.TaskGroup() as group:
        for name, record in records.items():
            if renewed & {*record.renew}:
                rest = tuple(tunnel for tunnel in record.renew if tunnel not in renewed)
                group.create_task(one(name, replace(record, renew=rest)))
    return failed


async def let_go(watched: Watch, prepared: Prepared, others: set[str]) -> set[str]:
    """End the SAs of disturbed tunnels that only the far end, which is not ours, can bring up again.

    ``others`` are the tunnels that are not to be touched. Returns those that have now no old SA.
    """
    gone: set[str] = set()
    for plan in prepared.plans:
        client = watched.client(plan.gateway)
        for tunnel, grade in plan.disturbed.items():
            if client is None or tunnel in others or grade is Disruption.NONE:
                continue
            with suppress(IpsecctlError):  # charon has gone: the look that follows shows it
                with suppress(ViciRefused):  # there is none
                    await client.command("terminate", {"ike": tunnel, "timeout": "-1"})
                gone.add(tunnel)
    return gone

"""Make the gateways what the topology says, side by side, and wait for the tunnels.

A gateway that fails is reported and does not stop the others. Tunnels are initiated only when every gateway
is loaded, so that no call meets a far end that does not know it yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ipsecctl.deploy.carry import carry_out
from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.deploy.tunnels import TunnelResult, bring_up, callers
from ipsecctl.deploy.watch import Watch, watch
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, IpsecctlError, ViciRefused
from ipsecctl.gateway import RECORD_PATH, NewFile, Record, write_files
from ipsecctl.health import declare, parse_list_sas
from ipsecctl.plan import Disruption

__all__ = ["Applied", "GatewayResult", "Reporter", "apply"]


@dataclass(frozen=True, slots=True)
class GatewayResult:
    """What became of a gateway: ``changes`` done in ``took_s`` seconds, or the ``error`` that stopped it.

    ``restart_for`` are the options for which its charon must yet be restarted.
    """

    name: str
    changes: int
    took_s: float
    error: IpsecctlError | None = None
    restart_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. Gateways and tunnels are sorted by name."""

    gateways: tuple[GatewayResult, ...]
    tunnels: tuple[TunnelResult, ...]
    took_s: float

    @property
    def nothing_done(self) -> bool:
        """Whether there was nothing to do: no gateway changed, no tunnel acted upon."""
        return not any(g.changes or g.error for g in self.gateways) and not any(t.acted for t in self.tunnels)

    @property
    def succeeded(self) -> bool:
        return not any(g.error for g in self.gateways) and all(t.up for t in self.tunnels)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is told at once what has become of a gateway or a tunnel."""

    gateway: Callable[[GatewayResult], None]
    tunnel: Callable[[TunnelResult], None]


async def apply(prepared: Prepared, report: Reporter, *, wait_s: float = 30.0) -> Applied:
    """Carry out prepared plans and bring the tunnels up, waiting for these at most ``wait_s`` seconds.

    Errors of single gateways are in the result. Raises ``ApplyFailed`` when a plan has conflicts: then
    nothing at all is done.
    """
    conflicts = [conflict for plan in prepared.plans for conflict in plan.conflicts]
    if conflicts:
        raise ApplyFailed("; ".join(c.summary for c in conflicts), conflicts[0].hint)
    started = time.monotonic()
    renew = await _before(prepared)
    records: dict[str, Record] = {}
    gateways = await _carry_out_all(prepared, records, report)
    left = _left(prepared, gateways)
    renew = {tunnel: ids for tunnel, ids in renew.items() if tunnel not in left}
    tunnels, gone = await _tunnels(prepared, gateways, renew, left, wait_s, report)
    await _strike_out(prepared, records, gone | {t.name for t in tunnels if t.renewed and t.name in renew})
    return Applied(gateways, tunnels, time.monotonic() - started)


def _disturbed(prepared: Prepared) -> frozenset[str]:
    """Return the tunnels whose SAs have to be made anew after the new configuration is loaded."""
    return frozenset(
        tunnel
        for plan in prepared.plans
        for tunnel, grade in plan.disturbed.items()
        if grade >= Disruption.CHILD_RESTART
    )


def _left(prepared: Prepared, gateways: Iterable[GatewayResult]) -> dict[str, str]:
    """Return the disturbed tunnels whose SAs stay, with the reason: an end could not be changed.

    Torn down, such a tunnel could not come up again, as its ends would not agree.
    """
    failed = {gateway.name for gateway in gateways if gateway.error is not None}
    disturbed = {tunnel for plan in prepared.plans for tunnel in plan.disturbed}
    return {
        t.name: f"left as it runs: {end.name} could not be changed"
        for t in prepared.topology.tunnels
        for end in (t.right.gateway, t.left.gateway)
        if t.name in disturbed and end.name in failed
    }


async def _before(prepared: Prepared) -> dict[str, frozenset[int]]:
    """Return the unique ids of the IKE_SAs, by tunnel, that run with a configuration about to be replaced."""
    disturbed = _disturbed(prepared)
    calling = callers(prepared.states, declare(prepared.topology, prepared.states))
    ends = {name: calling[name] for name in disturbed if calling.get(name) in prepared.observed}
    if not ends:
        return {}
    async with watch({name: prepared.handles[name] for name in set(ends.values())}) as watched:
        views = await watched.look(set(ends.values()))
    found: dict[str, frozenset[int]] = {}
    for tunnel, gateway in ends.items():
        view = views[gateway]
        if not isinstance(view, GatewayUnreachable):
            found[tunnel] = frozenset(sa.unique_id for sa in parse_list_sas(view.sas) if sa.name == tunnel)
    return found


async def _carry_out_all(
    prepared: Prepared, records: dict[str, Record], report: Reporter
) -> tuple[GatewayResult, ...]:
    """Carry all plans out; the record left on each gateway that succeeded goes to ``records``."""
    bound = asyncio.Semaphore(SIDE_BY_SIDE)
    results = [GatewayResult(name, 0, 0.0, error) for name, error in prepared.failures.items()]
    for result in results:
        report.gateway(result)

    async def one(name: str) -> None:
        plan = next(plan for plan in prepared.plans if plan.gateway == name)
        async with bound:
            result = await _carry_out(prepared, name, len(plan.changes), records)
        results.append(result)
        report.gateway(result)

    async with asyncio.TaskGroup() as group:
        for plan in prepared.plans:
            group.create_task(one(plan.gateway))
    return tuple(sorted(results, key=lambda result: result.name))


async def _carry_out(
    prepared: Prepared, name: str, changes: int, records: dict[str, Record]
) -> GatewayResult:
    started = time.monotonic()
    plan = next(plan for plan in prepared.plans if plan.gateway == name)
    error = None
    if changes:
        try:
            records[name] = await carry_out(
                prepared.handles[name], plan, prepared.wanted[name], prepared.observed[name]
            )
        except IpsecctlError as failed:
            error = failed
    return GatewayResult(name, changes, time.monotonic() - started, error, plan.restart_for)


async def _strike_out(prepared: Prepared, records: Mapping[str, Record], renewed: set[str]) -> None:
    """Take from the records the tunnels whose SAs were made anew."""

    async def one(name: str, record: Record) -> None:
        with suppress(IpsecctlError):  # then the next apply renews once more than it must
            await write_files(prepared.handles[name], [NewFile(RECORD_PATH, record.to_json(), 0o600)])

    async with asyncio.TaskGroup() as group:
        for name, record in records.items():
            if renewed & {*record.renew}:
                rest = tuple(tunnel for tunnel in record.renew if tunnel not in renewed)
                group.create_task(one(name, replace(record, renew=rest)))


async def _tunnels(
    prepared: Prepared,
    gateways: Iterable[GatewayResult],
    renew: Mapping[str, frozenset[int]],
    left: Mapping[str, str],
    wait_s: float,
    report: Reporter,
) -> tuple[tuple[TunnelResult, ...], set[str]]:
    """Return what became of the tunnels, and those whose SAs were let go for the far end to make anew."""
    declared = declare(prepared.topology, prepared.states)
    calling = callers(prepared.states, declared)
    lost = {g.name: g.error for g in gateways if g.error is not None and g.name in prepared.failures}
    handles = {name: handle for name, handle in prepared.handles.items() if name not in lost}
    async with watch(handles) as watched:
        watched.views.update({name: _unreachable(name, error) for name, error in lost.items()})
        gone = await _let_go(watched, prepared, {*calling, *left})
        results = await bring_up(
            watched, declared, calling, renew, wait_s=wait_s, left=left, report=report.tunnel
        )
    return results, gone


def _unreachable(name: str, error: IpsecctlError) -> GatewayUnreachable:
    if isinstance(error, GatewayUnreachable):
        return error
    return GatewayUnreachable(name, error.summary, error.hint)


async def _let_go(watched: Watch, prepared: Prepared, others: set[str]) -> set[str]:
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

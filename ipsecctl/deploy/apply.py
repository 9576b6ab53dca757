"""Make the gateways what the topology says, side by side, and wait for the tunnels.

A gateway that fails is reported and does not stop the others. Tunnels are initiated only when every gateway
is loaded, so that no call meets a far end that does not know it yet. All gateways are locked from the first
step to the last: of two applies that meet on one, the second does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ipsecctl.deploy.carry import carry_out, remember
from ipsecctl.deploy.locks import lock_all
from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.deploy.tunnels import TunnelResult, bring_up, callers
from ipsecctl.deploy.undo import Net, Waiting, armed
from ipsecctl.deploy.watch import Watch, watch
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, IpsecctlError, ViciRefused
from ipsecctl.gateway import RECORD_PATH, NewFile, Record, write_files
from ipsecctl.health import Declared, declare, parse_list_sas, start_up_causes
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import Disruption, GatewayPlan, Part, restart_for, start_up

__all__ = ["Applied", "GatewayResult", "Reporter", "apply"]

_WRITE_TRIES = 2


@dataclass(frozen=True, slots=True)
class GatewayResult:
    """What became of a gateway: ``changes`` done in ``took_s`` seconds, or the ``error`` that stopped it.

    ``restart_for`` are the options for which its charon must yet be restarted, and ``restart`` says how;
    ``restarted`` says that this was done, as nobody used it. With
    ``charon_down`` the changes were done to the host alone, although there is an error.
    """

    name: str
    changes: int
    took_s: float
    error: IpsecctlError | None = None
    restart_for: tuple[str, ...] = ()
    restart: str = ""
    charon_down: bool = False
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. Gateways and tunnels are sorted by name.

    ``waiting`` says what became of its net, ``None`` where it had none, or nothing to change.
    """

    gateways: tuple[GatewayResult, ...]
    tunnels: tuple[TunnelResult, ...]
    took_s: float
    waiting: Waiting | None = None

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


async def apply(
    prepared: Prepared,
    report: Reporter,
    *,
    wait_s: float = 30.0 * PATIENCE,
    break_locks: bool = False,
    net: Net | None = None,
) -> Applied:
    """Carry out prepared plans and bring the tunnels up, waiting for these at most ``wait_s`` seconds.

    Errors of single gateways are in the result. Raises ``ApplyFailed`` when a plan has conflicts, when
    another apply is at work on one of the gateways, or has been since the plan was made: then nothing at all
    is done. ``break_locks`` takes the gateways' locks from another apply. With a ``net`` the gateways go back
    by themselves unless they are confirmed.
    """
    conflicts = [conflict for plan in prepared.plans for conflict in plan.conflicts]
    if conflicts:
        hints = dict.fromkeys(conflict.hint for conflict in conflicts)
        raise ApplyFailed("; ".join(conflict.summary for conflict in conflicts), " ".join(hints))
    async with lock_all(prepared, break_them=break_locks) as ready:
        if net is None or not any(plan.changes for plan in ready.plans):
            return await _apply(ready, report, wait_s)
        async with armed(ready, net) as arms:
            applied = await _apply(ready, report, wait_s)
            return replace(applied, waiting=await arms.end(succeeded=applied.succeeded))


async def _apply(prepared: Prepared, report: Reporter, wait_s: float) -> Applied:
    started = time.monotonic()
    renew = await _before(prepared)
    records: dict[str, Record] = {}
    gateways = await _carry_out_all(prepared, records, report)
    left = _left(prepared, gateways)
    renew = {tunnel: ids for tunnel, ids in renew.items() if tunnel not in left}
    tunnels, gone = await _tunnels(prepared, gateways, renew, left, wait_s, report)
    renewed = gone | {t.name for t in tunnels if t.renewed and t.name in renew}
    not_written = await _strike_out(prepared, records, renewed)
    gateways = tuple(replace(g, error=g.error or not_written.get(g.name)) for g in gateways)
    for gateway in gateways:
        if gateway.name in not_written:
            report.gateway(gateway)
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
    planned = {plan.gateway for plan in prepared.plans}
    failures = {name: error for name, error in prepared.failures.items() if name not in planned}
    results = [GatewayResult(name, 0, 0.0, error) for name, error in failures.items()]
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
    error: IpsecctlError | None = None
    handle, wanted, observed = prepared.handles[name], prepared.wanted[name], prepared.observed[name]
    if changes:
        try:
            records[name] = await carry_out(handle, plan, wanted, observed)
        except IpsecctlError as failed:
            error = failed
    else:
        with suppress(IpsecctlError):  # it is asked for again next time
            await remember(handle, wanted, observed)
    down = observed.charon_down
    if down is not None and error is None:
        error = _host_alone(plan, down)
    took_s = time.monotonic() - started
    record, planned = records.get(name), bool(plan.of(Part.CHARON))
    waiting = restart_for(record.start_up) if record is not None and planned else plan.restart_for
    return GatewayResult(
        name,
        changes,
        took_s,
        error,
        waiting,
        plan.restart,
        charon_down=down is not None,
        restarted=planned and record is not None and not waiting,
    )


def _host_alone(plan: GatewayPlan, down: GatewayUnreachable) -> GatewayUnreachable:
    """Return what is to be said of a gateway whose charon does not run: what was done there, and what not."""
    done = ", ".join(f"{change.part} {change.name}" for change in plan.changes)
    host = f"done without it: {done}" if done else "the host's part is as it should be"
    cause = f"{down.cause}; {host}; not done: its connections and keys, and what is to be taken away"
    hint = f"{down.hint.rstrip('.')}, then apply again." if down.hint else "Start it, then apply again."
    return GatewayUnreachable(down.gateway, cause, hint, charon_down=True)


async def _strike_out(
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
    failed = {g.name for g in gateways if g.error is not None}
    lost = {name: error for name, error in prepared.failures.items() if name in failed}
    handles = {name: handle for name, handle in prepared.handles.items() if name not in lost}
    async with watch(handles) as watched:
        watched.views.update({name: _unreachable(name, error) for name, error in lost.items()})
        gone = await _let_go(watched, prepared, {*calling, *left})
        results = await bring_up(
            watched,
            declared,
            calling,
            renew,
            wait_s=wait_s,
            left=left,
            doubts=_doubts(prepared, declared, {g.name for g in gateways if g.restarted}),
            report=report.tunnel,
        )
    return results, gone


def _doubts(
    prepared: Prepared, declared: Iterable[Declared], restarted: set[str]
) -> dict[str, tuple[str, ...]]:
    """Return by tunnel why it is not proven right: charon at an end has not read options that it needs.

    One that was ``restarted`` has read all.
    """
    pending = {
        name: start_up(prepared.wanted[name], seen).pending(seen.facts.charon)
        for name, seen in prepared.observed.items()
        if name not in restarted
    }
    found = {
        tunnel.name: tuple(
            cause
            for end in (tunnel.left.name, tunnel.right.name)
            if pending.get(end)
            for cause in start_up_causes(
                end, tunnel.mtus.get(end), pending[end], prepared.observed[end].facts.restart
            )
        )
        for tunnel in declared
    }
    return {name: causes for name, causes in found.items() if causes}


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

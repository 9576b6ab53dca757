"""Make the gateways what the topology says, side by side, and wait for the tunnels.

A gateway that fails is reported and does not stop the others. Every gateway is as far as the others before
any tunnel is touched: running SAs are moved (deploy/move.py) when both ends accept the old and the new, what
is no longer wanted is withdrawn after that, and no call meets a far end that does not know it yet. All
gateways are locked from the first step to the last: of two applies that meet on one, the second does nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ipsecctl.deploy.carry import Carrier, remember
from ipsecctl.deploy.doubts import doubts, obstacles
from ipsecctl.deploy.locks import lock_all
from ipsecctl.deploy.move import Moving, held, move_all, movings
from ipsecctl.deploy.narrow import callers_that_wait
from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.deploy.safety import refused
from ipsecctl.deploy.tunnels import TunnelResult, bring_up, callers
from ipsecctl.deploy.undo import Net, Waiting, armed
from ipsecctl.deploy.watch import Watch, watch
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, IpsecctlError, ViciRefused
from ipsecctl.gateway import RECORD_PATH, NewFile, Record, write_files
from ipsecctl.health import Declared, declare, parse_list_sas
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import Disruption, GatewayPlan, Part, restart_for

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

    Errors of single gateways are in the result. Raises ``SafetyStop`` when plans remove or disturb more than
    they may, ``ApplyFailed`` when a plan has conflicts, when
    another apply is at work on one of the gateways, or has been since the plan was made: then nothing at all
    is done. ``break_locks`` takes the gateways' locks from another apply. With a ``net`` the gateways go back
    by themselves unless they are confirmed.
    """
    conflicts = [conflict for plan in prepared.plans for conflict in plan.conflicts]
    if conflicts:
        hints = dict.fromkeys(conflict.hint for conflict in conflicts)
        raise ApplyFailed("; ".join(conflict.summary for conflict in conflicts), " ".join(hints))
    if prepared.stops:
        raise refused(prepared.stops)
    async with lock_all(prepared, break_them=break_locks) as ready:
        if net is None or not any(plan.changes for plan in ready.plans):
            return await _apply(ready, report, wait_s)
        async with armed(ready, net) as arms:
            applied = await _apply(ready, report, wait_s)
            return replace(applied, waiting=await arms.end(succeeded=applied.succeeded))


async def _apply(prepared: Prepared, report: Reporter, wait_s: float) -> Applied:
    started = time.monotonic()
    declared = declare(prepared.topology, prepared.states)
    calling = callers(prepared.states, declared)
    work = _Work(prepared, report, declared, calling, movings(prepared, declared, calling))
    renew = await _before(prepared, calling, work.moving)
    await work.begin()
    left = _left(prepared, work.results.values())
    renew = _still_there(work, renew, left)
    tunnels, gone = await _tunnels(work, renew, left, wait_s)
    renewed = gone | {t.name for t in tunnels if t.renewed and t.name in renew}
    not_written = await _strike_out(prepared, work.records, renewed)
    gateways = tuple(
        replace(g, error=g.error or not_written.get(g.name)) for _, g in sorted(work.results.items())
    )
    for gateway in gateways:
        if gateway.name in not_written:
            report.gateway(gateway)
    return Applied(gateways, tunnels, time.monotonic() - started)


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


async def _before(
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
        views = await watched.look(set(ends.values()))
    found: dict[str, frozenset[int]] = {}
    for tunnel, gateway in ends.items():
        view = views[gateway]
        if not isinstance(view, GatewayUnreachable):
            found[tunnel] = frozenset(sa.unique_id for sa in parse_list_sas(view.sas) if sa.name == tunnel)
    return found


def _still_there(
    work: _Work, renew: Mapping[str, frozenset[int]], left: Mapping[str, str]
) -> dict[str, frozenset[int]]:
    """Return of the SAs that had to go those that still have to: a restarted charon has none of them.

    It counts its SAs from 1 again, and a new one must not be taken for an old one.
    """
    fresh = {gateway.name for gateway in work.results.values() if gateway.restarted}
    fresh |= {name for name, carrier in work.carriers.items() if carrier.restarted}
    return {
        tunnel: frozenset() if work.calling[tunnel] in fresh else ids
        for tunnel, ids in renew.items()
        if tunnel not in left
    }


class _Work:
    """What is being done on the gateways: begun on all of them before any goes on."""

    def __init__(
        self,
        prepared: Prepared,
        report: Reporter,
        declared: tuple[Declared, ...],
        calling: Mapping[str, str],
        moving: Mapping[str, Moving],
    ) -> None:
        self.prepared = prepared
        self.report = report
        self.declared = declared
        self.calling = calling
        self.moving = moving
        self.later = callers_that_wait(prepared, declared, calling, moving)
        self.results: dict[str, GatewayResult] = {}
        self.records: dict[str, Record] = {}
        """What was left on each gateway that is done."""

        self.carriers: dict[str, Carrier] = {}
        """Those that go on when all have begun and SAs were moved."""

        self._plans = {plan.gateway: plan for plan in prepared.plans}
        self._started: dict[str, float] = {}
        self._bound = asyncio.Semaphore(SIDE_BY_SIDE)

    async def begin(self) -> None:
        """Carry all plans out as far as that can be done before SAs are moved."""
        for name, error in self.prepared.failures.items():
            if name not in self._plans:
                self._done(GatewayResult(name, 0, 0.0, error))
        async with asyncio.TaskGroup() as group:
            for name in self._plans:
                group.create_task(self._begin(name))

    async def _begin(self, name: str) -> None:
        async with self._bound:
            self._started[name] = time.monotonic()
            prepared, plan = self.prepared, self._plans[name]
            handle, wanted, observed = prepared.handles[name], prepared.wanted[name], prepared.observed[name]
            error: IpsecctlError | None = None
            if plan.changes:
                waiting, later = held(prepared, self.moving, name), self.later.get(name, ())
                carrier = Carrier(handle, plan, wanted, observed, waiting, later)
                try:
                    record = await carrier.begin()
                except IpsecctlError as failed:
                    error = failed
                else:
                    if record is None:
                        self.carriers[name] = carrier
                        return
                    self.records[name] = record
            else:
                with suppress(IpsecctlError):  # it is asked for again next time
                    await remember(handle, wanted, observed)
            self._conclude(name, error)

    async def move(self, watched: Watch, left: Collection[str]) -> dict[str, str]:
        """Move the SAs of tunnels but those that are ``left``, and finish all gateways.

        Returns by tunnel why one was not moved, "" where it was.
        """
        async with asyncio.TaskGroup() as group:
            for name in self.carriers:
                group.create_task(self._prefer_new_keys(watched, name))

        async def load(gateway: str, tunnel: str) -> str:
            client, carrier = watched.client(gateway), self.carriers.get(gateway)
            if client is None or carrier is None or tunnel not in carrier.held:
                return ""
            return await carrier.load(client, tunnel)

        told = await move_all(watched, [m for name, m in self.moving.items() if name not in left], load)
        later = {name for names in self.later.values() for name in names}
        moved = frozenset({name for name, why in told.items() if not why} | later - {*left})
        async with asyncio.TaskGroup() as group:
            for name in self.carriers:
                group.create_task(self._finish(watched, name, moved))
        return told

    async def _prefer_new_keys(self, watched: Watch, name: str) -> None:
        client = watched.client(name)
        with suppress(IpsecctlError):  # the look that follows shows it
            if client is not None:
                await self.carriers[name].prefer_new_keys(client)

    async def _finish(self, watched: Watch, name: str, moved: frozenset[str]) -> None:
        async with self._bound:
            client, error = watched.client(name), None
            try:
                if client is None:
                    gone = watched.views[name]
                    raise gone if isinstance(gone, GatewayUnreachable) else GatewayUnreachable(name, "gone")
                self.records[name] = await self.carriers[name].finish(client, moved)
            except IpsecctlError as failed:
                error = failed
            self._conclude(name, error)

    def _conclude(self, name: str, error: IpsecctlError | None) -> None:
        plan, down = self._plans[name], self.prepared.observed[name].charon_down
        if down is not None and error is None:
            error = _host_alone(plan, down)
        record, planned = self.records.get(name), bool(plan.of(Part.CHARON))
        waiting = restart_for(record.start_up) if record is not None and planned else plan.restart_for
        self._done(
            GatewayResult(
                name,
                len(plan.changes),
                time.monotonic() - self._started[name],
                error,
                waiting,
                plan.restart,
                charon_down=down is not None,
                restarted=planned and record is not None and not waiting,
            )
        )

    def _done(self, result: GatewayResult) -> None:
        self.results[result.name] = result
        self.report.gateway(result)


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
    work: _Work, renew: Mapping[str, frozenset[int]], left: Mapping[str, str], wait_s: float
) -> tuple[tuple[TunnelResult, ...], set[str]]:
    """Return what became of the tunnels, and those whose SAs were let go for the far end to make anew."""
    prepared, declared = work.prepared, work.declared
    failed = {name for name, result in work.results.items() if result.error is not None}
    lost = {name: error for name, error in prepared.failures.items() if name in failed}
    handles = {name: handle for name, handle in prepared.handles.items() if name not in lost}
    async with watch(handles) as watched:
        watched.views.update({name: _unreachable(name, error) for name, error in lost.items()})
        told = await work.move(watched, left)
        gone = await _let_go(watched, prepared, {*work.calling, *left, *work.moving})
        not_moved = {name: f"its SAs are left as they run: {why}" for name, why in told.items() if why}
        results = await bring_up(
            watched,
            declared,
            work.calling,
            renew,
            wait_s=wait_s,
            left={**left, **not_moved},
            doubts=doubts(prepared, declared, {n for n, r in work.results.items() if r.restarted}),
            obstacles=obstacles(prepared, declared),
            moved=told.keys() - not_moved.keys(),
            report=work.report.tunnel,
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

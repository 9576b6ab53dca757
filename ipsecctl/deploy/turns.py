"""What is being done on the gateways of an apply: one turn after the other, one for each batch.

A tunnel has its turn when both of its ends were begun; until then its SAs stay, and an end that was begun
accepts the old configuration. deploy/fleet.py says whose turn it is, and whether one was well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from ipsecctl.deploy import renewal
from ipsecctl.deploy.carry import Carrier, remember
from ipsecctl.deploy.doubts import doubts, obstacles
from ipsecctl.deploy.fleet import Turn
from ipsecctl.deploy.gate import carrying, carrying_before, new_tunnels
from ipsecctl.deploy.holding import left_alone
from ipsecctl.deploy.move import Moving, held, move_all
from ipsecctl.deploy.narrow import callers_that_wait
from ipsecctl.deploy.outcome import GatewayResult, Reporter, as_unreachable, host_alone
from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.deploy.tunnels import TunnelResult, bring_up
from ipsecctl.deploy.watch import Watch, watch
from ipsecctl.errors import GatewayUnreachable, IpsecctlError
from ipsecctl.gateway import Record
from ipsecctl.health import Declared
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import Part, needs, restart_for

__all__ = ["Work"]

_BEHIND_S = 2.0 * PATIENCE
"""For how long no gateway has got anywhere before the others go on without those that have not."""


class Work:
    """What is being done on the gateways, turn by turn: begun on all of a turn before any goes on."""

    def __init__(
        self,
        prepared: Prepared,
        report: Reporter,
        declared: tuple[Declared, ...],
        calling: Mapping[str, str],
        moving: Mapping[str, Moving],
        wait_s: float,
    ) -> None:
        self.prepared = prepared
        self.report = report
        self.declared = declared
        self.calling = calling
        self.moving = moving
        self.later = callers_that_wait(prepared, declared, calling, moving)
        self.wait_s = wait_s
        self.batch: dict[str, int] = {}
        """The number of each gateway's batch."""

        self.results: dict[str, GatewayResult] = {}
        self.tunnels: dict[str, TunnelResult] = {}
        self.records: dict[str, Record] = {}
        """What was left on each gateway that is done."""

        self.carriers: dict[str, Carrier] = {}
        """Those that go on when all of a turn have begun and SAs were moved."""

        self.renewed: set[str] = set()
        """Tunnels whose SAs were ended and made anew."""

        self._plans = {plan.gateway: plan for plan in prepared.plans}
        changed = needs(prepared.plans)
        self._needs = {
            name: changed.get(name, frozenset()) | {*prepared.half.get(name, ())}
            for name in {t.name for t in declared}
        }
        self._ends = {t.name: {g.name for g in (t.left, t.right) if g.managed} for t in declared}
        self._begun: set[str] = set()
        self._handled: set[str] = set()
        self._moved: set[str] = set()
        self._why_not: dict[str, str] = {}
        self._carried = carrying_before(prepared, declared)
        self._new = new_tunnels(prepared, declared)
        self._started: dict[str, float] = {}
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._bound = asyncio.Semaphore(SIDE_BY_SIDE)
        self._behind = False
        """Whether gateways hung in the last turn."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of gateways that have not come to an end."""
        for task in self._at_work.values():
            task.cancel()
        await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def turn(
        self, gateways: Collection[str], *, last: bool, passes: Callable[[Turn], bool], wait_for_all: bool
    ) -> bool:
        """Change gateways and bring up the tunnels that have both ends changed by now; return whether the
        result ``passes``.

        If not, the ends of these tunnels that were begun in earlier turns have again what they had. In the
        ``last`` turn all that is left is finished. One of ``gateways`` that hangs is waited for if that is
        said, else left to ``stragglers``.
        """
        changed = {name for name in gateways if self._plans[name].changes}
        now = {t.name for t in self.declared if last or self._ends[t.name] & changed} - self._handled
        self._begun |= {*gateways}
        ready = {name for name in now if self._needs[name] <= self._begun}
        others = self._ends.keys() - ready
        renew = await renewal.before(self.prepared, self.calling, {*self.moving, *others})
        await self._begin_all(gateways, wait_for_all=wait_for_all)
        late = self.late
        self._behind = bool(late) if last else self._behind
        ready = {name for name in ready if not self._ends[name] & late}
        self._handled |= ready
        left = left_alone(self.prepared.held) | renewal.left(self.prepared, self.results.values())
        renew = {n: ids for n, ids in renew.items() if n in ready and n not in left}
        renew = renewal.still_there(renew, self.calling, self._restarted)
        return await self._tunnels(gateways, ready, now - ready, renew, left, passes, last and not late)

    @property
    def _restarted(self) -> set[str]:
        """The gateways whose charon was restarted by us."""
        done = {name for name, result in self.results.items() if result.restarted}
        return done | {name for name, carrier in self.carriers.items() if carrier.restarted}

    @property
    def late(self) -> set[str]:
        """The gateways that have not come to the end of what comes before the tunnels."""
        return {name for name, task in self._at_work.items() if not task.done()}

    async def stragglers(self) -> None:
        """Wait for those that hang, and do what is left with or without them.

        What hung in the last turn may have come to its end during that: its tunnels are left all the same.
        """
        if late := self.late:
            await asyncio.wait([self._at_work[name] for name in late])
        if self._behind:
            await self.turn((), last=True, passes=lambda _: True, wait_for_all=True)

    async def _begin_all(self, gateways: Collection[str], *, wait_for_all: bool) -> None:
        """Carry plans out as far as that can be done before SAs are moved."""
        for name in sorted(gateways):
            self._at_work[name] = asyncio.create_task(self._begin(name))
        left = [self._at_work[name] for name in gateways]
        while left:
            some = len(left) < len(gateways)
            wait_s = _BEHIND_S if some and not wait_for_all else None
            done, _ = await asyncio.wait(left, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            for task in done:
                task.result()  # what it raises is a fault of ours
            left = [task for task in left if not task.done()]

    def unplanned(self) -> None:
        """Report the gateways that have no plan."""
        for name, error in self.prepared.failures.items():
            inside = self.prepared.limit is None or name in self.prepared.limit
            if name not in self._plans and inside:
                self._done(GatewayResult(name, 0, 0.0, error))

    def _held(self, name: str) -> dict[str, dict[str, Any] | None]:
        """Return what a gateway's charon has of connections that wait for the turn of their tunnel."""
        plan, loaded = self._plans[name], self.prepared.observed[name].connections
        waiting = {tunnel for tunnel in self._needs if not self._needs[tunnel] <= self._begun}
        still: dict[str, dict[str, Any] | None] = dict.fromkeys(
            (waiting & loaded.keys() | self.prepared.held) & plan.disturbed.keys()
        )
        return still | held(self.prepared, self.moving, name)

    async def _begin(self, name: str) -> None:
        async with self._bound:
            self._started[name] = time.monotonic()
            prepared, plan = self.prepared, self._plans[name]
            handle, wanted, observed = prepared.handles[name], prepared.wanted[name], prepared.observed[name]
            error: IpsecctlError | None = None
            if plan.changes:
                waiting = self._held(name)
                later = self.later.get(name, frozenset()) - waiting.keys()
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

    async def _move(self, watched: Watch, ready: Collection[str]) -> dict[str, str]:
        """Move the SAs of tunnels; return by tunnel why one was not moved, "" where it was."""
        async with asyncio.TaskGroup() as group:
            for name in self.carriers:
                group.create_task(self._prefer_new_keys(watched, name, ready))

        async def load(gateway: str, tunnel: str) -> str:
            client, carrier = watched.client(gateway), self.carriers.get(gateway)
            if client is None or carrier is None or tunnel not in carrier.held:
                return ""
            return await carrier.load(client, tunnel)

        told = await move_all(watched, [m for name, m in self.moving.items() if name in ready], load)
        self._moved |= {name for name, why in told.items() if not why}
        self._why_not |= {name: why for name, why in told.items() if why}
        await self._release(watched, {*ready} - self.moving.keys())
        return told

    async def _release(self, watched: Watch, tunnels: Collection[str]) -> None:
        """Load what was kept back for tunnels that are not moved; who calls comes last."""
        for calls in (False, True):
            for name, carrier in self.carriers.items():
                client = watched.client(name)
                now = {t for t in tunnels if t in carrier.waiting and (self.calling.get(t) == name) is calls}
                with suppress(IpsecctlError):  # the look that follows shows it
                    if client is not None and now:
                        await carrier.release(client, now)
                        watched.loaded(name, now)
                        self._moved |= now

    async def _finish_all(self, watched: Watch, gateways: Collection[str], *, last: bool) -> None:
        """Finish those of ``gateways`` that wait for no later turn."""
        done = [
            name
            for name, carrier in self.carriers.items()
            if name in gateways and (last or carrier.waiting <= self._handled)
        ]
        async with asyncio.TaskGroup() as group:
            for name in done:
                group.create_task(self._finish(watched, name, frozenset(self._moved)))
        for name in done:
            del self.carriers[name]

    async def close(self) -> dict[str, tuple[str, ...]]:
        """Finish what still waits for turns that will not come; return the tunnels that are left, by gateway.

        One that fails in this is not among them.
        """
        waiting = {name: tuple(sorted(c.waiting - self._moved)) for name, c in self.carriers.items()}
        if self.carriers:
            async with watch({name: self.prepared.handles[name] for name in self.carriers}) as watched:
                await self._finish_all(watched, {*self.carriers}, last=True)
        return {name: left for name, left in waiting.items() if left and not self.results[name].error}

    def drop(self, gateways: Iterable[str]) -> None:
        """Leave gateways alone from now on: they go back."""
        for name in gateways:
            self.carriers.pop(name, None)
            self.records.pop(name, None)

    async def _back(self, watched: Watch, ready: Collection[str], batch: Collection[str]) -> None:
        """Undo on gateways of earlier turns what was done for tunnels whose other end goes back."""
        for name, carrier in self.carriers.items():
            client = watched.client(name)
            if client is not None and name not in batch:
                with suppress(IpsecctlError):  # the next apply finds it begun
                    await carrier.back(client, ready)
        self._moved -= {*ready}

    async def _prefer_new_keys(self, watched: Watch, name: str, tunnels: Collection[str]) -> None:
        client = watched.client(name)
        with suppress(IpsecctlError):  # the look that follows shows it
            if client is not None:
                await self.carriers[name].prefer_new_keys(client, tunnels)

    async def _finish(self, watched: Watch, name: str, moved: frozenset[str]) -> None:
        async with self._bound:
            client, error = watched.client(name), None
            try:
                if client is None:
                    gone = watched.views[name]
                    raise gone if isinstance(gone, GatewayUnreachable) else GatewayUnreachable(name, "gone")
                self.records[name] = await self.carriers[name].finish(client, moved, self._why_not)
            except IpsecctlError as failed:
                error = failed
            self._conclude(name, error)

    def _conclude(self, name: str, error: IpsecctlError | None) -> None:
        plan, down = self._plans[name], self.prepared.observed[name].charon_down
        if down is not None and error is None:
            error = host_alone(plan, down)
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
        self.say(replace(result, batch=self.batch.get(result.name, 0)))

    def say(self, result: GatewayResult) -> None:
        """Have this as the result of a gateway, and report it."""
        self.results[result.name] = result
        self.report.gateway(result)

    async def strike_out(self) -> None:
        """Take from the records the tunnels whose SAs were made anew."""
        for name, error in (await renewal.strike_out(self.prepared, self.records, self.renewed)).items():
            self.say(replace(self.results[name], error=self.results[name].error or error))

    async def _tunnels(
        self,
        batch: Collection[str],
        ready: set[str],
        half: set[str],
        renew: Mapping[str, frozenset[int]],
        left: Mapping[str, str],
        passes: Callable[[Turn], bool],
        last: bool,
    ) -> bool:
        """Move and bring up the tunnels that are ``ready``, finish what is complete, and return whether that
        ``passes``. Of the ``half`` ones it is only seen whether they carry what they did."""
        prepared = self.prepared
        declared = tuple(t for t in self.declared if t.name in ready)
        at_work = {end for name in ready | half for end in self._ends[name]}
        at_work |= {n for n, c in self.carriers.items() if last or n in batch or c.waiting & ready}
        failed = {name for name, result in self.results.items() if result.error is not None}
        lost = {n: error for n, error in prepared.failures.items() if n in failed or n not in self._plans}
        handles = {
            n: prepared.handles[n] for n in at_work & prepared.handles.keys() - lost.keys() - self.late
        }
        restarted = {n for n, r in self.results.items() if r.restarted}
        known = doubts(prepared, declared, restarted)
        async with watch(handles) as watched:
            watched.views.update({name: as_unreachable(name, error) for name, error in lost.items()})
            self._why_not |= left
            told = await self._move(watched, ready - left.keys())
            await self._finish_all(watched, {*batch} if batch else {*self.carriers}, last=last)
            plans = tuple(plan for plan in prepared.plans if plan.gateway in batch)
            untouched = {*self.calling, *left, *self.moving, *half}
            gone = await renewal.let_go(watched, replace(prepared, plans=plans), untouched)
            not_moved = {name: why for name, why in told.items() if why}
            results = await bring_up(
                watched,
                declared,
                self.calling,
                renew,
                wait_s=self.wait_s,
                left={**left, **not_moved},
                doubts=known,
                obstacles=obstacles(prepared, declared),
                moved=told.keys() - not_moved.keys(),
                in_vain=not_moved,
                report=self.report.tunnel,
            )
            self.tunnels |= {result.name: result for result in results}
            self.renewed |= gone | {t.name for t in results if t.renewed and t.name in renew}
            dead = self._carried & half - await carrying(watched, self._carried & half, self._ends)
            asked_for = self._carried | self._new
            watched_for = {result.name: result for result in results if result.name in asked_for}
            known |= {n: r.health.causes for n, r in watched_for.items() if n in prepared.held}
            passed = passes(
                Turn({n for n in failed & {*batch} if not self._known(n)}, watched_for, known, dead)
            )
            if passed:
                await self._finish_all(watched, {*self.carriers} - {*batch}, last=last)
            else:
                await self._back(watched, ready, batch)
        return passed

    def _known(self, name: str) -> bool:
        """Whether it was known before the first change that a gateway would fail."""
        return name in self.prepared.failures

"""Over a fleet, batch by batch: a health gate after each, and what failed it goes back.

The gate: no gateway of the batch has failed, and all tunnels that the batch has touched, and that carried
before or are new, are up. What fails it goes back at once, as with ``--undo-on-failure`` (deploy/undo.py),
and no further batch is begun. ``max_fail`` lets so many gateways fail before that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ipsecctl.deploy.outcome import GatewayResult, Reporter
from ipsecctl.deploy.undo import Armed, Net, Waiting, armed, new_token
from ipsecctl.errors import ApplyFailed, IpsecctlError
from ipsecctl.health import Verdict
from ipsecctl.plan import Batch, Share, batches

if TYPE_CHECKING:
    from ipsecctl.deploy.prepare import Prepared
    from ipsecctl.deploy.tunnels import TunnelResult

__all__ = ["Rollout", "Turn", "batches_of", "roll_out"]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a fleet is gone through: the gateways that come first, how many at a time, how many may fail."""

    canary: frozenset[str] = frozenset()
    size: Share | None = None
    max_fail: Share | None = None

    @property
    def gated(self) -> bool:
        """Whether there are batches with a gate between them; without it all are changed side by side."""
        return bool(self.canary) or self.size is not None


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of a batch, for the gate: gateways that failed in it, and what it has touched.

    ``tunnels`` are those that carried before or are new, ``doubts`` what was wrong with some beforehand,
    ``dead`` those with one end still to be changed that carry nothing any more.
    """

    failed: Collection[str]
    tunnels: Mapping[str, TunnelResult]
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    dead: Collection[str] = ()

    @property
    def bad(self) -> dict[str, str]:
        """The tunnels that keep the gate shut, with what is wrong."""
        found = dict.fromkeys(sorted(self.dead), "it carries nothing any more")
        for name, result in self.tunnels.items():
            verdict, causes = result.health.verdict, result.health.causes
            known = verdict is Verdict.DEGRADED and {*causes} <= {*self.doubts.get(name, ())}
            if not result.up and not known:
                found[name] = f"it is {verdict}" + (f": {'; '.join(causes)}" if causes else "")
        return found


class Turns(Protocol):
    """What goes through the batches (``Work`` of deploy/turns.py)."""

    prepared: Prepared
    report: Reporter
    batch: dict[str, int]
    results: dict[str, GatewayResult]
    tunnels: dict[str, TunnelResult]

    def unplanned(self) -> None: ...
    async def turn(
        self, gateways: Collection[str], *, last: bool, passes: Callable[[Turn], bool], wait_for_all: bool
    ) -> bool: ...
    async def stragglers(self) -> None: ...
    async def close(self) -> dict[str, tuple[str, ...]]: ...
    def drop(self, gateways: Iterable[str]) -> None: ...
    def say(self, result: GatewayResult) -> None: ...
    async def strike_out(self) -> None: ...


def batches_of(prepared: Prepared, rollout: Rollout) -> tuple[Batch, ...]:
    """Return the batches of prepared plans: of the gateways on which there is something to change."""
    changed = [plan.gateway for plan in prepared.plans if plan.changes]
    pairs = [(t.left.gateway.name, t.right.gateway.name) for t in prepared.topology.tunnels]
    return batches(changed, pairs, canary=rollout.canary, size=rollout.size)


async def roll_out(work: Turns, rollout: Rollout, net: Net | None) -> tuple[str, Waiting | None]:
    """Go through all batches; return why they were not all done, "" if they were, and how the net ended.

    Raises ``ApplyFailed`` when there are more failures to begin with than may be, with nothing done, or when
    a gateway cannot be given its way back before the first change.
    """
    course = _Course(work, rollout, net)
    course.demand_few_failures()
    work.unplanned()
    async with AsyncExitStack() as stack:
        await course.run(stack)
    return course.stopped, course.waiting


class _Course:
    def __init__(self, work: Turns, rollout: Rollout, net: Net | None) -> None:
        self.work = work
        self.rollout = rollout
        self.net = net
        self.batches = batches_of(work.prepared, rollout) if rollout.gated else _one_batch(work.prepared)
        self.stopped = ""
        self.waiting: Waiting | None = None
        self._failed: set[str] = set()
        self._began = 0.0
        self._token = new_token()
        self._kept: list[Armed] = []
        tunnels = work.prepared.topology.tunnels
        self._ends = {t.name: (t.left.gateway.name, t.right.gateway.name) for t in tunnels}
        work.batch |= {name: batch.number for batch in self.batches for name in batch.gateways}

    @property
    def _may_fail(self) -> int:
        limit = self.rollout.max_fail
        total = {plan.gateway for plan in self.work.prepared.plans if plan.changes} | self._unplanned
        return limit.of(len(total)) if limit else 0

    @property
    def _unplanned(self) -> set[str]:
        prepared = self.work.prepared
        return {n for n in prepared.failures if prepared.limit is None or n in prepared.limit}

    def demand_few_failures(self) -> None:
        """Raise ``ApplyFailed`` where more gateways cannot be looked at than were said that may fail."""
        if self.rollout.max_fail is None:
            return
        self._failed |= self._unplanned
        if len(self._failed) > self._may_fail:
            summaries = "; ".join(self.work.prepared.failures[name].summary for name in sorted(self._failed))
            raise ApplyFailed(
                f"nothing was done: {_counted(len(self._failed), 'gateway')} failed before the first change, "
                f"and --max-fail {self.rollout.max_fail} lets {self._may_fail} fail: {summaries}",
                "Mend that, leave them out with --limit, or say a larger --max-fail.",
            )

    async def run(self, stack: AsyncExitStack) -> None:
        idle = {plan.gateway for plan in self.work.prepared.plans if not plan.changes}
        gated = self.rollout.gated
        turns: Sequence[Batch] = self.batches or (Batch(1, ()),)
        for batch in turns:
            last = batch is turns[-1]
            self._began = time.monotonic()
            arms = await self._arm(batch, stack)
            if self.stopped:
                break
            passed = await self.work.turn(
                {*batch.gateways, *(idle if batch is turns[0] else ())},
                last=last,
                passes=partial(self._passes, batch) if gated else _any,
                wait_for_all=gated,
            )
            if not passed:
                await self._go_back(batch, arms)
                break
            if arms is not None:
                await self._keep(arms)
            if gated and batch.gateways:
                self.work.report.batch(batch, len(self.batches))
        await self.work.stragglers()
        await self._end()

    async def _arm(self, batch: Batch, stack: AsyncExitStack) -> Armed | None:
        """Give the gateways of a batch their way back; where that cannot be had, the batch is not begun."""
        gated = self.rollout.gated
        if not batch.gateways or (self.net is None and not gated):
            return None
        within_s = self.net.within_s if self.net else None
        on_failure = gated or bool(self.net and self.net.on_failure)
        plans = tuple(plan for plan in self.work.prepared.plans if plan.gateway in batch.gateways)
        try:
            return await stack.enter_async_context(
                armed(replace(self.work.prepared, plans=plans), Net(within_s, on_failure), token=self._token)
            )
        except ApplyFailed as error:
            if batch.number == 1:
                raise
            self._stop(batch, error.summary.removeprefix("nothing was done: "))
            self._not_begun(batch.number)
            return None

    def _passes(self, batch: Batch, turn: Turn) -> bool:
        """Note which gateways have failed; return whether there may be so many."""
        why = {name: str(self.work.results[name].error) for name in turn.failed}
        for tunnel, what in turn.bad.items():
            for name in self._whose(batch, tunnel):
                why.setdefault(name, f"{name}: tunnel {tunnel}: {what}")
        self._failed |= why.keys()
        for name in sorted(why.keys() & self.work.results.keys() - {*turn.failed}):
            result = self.work.results[name]
            self.work.say(replace(result, error=ApplyFailed(why[name])))
        if len(self._failed) <= self._may_fail:
            return True
        self._stop(batch, "; ".join(why[name] for name in sorted(why)[:_NAMED]))
        return False

    def _whose(self, batch: Batch, tunnel: str) -> list[str]:
        """Return the gateways of a batch that a tunnel counts for: not those that came along, if others."""
        ends = [name for name in self._ends[tunnel] if name in batch.gateways]
        return [name for name in ends if name not in batch.along] or ends

    def _stop(self, batch: Batch, why: str) -> None:
        what = "the canary" if batch.canary else f"batch {batch.number} of {len(self.batches)}"
        self.stopped = f"{what} failed: {why}"

    async def _go_back(self, batch: Batch, arms: Armed | None) -> None:
        """Have a batch go back, all before it too if so agreed, and say what was not begun."""
        self.work.drop(batch.gateways)
        await self._undo(arms, batch.number)
        self._not_begun(batch.number + 1)

    async def _undo(self, arms: Armed | None, number: int) -> None:
        if arms is None:
            return
        waiting = await arms.end(succeeded=False)
        self.waiting = _joined(self.waiting, waiting)
        for name in arms.handles:
            result = self.work.results.get(name)
            error = (result.error if result else None) or ApplyFailed(f"{name}: {self.stopped}")
            back = (waiting.undone or {}).get(name)
            if isinstance(back, IpsecctlError):
                error = ApplyFailed(f"{error}; it could not be told to go back: {back.summary}", back.hint)
            plan = next(plan for plan in self.work.prepared.plans if plan.gateway == name)
            done = result or GatewayResult(name, len(plan.changes), time.monotonic() - self._began)
            rolled_back = not isinstance(back, IpsecctlError)
            self.work.say(replace(done, error=error, rolled_back=rolled_back, batch=number))

    def _not_begun(self, first: int) -> None:
        for batch in self.batches:
            for name in batch.gateways if batch.number >= first else ():
                self.work.say(replace(GatewayResult(name, 0, 0.0), begun=False, batch=batch.number))

    async def _keep(self, arms: Armed) -> None:
        """Have a batch stay as it is, unless it must be able to go back until the end."""
        if self.net is None:
            self.waiting = _joined(self.waiting, await arms.end(succeeded=True))
        else:
            self._kept.append(arms)

    async def _end(self) -> None:
        """Finish what is open, and let the gateways stay, wait, or go back, as agreed."""
        work = self.work
        undo = bool(self.net and self.net.on_failure and self.stopped)
        if undo:
            for arms in self._kept:
                work.drop(arms.handles)
        for name, tunnels in (await work.close()).items() if self.stopped else ():
            why = (
                f"{name}: {', '.join(tunnels)} still {'have' if len(tunnels) > 1 else 'has'} to be completed"
            )
            work.say(replace(work.results[name], error=ApplyFailed(f"{why}: {self.stopped}"), partly=True))
        await work.strike_out()
        if not self.rollout.gated and self.net and self.net.on_failure:
            undo = any(r.error for r in work.results.values()) or not all(t.up for t in work.tunnels.values())
        for arms in self._kept:
            if undo and self.rollout.gated:
                await self._undo(arms, work.batch[next(iter(arms.handles))])
            else:
                self.waiting = _joined(self.waiting, await arms.end(succeeded=not undo))


def _any(_: Turn) -> bool:
    return True


def _one_batch(prepared: Prepared) -> tuple[Batch, ...]:
    changed = tuple(sorted(plan.gateway for plan in prepared.plans if plan.changes))
    return (Batch(1, changed),) if changed else ()


def _joined(first: Waiting | None, second: Waiting) -> Waiting:
    """Return how the nets of two batches ended, as one."""
    if first is None:
        return second
    lefts = [each.left_s for each in (first, second) if each.gateways]
    return Waiting(
        second.token,
        tuple(sorted({*first.gateways, *second.gateways})),
        min(lefts, default=0),
        {**(first.lost or {}), **(second.lost or {})},
        {**(first.undone or {}), **(second.undone or {})} or None,
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

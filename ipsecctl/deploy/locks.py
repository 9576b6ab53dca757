"""Lock all gateways of an apply, and see that none was changed since it was planned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, IpsecctlError
from ipsecctl.gateway import locked

__all__ = ["lock_all"]


@asynccontextmanager
async def lock_all(prepared: Prepared, *, break_them: bool = False) -> AsyncIterator[Prepared]:
    """Hold the lock of every gateway that has a plan.

    Entering returns what was prepared, with gateways that can no longer be reached among the failures. Raises
    ``ApplyFailed`` when another apply is at work on one of them, or was since the plan was made;
    ``break_them`` takes the lock from one that is at work.
    """
    names = [plan.gateway for plan in prepared.plans]
    locks = _Locks(prepared, break_them=break_them)
    try:
        # The first one alone: of two applies that start in the same moment one has it, and then the rest.
        await locks.take(names[:1])
        await locks.take(names[1:])
        yield locks.prepared
    finally:
        await locks.release()


class _Locks:
    def __init__(self, prepared: Prepared, *, break_them: bool) -> None:
        self.prepared = prepared
        self._break = break_them
        self._held: list[AsyncExitStack] = []

    async def take(self, names: Iterable[str]) -> None:
        """Lock gateways side by side."""
        bound = asyncio.Semaphore(SIDE_BY_SIDE)
        errors: dict[str, IpsecctlError] = {}

        async def one(name: str) -> None:
            stack = AsyncExitStack()
            self._held.append(stack)
            try:
                async with bound:
                    lock = locked(self.prepared.handles[name], break_it=self._break)
                    record = await stack.enter_async_context(lock)
            except IpsecctlError as error:
                errors[name] = error
                return
            if record != self.prepared.observed[name].facts.record_sha256:
                errors[name] = ApplyFailed(
                    f"{name} was changed by another apply after this one was planned",
                    "Nothing was done. Apply again.",
                )

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))
        lost = {name: e for name, e in errors.items() if isinstance(e, GatewayUnreachable)}
        if against := [errors[name] for name in sorted(errors.keys() - lost.keys())]:
            raise ApplyFailed("; ".join(error.summary for error in against), against[0].hint)
        if lost:
            plans = tuple(plan for plan in self.prepared.plans if plan.gateway not in lost)
            failures = {**self.prepared.failures, **lost}
            self.prepared = replace(self.prepared, plans=plans, failures=failures)

    async def release(self) -> None:
        """Let all locks go, side by side."""
        async with asyncio.TaskGroup() as group:
            for stack in self._held:
                group.create_task(stack.aclose())

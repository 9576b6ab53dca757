"""The way back from an apply: armed on each gateway before its first change, confirmed, or gone at once.

::

    armed(prepared, net)       while an apply works: its gateways would go back if nothing were heard of it
    confirm_all(handles)       keep what was applied
    undo_now(handles)          go back at once on all gateways that wait, side by side
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ipsecctl.deploy._way_back import armament_for
from ipsecctl.deploy.prepare import SIDE_BY_SIDE, Prepared
from ipsecctl.errors import ApplyFailed, IpsecctlError
from ipsecctl.gateway import Handle, UndoState, Way, arm, confirm, extend, forget, how_it_is, undo_at_once
from ipsecctl.patience import PATIENCE
from ipsecctl.whoami import user_at_host

__all__ = [
    "LEAST_S",
    "Armed",
    "Confirmation",
    "Net",
    "Waiting",
    "armed",
    "confirm_all",
    "new_token",
    "undo_now",
]

T = TypeVar("T")

LEAST_S = 10
"""The shortest time to confirm in: a look at a slow gateway takes as long."""

_ON_FAILURE_S = 600
_BEATS = 3
"""How often a gateway hears of an apply at work within the time that it would wait."""


@dataclass(frozen=True, slots=True)
class Net:
    """What is to happen when an apply goes wrong.

    ``within_s``: each gateway goes back unless it is confirmed so many seconds after the apply, or after the
    last that was heard of it; ``None`` when nobody need confirm. ``on_failure``: all go back at once when a
    gateway failed or a tunnel is not up.
    """

    within_s: int | None = None
    on_failure: bool = False

    @property
    def wait_s(self) -> int:
        return self.within_s if self.within_s is not None else _ON_FAILURE_S


@dataclass(frozen=True, slots=True)
class Waiting:
    """How an apply with a net ended.

    ``gateways`` wait for ``left_s`` seconds yet for their confirmation; ``lost`` could not be reached at the
    end, or had gone back, with the reason. ``undone`` are those that went back at once as it failed.
    """

    token: str
    gateways: tuple[str, ...] = ()
    left_s: int = 0
    lost: Mapping[str, IpsecctlError] | None = None
    undone: Mapping[str, UndoState | IpsecctlError] | None = None


class Armed:
    """The gateways of an apply that would go back by themselves; ``token`` marks them."""

    def __init__(self, handles: Mapping[str, Handle], token: str, net: Net) -> None:
        self.handles = handles
        self.token = token
        self.net = net
        self.gone: ApplyFailed | None = None
        self.beats: asyncio.Task[None] | None = None

    async def end(self, *, succeeded: bool) -> Waiting:
        """Let the gateways wait for their confirmation, which begins now; or go back, or stay, as agreed.

        A gateway that cannot be reached goes back by itself.
        """
        if self.beats is not None:
            self.beats.cancel()
        if self.net.on_failure and not succeeded:
            return Waiting(self.token, undone=await undo_now(self.handles, held=True))
        if self.net.within_s is None:
            states = await _on_all(self.handles, lambda handle: confirm(handle, self.token))
            lost = {name: state for name, state in states.items() if isinstance(state, IpsecctlError)}
            return Waiting(self.token, lost=lost)
        found = await _on_all(self.handles, lambda handle: extend(handle, self.token, self.net.wait_s))
        lost = {name: each for name, each in found.items() if isinstance(each, IpsecctlError)}
        left = [each.left_s for each in found.values() if not isinstance(each, IpsecctlError)]
        names = tuple(sorted(found.keys() - lost.keys()))
        return Waiting(self.token, names, min(left, default=0), lost)

    async def beat(self) -> None:
        """Tell the gateways again and again that the apply is at work; return when one has gone back."""
        while True:
            await asyncio.sleep(self.net.wait_s / _BEATS)
            found = await _on_all(self.handles, lambda handle: extend(handle, self.token, self.net.wait_s))
            gone = [each for each in found.values() if isinstance(each, ApplyFailed)]
            if gone:
                self.gone = gone[0]
                return


def new_token() -> str:
    """Return what marks an apply on its gateways."""
    return secrets.token_hex(8)


@asynccontextmanager
async def armed(prepared: Prepared, net: Net, *, token: str = "") -> AsyncIterator[Armed]:
    """Arm all gateways on which something is to change; until ``Armed.end`` they hear of us.

    Batches of one apply have one ``token``. Leaving it changes nothing: who is not told ``Armed.end`` goes
    back when the time is over. Raises ``ApplyFailed`` when one of them cannot be armed, with nothing done on
    any; or, inside, when one has gone back meanwhile.
    """
    names = tuple(plan.gateway for plan in prepared.plans if plan.changes)
    ready = Armed({name: prepared.handles[name] for name in names}, token or new_token(), net)
    await _arm_all(prepared, ready)
    working = asyncio.current_task()
    beats = ready.beats = asyncio.create_task(ready.beat())

    def stop(_: asyncio.Task[None]) -> None:
        if ready.gone is not None and working is not None:
            working.cancel()

    beats.add_done_callback(stop)
    try:
        yield ready
    except asyncio.CancelledError:
        if ready.gone is not None:
            raise ready.gone from None
        raise
    finally:
        beats.cancel()
        with suppress(asyncio.CancelledError):
            await beats


async def _arm_all(prepared: Prepared, ready: Armed) -> None:
    owner = f"{user_at_host()} (pid {os.getpid()})"
    members = tuple(ready.handles)

    async def one(handle: Handle) -> int:
        made = await armament_for(prepared, handle.name, ready.token, owner, members, ready.net.wait_s)
        return await arm(handle, made)

    found = await _on_all(ready.handles, one)
    failed = [each for each in found.values() if isinstance(each, IpsecctlError)]
    if not failed:
        return
    await _on_all(ready.handles, lambda handle: confirm(handle, ready.token))
    summaries = "; ".join(error.summary for error in failed)
    raise ApplyFailed(f"nothing was done: {summaries}", failed[0].hint)


async def undo_now(
    handles: Mapping[str, Handle], *, held: bool = False
) -> dict[str, UndoState | IpsecctlError]:
    """Have all gateways on which an apply waits go back at once, side by side; return what became of each.

    ``held``: their locks are ours. One on which nothing waits is left out; one that fails, or cannot be
    reached, has its error, and goes back by itself when its time is over.
    """

    async def one(handle: Handle) -> UndoState | None:
        if (await how_it_is(handle)).way is Way.NONE:
            return None
        return await undo_at_once(handle, held=held)

    found = await _on_all(handles, one)
    return {name: state for name, state in found.items() if state is not None}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What came of confirming: ``states`` by gateway; those that cannot be reached have their error.

    ``against`` says why nothing was confirmed, by gateway: one of an apply could not be confirmed with it.
    ``tokens`` are those of the applies that were confirmed, ``back`` of those that are known to have gone
    back on some gateway.
    """

    states: Mapping[str, UndoState | IpsecctlError]
    against: Mapping[str, str]
    tokens: tuple[str, ...] = ()
    back: tuple[str, ...] = ()

    @property
    def confirmed(self) -> tuple[str, ...]:
        return tuple(
            sorted(n for n, s in self.states.items() if isinstance(s, UndoState) and s.way is Way.CONFIRMED)
        )

    @property
    def succeeded(self) -> bool:
        return not self.against


async def confirm_all(
    handles: Mapping[str, Handle],
    unreachable: Mapping[str, IpsecctlError],
    *,
    partly: bool = False,
    timeout_s: float = 10.0 * PATIENCE,
) -> Confirmation:
    """Confirm what waits on gateways, side by side: on all that belong together, or on none.

    All are asked first. If one that an apply armed has gone back or does not answer, nothing is confirmed:
    the others go back as well when their time is over. With ``partly`` those that wait are confirmed all the
    same.
    """
    seen: dict[str, UndoState | IpsecctlError] = dict(unreachable)
    seen |= await _on_all(handles, lambda handle: how_it_is(handle, timeout_s=timeout_s))
    states = {name: state for name, state in seen.items() if isinstance(state, UndoState)}
    waits = {name: state for name, state in states.items() if state.way is Way.WAITING}
    back = tuple(sorted({s.token for s in states.values() if s.way in (Way.BACK, Way.GOING)}))
    against = dict(_against(seen, waits))
    if not waits:
        last = max((s for s in states.values() if _is_back(s)), key=lambda s: s.when, default=None)
        against |= {n: _why(s) for n, s in states.items() if last and _is_back(s) and s.token == last.token}
    if against and not (partly and waits):
        return Confirmation(seen, against, back=back)
    answers = await _on_all(
        {name: handles[name] for name in waits},
        lambda handle: confirm(handle, waits[handle.name].token, timeout_s=timeout_s),
    )
    seen |= answers
    against |= {
        name: _why(answer)
        for name, answer in answers.items()
        if isinstance(answer, IpsecctlError) or answer.way is not Way.CONFIRMED
    }
    if not against:
        await _on_all({name: handles[name] for name in states if _is_back(states[name])}, forget)
    done = {waits[n].token for n, a in answers.items() if isinstance(a, UndoState) and a.way is Way.CONFIRMED}
    return Confirmation(seen, against, tuple(sorted(done)), back)


def _against(
    seen: Mapping[str, UndoState | IpsecctlError], waits: Mapping[str, UndoState]
) -> Iterable[tuple[str, str]]:
    for state in waits.values():
        for member in state.members:
            other = seen.get(member)
            if other is None:
                yield member, "it is not in this topology, and belongs to the same apply"
            elif isinstance(other, IpsecctlError) or other.token != state.token or _is_back(other):
                yield member, _why(other)


def _is_back(state: UndoState | IpsecctlError) -> bool:
    return isinstance(state, UndoState) and state.way in (Way.BACK, Way.GOING)


def _why(state: UndoState | IpsecctlError) -> str:
    if isinstance(state, IpsecctlError):
        return state.summary
    if state.way is Way.GOING:
        return "too late: it is going back"
    if state.way is Way.BACK:
        return f"too late: it has gone {state.said}"
    return "nothing waits there any more"


async def _on_all(
    handles: Mapping[str, Handle], work: Callable[[Handle], Coroutine[Any, Any, T]]
) -> dict[str, T | IpsecctlError]:
    """Do the same on all gateways side by side; return what came of it, or the error, by name."""
    bound = asyncio.Semaphore(SIDE_BY_SIDE)
    found: dict[str, T | IpsecctlError] = {}

    async def one(handle: Handle) -> None:
        async with bound:
            try:
                found[handle.name] = await work(handle)
            except IpsecctlError as error:
                found[handle.name] = error

    async with asyncio.TaskGroup() as group:
        for handle in handles.values():
            group.create_task(one(handle))
    return dict(sorted(found.items()))

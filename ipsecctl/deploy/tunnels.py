"""Bring tunnels up and wait for them: initiate at the end that calls, then look at both ends until they fit.

CHILD_SAs of ours that came up with less than is declared are made anew beside the old ones, once.

Nothing here waits inside charon: ``initiate`` and ``terminate`` with a timeout of -1 only queue the work, and
``list-sas`` shows what came of it. A blocking one holds a worker thread of charon until it is done, and
charon has 16. So a gateway is told of so many tunnels at a time, and of the next as these come up (line.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ipsecctl.deploy.doubts import NO_OBSTACLES, Obstacles
from ipsecctl.deploy.line import Line
from ipsecctl.deploy.move import Moving, move_all
from ipsecctl.deploy.narrow import mending, narrow_children
from ipsecctl.deploy.stale import stale
from ipsecctl.deploy.watch import BUSY_S, Watch
from ipsecctl.deploy.words import meaning
from ipsecctl.desired import GatewayState
from ipsecctl.errors import IpsecctlError
from ipsecctl.health import Declared, EndState, EndView, TunnelHealth, Verdict, judge, parse_list_sas
from ipsecctl.patience import PATIENCE

__all__ = ["TunnelResult", "bring_up", "callers"]

_CALLING = ("CREATED", "CONNECTING")
_POLL_S = 0.1
_RETRY_S = 1.0
_MAX_RETRY_S = 4.0
_SETTLE_S = 1.0 * PATIENCE
"""How long two ends may be out of step before the SAs at the calling end are made anew."""

_BUSY_S = BUSY_S
_GRACE_S = 3.0 * PATIENCE
"""How much longer than asked we wait to initiate a tunnel whose old SAs we have just let go."""

_PATIENCE_S = 2.0 * PATIENCE
"""After how long the gateways of tunnels that are not up yet are listened to, for the reason."""

_OBSTRUCTED_S = 3.0 * PATIENCE
"""How long a tunnel is waited for that cannot come up, by what was seen before: it may have been mended."""

Callers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TunnelResult:
    """What became of a tunnel ``took_s`` seconds after the start; ``acted`` says whether we did anything.

    ``renewed`` says that none of the IKE_SAs that had to go are left. ``kept``: it carries traffic, but with
    the SAs that it had, as those that the change asks for could not be made; the causes say why.
    """

    health: TunnelHealth
    took_s: float
    acted: bool
    renewed: bool = True
    kept: bool = False

    @property
    def name(self) -> str:
        return self.health.name

    @property
    def up(self) -> bool:
        """Whether it is up, with what was applied."""
        return self.health.verdict is Verdict.UP and not self.kept


@dataclass(slots=True)
class _Pending:
    """A tunnel on its way up. Times are of ``time.monotonic``.

    ``since`` is when its turn came: it does not count against a tunnel that it stands in line.
    """

    tunnel: Declared
    caller: str | None
    retire: frozenset[int]
    retry_s: float
    told: frozenset[int] = frozenset()
    left: str = ""
    doubts: tuple[str, ...] = ()
    obstacles: Obstacles = NO_OBSTACLES
    acted: bool = False
    in_vain: bool = False
    called: bool = False
    next_try: float = 0.0
    since: float | None = None
    doubted_since: float | None = None
    out_of_step_since: float | None = None
    narrow_since: float | None = None
    mended: bool = False
    refused: str = ""


def callers(states: Iterable[GatewayState], declared: Iterable[Declared]) -> dict[str, str]:
    """Return, by tunnel, the gateway from which to bring it up: the one that initiates, if it is ours."""
    ours = {c.name: state.name for state in states for c in state.connections if c.initiates}
    return {tunnel.name: ours[tunnel.name] for tunnel in declared if tunnel.name in ours}


async def bring_up(
    watch: Watch,
    tunnels: Iterable[Declared],
    calling: Callers,
    renew: Mapping[str, frozenset[int]],
    *,
    wait_s: float,
    left: Mapping[str, str] | None = None,
    doubts: Mapping[str, tuple[str, ...]] | None = None,
    obstacles: Mapping[str, Obstacles] | None = None,
    moved: Collection[str] = (),
    in_vain: Collection[str] = (),
    report: Callable[[TunnelResult], None],
) -> tuple[TunnelResult, ...]:
    """Bring tunnels up, each for at most ``wait_s`` seconds after its turn to be called has come; return what
    became of each, sorted by name.

    ``calling`` says by tunnel which gateway initiates; the others are only waited for. ``renew`` holds, by
    tunnel, the unique ids of IKE_SAs at the calling gateway that must go first, because they have an old
    configuration; ``left`` is the bare reason, by tunnel, why old ones are left as they run, ``doubts`` what
    keeps it from counting as up even when its SAs are, ``obstacles`` what keeps it from coming up, so that it
    is not waited for as long; ``moved`` are those whose SAs we have made anew, ``in_vain`` those where
    that came to nothing: where something still carries, nothing is called for once more. ``report`` is called
    as soon as a tunnel's result is known.
    """
    started = time.monotonic()
    pending = {
        t.name: _Pending(
            t,
            calling.get(t.name),
            renew.get(t.name, frozenset()),
            _RETRY_S,
            left=f"left as it runs: {left[t.name]}" if left and t.name in left else "",
            doubts=(doubts or {}).get(t.name, ()),
            obstacles=(obstacles or {}).get(t.name, NO_OBSTACLES),
            acted=t.name in moved,
            in_vain=t.name in in_vain,
        )
        for t in tunnels
    }
    results = []
    line = Line()
    while pending:
        gateways = {g.name for p in pending.values() for g in (p.tunnel.left, p.tunnel.right)}
        views = await watch.look(gateways)
        now = time.monotonic()
        if now - started > _PATIENCE_S:
            watch.listen(gateways)
        healths = judge([p.tunnel for p in pending.values()], views, datetime.now(UTC))
        if await _mend(watch, pending, healths):
            continue
        for health in healths:
            if (end := _calling_end(pending[health.name], health)) is not None and _stands(end):
                line.answered(end.gateway, (health.name,))
        doubtful = await watch.left_out(_to_be_told(pending, healths, now))
        for health in sorted(healths, key=lambda health: _turn(pending[health.name])):
            entry = pending[health.name]
            done = _settled(entry, health) or _stays_narrow(entry, health, now) or _carries_on(entry, health)
            limit_s = min(wait_s, _OBSTRUCTED_S) if entry.obstacles.causes else wait_s
            if done or _expired(entry, now, limit_s):
                told = _with_words(watch, entry, health)
                kept = told.verdict is Verdict.UP and bool(entry.left)
                result = TunnelResult(told, now - started, entry.acted, _renewed(entry, health), kept)
                results.append(result)
                report(result)
                del pending[health.name]
            else:
                await _push(watch, line, entry, health, now, doubtful)
        # Looking costs charon and us in proportion to what there is to see: leave twice that time free.
        await asyncio.sleep(max(_POLL_S, 2 * (time.monotonic() - now)) if pending else 0)
    return tuple(sorted(results, key=lambda result: result.name))


def _turn(entry: _Pending) -> int:
    """Return who comes first in line: what was ended to be made anew, then what was not called yet."""
    return 0 if entry.told and not entry.called else 1 if not entry.called else 2


def _stands(end: EndView) -> bool:
    """Whether an IKE_SA of this end is there, and not only called for."""
    return any(sa.state not in _CALLING for sa in end.sas)


def _expired(entry: _Pending, now: float, limit_s: float) -> bool:
    """Whether the time is over: not before its turn has come, nor between the two halves of a renewal."""
    halfway = entry.told and not entry.called
    return entry.since is not None and now - entry.since >= limit_s + (_GRACE_S if halfway else 0)


def _renewed(entry: _Pending, health: TunnelHealth) -> bool:
    end = _calling_end(entry, health)
    return end is not None and end.state is EndState.SEEN and not _old(entry, health)


def _settled(entry: _Pending, health: TunnelHealth) -> bool:
    if health.verdict is Verdict.UNKNOWN:
        return True  # waiting does not bring a lost gateway back
    # Without its configuration, or without charon, an end does not come up however long one waits.
    hopeless = any(end.error or (end.state is EndState.SEEN and not end.loaded) for end in health.ends)
    return hopeless or (health.verdict is Verdict.UP and not _old(entry, health))


def _carries_on(entry: _Pending, health: TunnelHealth) -> bool:
    """Whether it has the SAs that it had, and no others, as new ones came to nothing."""
    return entry.in_vain and _carries(health) and not health.unsteady and not _old(entry, health)


def _carries(health: TunnelHealth) -> bool:
    return any(child.carries for end in health.ends for sa in end.sas for child in sa.children)


async def _mend(watch: Watch, pending: Mapping[str, _Pending], healths: Iterable[TunnelHealth]) -> bool:
    """Make CHILD_SAs anew, beside the old ones, that carry less than declared; each tunnel's once.

    Returns whether there were any.
    """
    found: dict[str, Moving] = {}
    for health in healths:
        entry = pending[health.name]
        if entry.mended or entry.left or health.unsteady or _old(entry, health):
            continue
        if (moving := mending(entry.tunnel, health.ends, entry.caller)) is not None:
            found[health.name] = moving
            entry.mended = entry.acted = True
    for name, why in (await move_all(watch, found.values(), _as_loaded)).items():
        pending[name].refused = why
    return bool(found)


async def _as_loaded(_gateway: str, _tunnel: str) -> str:
    """Load nothing: both ends have what is declared."""
    return ""


def _stays_narrow(entry: _Pending, health: TunnelHealth, now: float) -> bool:
    """Whether all that keeps a tunnel from being up are selectors that nothing will widen any more."""
    seen = [end for end in health.ends if end.state is EndState.SEEN]
    missing = any(_missing(entry.tunnel, end) for end in seen)
    narrow = not missing and not _old(entry, health) and narrow_children(entry.tunnel, health.ends)
    if not narrow:
        entry.narrow_since = None
    elif entry.narrow_since is None:
        entry.narrow_since = now
    return entry.narrow_since is not None and now - entry.narrow_since > _SETTLE_S


def _old(entry: _Pending, health: TunnelHealth) -> frozenset[int]:
    """Return which of the IKE_SAs that must go are still there."""
    end = _calling_end(entry, health)
    return entry.retire & {sa.unique_id for sa in end.sas} if end else frozenset()


def _calling_end(entry: _Pending, health: TunnelHealth) -> EndView | None:
    return next((end for end in health.ends if end.gateway == entry.caller), None)


def _with_words(watch: Watch, entry: _Pending, health: TunnelHealth) -> TunnelHealth:
    """Add to the causes what charon said about a tunnel that did not come up."""
    if health.verdict is Verdict.UP:
        old = f"{entry.caller} still has an IKE_SA that was to be made anew" if _old(entry, health) else ""
        causes = tuple(
            dict.fromkeys(filter(None, (*entry.obstacles.cut_off, entry.left, old, *entry.doubts)))
        )
        if causes == (entry.left,):
            return replace(health, causes=causes)
        verdict = Verdict.DOWN if entry.obstacles.cut_off else Verdict.DEGRADED
        return replace(health, verdict=verdict, causes=causes, since=None) if causes else health
    said = [(end.gateway, watch.complaint(end.gateway, health.name)) for end in health.ends]
    found = meaning(said, by_psk=entry.tunnel.by_psk, by_ppk=entry.tunnel.by_ppk)
    words = [f"charon on {gateway} says: {complaint}" for gateway, complaint in said if complaint]
    words += [entry.refused] if entry.refused else []
    words += [entry.left] if entry.left else []
    astray = () if _carries(health) else entry.obstacles.astray
    obstacles = (*entry.obstacles.cut_off, *astray, *entry.obstacles.barred)
    return replace(health, causes=(*obstacles, *found, *health.causes, *words))


def _to_be_told(
    pending: Mapping[str, _Pending], healths: Iterable[TunnelHealth], now: float
) -> frozenset[str]:
    """Return the gateways that would be told to initiate now."""
    ends = ((pending[health.name], _calling_end(pending[health.name], health)) for health in healths)
    return frozenset(
        end.gateway
        for entry, end in ends
        if end is not None and now >= entry.next_try and _missing(entry.tunnel, end) and not _calling(end)
    )


def _doubted(entry: _Pending, end: EndView, now: float, doubtful: Collection[str]) -> bool:
    """Whether what an end lacks may be there: charon leaves out of its list what it is busy with."""
    if end.gateway not in doubtful:
        return False
    entry.doubted_since = now if entry.doubted_since is None else entry.doubted_since
    return now - entry.doubted_since < _BUSY_S


async def _push(
    watch: Watch,
    line: Line,
    entry: _Pending,
    health: TunnelHealth,
    now: float,
    doubtful: Collection[str],
) -> None:
    """Do the next thing that brings a tunnel nearer to being up, if there is one and its turn has come.

    At gateways that are ``doubtful`` what is missing in the look may be there.
    """
    end = _calling_end(entry, health)
    client = watch.client(entry.caller) if entry.caller else None
    if end is None or client is None:
        entry.since = now if entry.since is None else entry.since
        return
    if now < entry.next_try:
        return
    await _mark_stale(watch, entry, health, now)
    missing = _missing(entry.tunnel, end) if not _calling(end) else []
    if entry.in_vain and _carries(health):
        missing = []
    if missing and _doubted(entry, end, now, doubtful):
        return
    # What is ended has to be called for soon: it needs its place in line before that.
    calls = _old(entry, health) - entry.told or missing
    if calls and not line.may_call(end.gateway, health.name, now):
        return
    entry.since = now if entry.since is None else entry.since
    if calls:
        line.called(end.gateway, health.name, now)
    commands = [
        ("terminate", {"ike-id": str(unique_id), "force": "yes", "timeout": "-1"})
        for unique_id in sorted(_old(entry, health) - entry.told)
    ]
    entry.told |= _old(entry, health)
    if not _old(entry, health) and not _calling(end):
        commands = [
            ("initiate", {"ike": entry.tunnel.name, "child": child, "timeout": "-1"}) for child in missing
        ]
        entry.called = True
        entry.next_try = now + entry.retry_s
        entry.retry_s = min(entry.retry_s * 2, _MAX_RETRY_S)
    for command, message in commands:
        entry.acted = True
        try:
            await client.command(command, message)
        except IpsecctlError as refused:
            entry.refused = f"{entry.caller}: {refused.summary}"


def _calling(end: EndView) -> bool:
    return any(sa.state in _CALLING for sa in end.sas)


def _missing(tunnel: Declared, end: EndView) -> list[str]:
    there = {
        child.name for sa in end.sas for child in sa.children if child.state not in ("DELETING", "DELETED")
    }
    return [child for child in tunnel.children if child not in there]


async def _mark_stale(watch: Watch, entry: _Pending, health: TunnelHealth, now: float) -> None:
    """Let go what only one end has, or is there twice, when the ends have stayed out of step for a while.

    What carries at both ends stays: it is not ended before something else does.
    """
    if not health.unsteady or not _carries(health):
        entry.out_of_step_since = None
    elif entry.out_of_step_since is None:
        entry.out_of_step_since = now
    elif now - entry.out_of_step_since > _SETTLE_S:
        entry.out_of_step_since = None
        await _let_go(watch, entry, health)


async def _let_go(watch: Watch, entry: _Pending, health: TunnelHealth) -> None:
    """Mark the IKE_SAs of the calling end that can go, and end what else can."""
    far = next((e.gateway for e in health.ends if e.gateway != entry.caller and e.state is EndState.SEEN), "")
    # Looked at once more, and waited for: what charon is busy with is not in the views.
    looks = (watch.sas(end, [health.name]) for end in (entry.caller, far) if end)
    lists = [
        None if sas is None else tuple(sa for sa in parse_list_sas(sas) if sa.name == health.name)
        for sas in await asyncio.gather(*looks)
    ]
    ours, theirs = lists[0], lists[1] if far else None
    if ours is None or (far and theirs is None):
        return
    found = stale(ours, theirs)
    entry.retire |= found.ikes
    for gateway, key, ids in (
        (entry.caller, "child-id", found.children),
        (far, "ike-id", found.far_ikes),
        (far, "child-id", found.far_children),
    ):
        client = watch.client(gateway) if gateway else None
        if client is None:
            continue
        for unique_id in sorted(ids):
            entry.acted = True
            with suppress(IpsecctlError):  # gone meanwhile, which is what is wanted
                await client.command("terminate", {key: str(unique_id), "force": "yes", "timeout": "-1"})

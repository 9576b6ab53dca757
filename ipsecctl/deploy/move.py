"""Move the SAs of running tunnels to a new configuration, make-before-break, with proof at both ends.

For each tunnel: the end that makes the new SAs loads its connection and initiates (or authenticates anew);
when the new CHILD_SAs are INSTALLED at both ends with SPIs that match crosswise, the old ones are ended: the
IKE_SA where the new ones are in another one, else CHILD_SA by CHILD_SA. charon's success messages prove
nothing here: a rekey keeps the old configuration and says that it was completed. Where no new SA comes up,
the old ones stay as they are.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ipsecctl.deploy.line import AT_ONCE
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.watch import Watch
from ipsecctl.errors import IpsecctlError
from ipsecctl.health import ChildSa, Declared, IkeSa, Traffic, parse_list_sas, shortfall
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import (
    PPK_PREFIX,
    SHARED_PREFIX,
    Disruption,
    End,
    GatewayPlan,
    Kind,
    Move,
    Part,
    Step,
    loses_routes,
    move_of,
    widened,
)
from ipsecctl.topology import DataPath

__all__ = ["Moving", "held", "move_all", "movings"]

_POLL_S = 0.05
_LISTEN_S = 1.0 * PATIENCE
"""After how long without a new SA charon's log is followed, and it is told once more."""

_TRY_AGAIN_S = 2.0 * PATIENCE
_LONGEST_S = 12.0 * PATIENCE
"""How long a step may take in all: what does not come up in that time is left on its old SAs."""

_FEW = 20
"""Up to so many tunnels of a gateway are looked at one by one: charon may have thousands of others."""

_DUPLICATE = "existing duplicate"
_BUSY = ("CREATED", "CONNECTING", "REKEYING", "REKEYED", "DELETING")


@dataclass(frozen=True, slots=True)
class Moving:
    """A tunnel whose SAs are to be moved by the gateway ``mover``, and ended by ``ender``.

    The far end of ``ender`` does not call again when SAs are ended. ``ends`` are our gateways of the tunnel
    with their old and new connection.
    """

    tunnel: Declared
    mover: str
    ender: str
    move: Move
    ends: Mapping[str, End]

    @property
    def other(self) -> str | None:
        """The far end, as seen from the mover, where it is ours."""
        return next((name for name in self.ends if name != self.mover), None)


def movings(prepared: Prepared, tunnels: Iterable[Declared], calling: Mapping[str, str]) -> dict[str, Moving]:
    """Return by name the tunnels whose SAs can be moved without a break, and have to be.

    The end that calls moves them; where that is not ours, our own end, if it knows where to call.
    """
    grades: dict[str, Disruption] = {}
    for plan in prepared.plans:
        for name, grade in plan.disturbed.items():
            grades[name] = max(grade, grades.get(name, grade))
    changes = {plan.gateway: _Changes.of(plan) for plan in prepared.plans}
    found = {}
    for tunnel in tunnels:
        if grades.get(tunnel.name) is not Disruption.REKEY or tunnel.name in prepared.held:
            continue
        ends = {
            gateway.name: end
            for gateway in (tunnel.left, tunnel.right)
            if (end := _end(prepared, changes, gateway.name, tunnel.name)) is not None
        }
        mover = calling.get(tunnel.name) or next(iter(ends))
        calls = ends.get(mover)
        called = next((end for name, end in ends.items() if name != mover), None)
        # Where the end that calls cannot be seen, nothing is moved, and the other one is widened.
        move = Move(()) if calls is None else move_of(calls, called)
        if move is not None and Step.INITIATE in move.steps and _reroutes(prepared, ends):
            move = replace(move, steps=(*move.steps, Step.REROUTE))
        if move is not None:
            found[tunnel.name] = Moving(tunnel, mover, _ender(ends, mover), move, ends)
    return found


def _reroutes(prepared: Prepared, ends: Mapping[str, End]) -> bool:
    """Whether the new SAs are without routes at an end when the old ones are gone."""
    return any(
        prepared.wanted[gateway].data_path is DataPath.LIBIPSEC and loses_routes(end.old, end.new)
        for gateway, end in ends.items()
    )


def held(prepared: Prepared, moving: Mapping[str, Moving], gateway: str) -> dict[str, dict[str, Any] | None]:
    """Return the changed connections of a gateway that wait until SAs were moved (``carry.Carrier``)."""
    plan = next(plan for plan in prepared.plans if plan.gateway == gateway)
    waiting: dict[str, dict[str, Any] | None] = {}
    for name in plan.disturbed.keys() & moving.keys():
        entry = moving[name]
        end = entry.ends[gateway]
        loaded = name in prepared.observed[gateway].connections
        waiting[name] = None if gateway == entry.mover and loaded else widened(end.old, end.new)
    return waiting


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a plan says of tunnels, for asking after one by one: those disturbed, those with a new key."""

    disturbed: frozenset[str] = frozenset()
    new_keys: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: GatewayPlan) -> _Changes:
        keys = (change.name for change in plan.of(Part.SHARED, Kind.CHANGE))
        return cls(frozenset(plan.disturbed), frozenset(keys))


def _end(prepared: Prepared, changes: Mapping[str, _Changes], gateway: str, name: str) -> End | None:
    seen, target = prepared.observed.get(gateway), prepared.wanted.get(gateway)
    if seen is None or target is None or name not in target.connections or seen.charon_down is not None:
        return None
    # One that is not in the limit has none, and stays as it is.
    changed = changes.get(gateway, _Changes())
    record = seen.facts.record
    new = target.connections[name]
    old = record.messages.get(name, new) if record is not None else new
    new_key = not changed.new_keys.isdisjoint({f"{SHARED_PREFIX}{name}", f"{PPK_PREFIX}{name}"})
    unsure = name in changed.disturbed and not new_key and move_of(End(old, new), None) == Move(())
    return End(old, new, new_key, unsure)


def _ender(ends: Mapping[str, End], mover: str) -> str:
    """Return the end at which old SAs are ended: the other one must not call again because of that."""
    for gateway, end in ends.items():
        actions = {child.get("close_action", "none") for child in end.old.get("children", {}).values()}
        if actions - {"none"}:
            return gateway
    return mover


# -------------------------------------------------------------------------------------------------- the moves


@dataclass(slots=True)
class _Entry:
    """A tunnel on the move: at which step, and what was there before it. Times are of ``time.monotonic``.

    ``old`` are the unique ids of the mover's IKE_SAs before the step, ``known`` those of its CHILD_SAs;
    ``carried`` are the names and ``carrying`` the ids of those that carry. ``going`` are the SPIs of what is
    being ended (of an IKE_SA or CHILD_SA).
    """

    moving: Moving
    since: float
    step: int = 0
    begun: bool = False
    old: frozenset[int] = frozenset()
    known: frozenset[int] = frozenset()
    carried: frozenset[str] = frozenset()
    carrying: frozenset[int] = frozenset()
    going: frozenset[frozenset[str]] | None = None
    last_try: float = 0.0
    heard: bool = False
    refused: str = ""

    @property
    def name(self) -> str:
        return self.moving.tunnel.name

    @property
    def doing(self) -> Step:
        return self.moving.move.steps[self.step]


Seen = Mapping[str, Mapping[str, tuple[IkeSa, ...]]]
"""IKE_SAs by gateway and tunnel; without the gateway where it cannot be seen."""

Load = Callable[[str, str], Awaitable[str]]


async def move_all(
    watch: Watch, moving: Iterable[Moving], load: Load, *, longest_s: float = _LONGEST_S
) -> dict[str, str]:
    """Move the SAs of tunnels side by side; return by name why one was not moved, "" where it was.

    ``load`` has a gateway load the connection of a tunnel, and returns what charon said against that. A
    tunnel that has no SA needs none: the connection is loaded, and it is as good as moved. A gateway moves
    so many at a time (line.py); what stands in line has its ``longest_s`` before it.
    """
    now = time.monotonic()
    pending = {entry.tunnel.name: _Entry(entry, now) for entry in moving}
    results: dict[str, str] = {}
    while pending:
        seen = await _look(watch, [entry.moving for entry in pending.values()])
        now = time.monotonic()
        begun = Counter(entry.moving.mover for entry in pending.values() if entry.begun)
        for entry in [*pending.values()]:
            if not entry.begun and entry.step == 0:
                if begun[entry.moving.mover] >= AT_ONCE:
                    entry.since = now
                    continue
                begun[entry.moving.mover] += 1
            told = await _advance(watch, entry, seen, load, now)
            if told is None and now - entry.since > longest_s:
                told = _too_late(watch, entry)
            if told is not None:
                results[entry.name] = told
                del pending[entry.name]
        # Looking costs charon and us in proportion to what there is to see: leave as much time free.
        await asyncio.sleep(max(_POLL_S, time.monotonic() - now) if pending else 0)
    return results


async def _look(watch: Watch, moving: Iterable[Moving]) -> Seen:
    """Look at the tunnels on the move, at all their ends side by side."""
    names: dict[str, list[str]] = {}
    for entry in moving:
        for gateway in {entry.mover, *entry.ends}:
            names.setdefault(gateway, []).append(entry.tunnel.name)
    found: dict[str, dict[str, tuple[IkeSa, ...]]] = {}

    async def one(gateway: str, wanted: list[str]) -> None:
        sas = await watch.sas(gateway, wanted if len(wanted) <= _FEW else ())
        if sas is not None:
            by_name: dict[str, list[IkeSa]] = {name: [] for name in wanted}
            for sa in parse_list_sas(sas):
                if sa.name in by_name:
                    by_name[sa.name].append(sa)
            found[gateway] = {name: tuple(listed) for name, listed in by_name.items()}

    async with asyncio.TaskGroup() as group:
        for gateway, wanted in names.items():
            group.create_task(one(gateway, wanted))
    return found


async def _advance(watch: Watch, entry: _Entry, seen: Seen, load: Load, now: float) -> str | None:
    """Do the next thing; return what became of the tunnel when that is known."""
    moving = entry.moving
    for gateway in {moving.mover, *moving.ends}:
        if gateway not in seen:
            return f"{gateway} does not answer any more"
    here = seen[moving.mover][entry.name]
    there = seen[moving.other][entry.name] if moving.other else None
    if entry.going is not None:
        return _gone(entry, here, there or (), now)
    if not entry.begun:
        return await _begin(watch, entry, here, load, now)
    if entry.refused:
        return "" if entry.doing is Step.REROUTE else f"{moving.mover}: {entry.refused}"
    if entry.doing is Step.INITIATE and _DUPLICATE in watch.complaint(moving.mover, entry.name):
        # So says charon itself: the latest SAs have the configuration that is loaded.
        _know(entry, here, _latest(here, moving.tunnel.children))
    fresh = _fresh(entry, here, there)
    if fresh is not None:
        if lost := _lost(entry, here, fresh):
            return await _take_back(watch, entry, here, lost)
        await _end_old(watch, entry, seen, fresh)
        entry.since = now
        return None
    return await _try_again(watch, entry, now)


async def _begin(watch: Watch, entry: _Entry, here: tuple[IkeSa, ...], load: Load, now: float) -> str | None:
    """Have the mover load the connection and make new SAs, once it is not busy with the old ones."""
    moving = entry.moving
    if any(sa.state in _BUSY or any(child.state in _BUSY for child in sa.children) for sa in here):
        return None
    if entry.step == 0 and (refused := await load(moving.mover, entry.name)):
        return f"{moving.mover}: {refused}"
    if not moving.move.steps or not any(sa.children for sa in here):
        return ""
    entry.begun, entry.since = True, now
    _know(entry, here, frozenset())
    # What is neither declared nor was applied is ended when the connection is loaded.
    messages = [message for end in moving.ends.values() for message in (end.old, end.new)]
    known = {name for message in messages for name in message.get("children", {})}
    known |= {*moving.tunnel.children}
    children = [child for sa in here for child in sa.children if child.name in known]
    carrying = [child for child in children if child.carries]
    entry.carried = frozenset(child.name for child in carrying)
    entry.carrying = frozenset(child.unique_id for child in carrying)
    await _call(watch, entry, now)
    return None


def _know(entry: _Entry, here: tuple[IkeSa, ...], new: frozenset[int]) -> None:
    """Note what is old at the mover: everything but the ``new`` CHILD_SAs and the IKE_SAs that have them."""
    entry.known = frozenset(child.unique_id for sa in here for child in sa.children) - new
    entry.old = frozenset(
        sa.unique_id for sa in here if not any(child.unique_id in new for child in sa.children)
    )


def _latest(here: tuple[IkeSa, ...], declared: Iterable[str]) -> frozenset[int]:
    """Return of each child that is still declared the CHILD_SA that was made last."""
    names = {*declared}
    ids = sorted((c.unique_id, c.name) for sa in here for c in sa.children if c.name in names)
    return frozenset({name: unique_id for unique_id, name in ids}.values())


async def _call(watch: Watch, entry: _Entry, now: float) -> None:
    """Have the mover make new SAs."""
    entry.last_try = now
    if entry.doing is Step.REAUTH:
        commands = [("rekey", {"ike-id": str(unique_id), "reauth": "yes"}) for unique_id in entry.old]
    elif entry.doing is Step.REROUTE:
        commands = [("rekey", {"child-id": str(unique_id)}) for unique_id in sorted(entry.carrying)]
    else:
        commands = [
            ("initiate", {"ike": entry.name, "child": child, "timeout": "-1"})
            for child in entry.moving.move.initiate
        ]
    for command, message in commands:
        entry.refused = await _send(watch, entry.moving.mover, command, message) or entry.refused


async def _send(watch: Watch, gateway: str, command: str, message: Mapping[str, str]) -> str:
    """Send a command; return what was said against it."""
    client = watch.client(gateway)
    try:
        if client is not None:
            await client.command(command, message)
    except IpsecctlError as error:
        return error.summary
    return ""


async def _try_again(watch: Watch, entry: _Entry, now: float) -> str | None:
    """Where nothing came of it, listen to what charon says, tell it once more, and believe what it says."""
    moving, waited_s = entry.moving, now - entry.since
    if waited_s < _LISTEN_S or entry.doing is Step.REROUTE:
        return None
    if not entry.heard:
        watch.listen({moving.mover, *moving.ends})
        entry.heard = True
    elif now - entry.last_try > _TRY_AGAIN_S:
        if words := _words(watch, entry):
            return words
        await _call(watch, entry, now)
    return None


def _too_late(watch: Watch, entry: _Entry) -> str:
    if entry.step < len(entry.moving.move.steps) and entry.doing is Step.REROUTE:
        return ""  # it is moved; that its routes are missing is what the next look tells
    if entry.going is not None:
        return f"{entry.moving.ender} still has SAs that were to be ended"
    busy = f"{entry.moving.mover} has been busy with its SAs" if not entry.begun else "no new SA came up"
    return _words(watch, entry) or busy


def _words(watch: Watch, entry: _Entry) -> str:
    said = {g: watch.complaint(g, entry.name) for g in sorted({entry.moving.mover, *entry.moving.ends})}
    return "; ".join(f"charon on {gateway} says: {words}" for gateway, words in said.items() if words)


def _fresh(entry: _Entry, here: tuple[IkeSa, ...], there: tuple[IkeSa, ...] | None) -> frozenset[int] | None:
    """Return the IKE_SAs that the new CHILD_SAs landed in, when all that are wanted are INSTALLED at both
    ends, else ``None``."""
    reauth = entry.doing is Step.REAUTH
    new = [
        (sa.unique_id, child.name)
        for sa in here
        for child in sa.children
        if child.installed
        and child.unique_id not in entry.known
        and not (reauth and sa.unique_id in entry.old)
        and (there is None or _matched(child, there))
    ]
    wanted = entry.carried if entry.doing in (Step.REAUTH, Step.REROUTE) else {*entry.moving.move.initiate}
    return frozenset(unique_id for unique_id, _ in new) if wanted <= {name for _, name in new} else None


def _matched(child: ChildSa, there: tuple[IkeSa, ...]) -> bool:
    """Whether the far end has the other half of a CHILD_SA, and sends and receives with it."""
    spis = (child.spi_out, child.spi_in)
    return any((far.spi_in, far.spi_out) == spis and far.installed for sa in there for far in sa.children)


def _replaced(
    entry: _Entry, here: tuple[IkeSa, ...], landed: frozenset[int]
) -> tuple[list[IkeSa], list[ChildSa]]:
    """Return the IKE_SAs, and the single CHILD_SAs, that the new ones in ``landed`` take the place of."""
    moving = entry.moving
    children = {child.name for sa in here if sa.unique_id in landed for child in sa.children}
    whole = {*moving.tunnel.children} <= children or entry.doing is Step.REAUTH
    ikes = [sa for sa in here if whole and sa.unique_id in entry.old - landed]
    names = {*moving.move.initiate, *moving.move.end}
    return ikes, [
        child
        for sa in here
        if sa not in ikes
        for child in sa.children
        if child.unique_id in entry.known and child.name in names
    ]


def _lost(entry: _Entry, here: tuple[IkeSa, ...], landed: frozenset[int]) -> tuple[str, ...]:
    """Return what is wanted of what the replaced CHILD_SAs carry, and no other does: the far end, where it
    is somebody else's, may have agreed to less than it was offered."""
    moving = entry.moving
    if moving.other is not None or entry.doing is not Step.INITIATE:
        return ()
    ikes, singles = _replaced(entry, here, landed)
    gone = {child.unique_id for child in (*(child for sa in ikes for child in sa.children), *singles)}
    carrying = [child for sa in here for child in sa.children if child.carries]
    return shortfall(
        (
            Traffic(tuple(child.get("local_ts", ())), tuple(child.get("remote_ts", ())), ())
            for child in moving.ends[moving.mover].new.get("children", {}).values()
        ),
        [child for child in carrying if child.unique_id in gone],
        [child for child in carrying if child.unique_id not in gone],
    )


async def _take_back(watch: Watch, entry: _Entry, here: tuple[IkeSa, ...], lost: Iterable[str]) -> str:
    """End the new CHILD_SAs again, which carry too little, and leave the old ones; return why."""
    new = [child for sa in here for child in sa.children if child.unique_id not in entry.known]
    for child in new:
        message = {"child-id": str(child.unique_id), "timeout": "-1"}
        await _send(watch, entry.moving.mover, "terminate", message)
    return f"the far end agreed to less than was offered, and {', '.join(lost)} would have no tunnel any more"


async def _end_old(watch: Watch, entry: _Entry, seen: Seen, landed: frozenset[int]) -> None:
    """End what the new SAs take the place of, at the end where that makes nobody call again."""
    moving = entry.moving
    if entry.doing is Step.REROUTE:
        entry.going = frozenset()  # charon ends what it has rekeyed
        return
    here = seen[moving.mover][entry.name]
    ikes, singles = _replaced(entry, here, landed)
    entry.going = frozenset([*map(_spis, ikes), *map(_spis, singles)])
    if entry.doing is Step.REAUTH:
        return  # charon does
    for sa in seen[moving.ender][entry.name]:
        parts: list[tuple[str, IkeSa | ChildSa]] = [("ike-id", sa)]
        if _spis(sa) not in entry.going:
            parts = [("child-id", child) for child in sa.children]
        for key, part in parts:
            if _spis(part) in entry.going:
                message = {key: str(part.unique_id), "timeout": "-1"}
                entry.refused = await _send(watch, moving.ender, "terminate", message) or entry.refused


def _spis(sa: IkeSa | ChildSa) -> frozenset[str]:
    """Return what tells an SA from others, the same at both of its ends."""
    if isinstance(sa, IkeSa):
        return frozenset((sa.initiator_spi, sa.responder_spi))
    return frozenset((sa.spi_in, sa.spi_out))


def _gone(entry: _Entry, here: tuple[IkeSa, ...], there: tuple[IkeSa, ...], now: float) -> str | None:
    """Go on to the next step when what was to be ended is gone at both ends."""
    sas = (*here, *there)
    left = {_spis(sa) for sa in sas} | {_spis(child) for sa in sas for child in sa.children}
    if entry.going is None or left & entry.going:
        return None
    entry.step, entry.begun, entry.going, entry.since = entry.step + 1, False, None, now
    return "" if entry.step == len(entry.moving.move.steps) else None

"""Look at all gateways of a topology at once and judge its tunnels: what ``status`` shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ipsecctl.deploy.means import means_remembered, outer_questions
from ipsecctl.deploy.watch import watch
from ipsecctl.desired import compile_topology
from ipsecctl.errors import GatewayUnreachable, IpsecctlError
from ipsecctl.gateway import LOOK_S, CharonSilent, Handle, LiveView, Pending, look, reach
from ipsecctl.health import Declared, EndState, TunnelHealth, Verdict, declare, judge
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import Topology

__all__ = ["Survey", "survey", "unconfirmed"]

_SIDE_BY_SIDE = 64
_LOOK_AGAIN_S = 0.15 * PATIENCE
_LOOKS = 5
_ONE_LOOK = "a rekey can look like that, and it could not be looked at again in time: try a longer --timeout"


@dataclass(frozen=True, slots=True)
class Survey:
    """The verdicts, worst first, what was seen at each managed gateway, and when."""

    tunnels: tuple[TunnelHealth, ...]
    views: Mapping[str, LiveView | GatewayUnreachable]
    time: datetime


async def survey(topology: Topology, *, lab: str | None = None, timeout_s: float = LOOK_S) -> Survey:
    """Return what is known of every declared tunnel after at most ``timeout_s`` seconds in all.

    What does not fit together at the two ends of a tunnel is looked at again, at both ends in the same
    moment: a rekey between the looks at one end and at the other has the same appearance. Where there is no
    time for that, such a tunnel is not called down but unknown. ``lab``: the gateways are the containers of
    that lab.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    views: dict[str, LiveView | GatewayUnreachable] = {}
    handles = _handles(topology, lab, views)
    await _look_at(handles, outer_questions(topology), views, deadline)
    now = datetime.now(UTC)
    seen = {n: view.shell.means for n, view in views.items() if isinstance(view, (CharonSilent, LiveView))}
    declared = declare(topology, compile_topology(topology, means_remembered(seen)))
    tunnels = judge(declared, views, now)
    if _doubtful(declared, tunnels):
        if loop.time() + 3 * _LOOK_AGAIN_S < deadline:
            await asyncio.sleep(_LOOK_AGAIN_S)
            tunnels = await _look_again(declared, tunnels, handles, views, deadline)
            now = datetime.now(UTC)
        else:
            tunnels = _worst_first(_not_told(tunnel) for tunnel in tunnels)
    return Survey(tunnels, views, now)


def unconfirmed(
    views: Mapping[str, LiveView | GatewayUnreachable],
) -> tuple[tuple[str, Pending], ...]:
    """Return the gateways on which an apply waits for its confirmation, sorted by name, and what is known."""
    shells = ((name, getattr(view, "shell", None)) for name, view in sorted(views.items()))
    return tuple((name, shell.undo) for name, shell in shells if shell is not None and shell.undo is not None)


def _handles(
    topology: Topology, lab: str | None, views: dict[str, LiveView | GatewayUnreachable]
) -> dict[str, Handle]:
    handles: dict[str, Handle] = {}
    for gateway in topology.gateways():
        if gateway.managed:
            try:
                handles[gateway.name] = reach(gateway, topology, lab)
            except IpsecctlError as error:
                views[gateway.name] = GatewayUnreachable(gateway.name, error.summary, error.hint)
    return handles


async def _look_at(
    handles: Mapping[str, Handle],
    outer: Mapping[str, tuple[str, ...]],
    views: dict[str, LiveView | GatewayUnreachable],
    deadline: float,
) -> None:
    """Look at gateways side by side until ``deadline`` (of the loop's clock), whatever one of them does."""
    bound = asyncio.Semaphore(_SIDE_BY_SIDE)
    loop = asyncio.get_running_loop()

    async def one(handle: Handle) -> None:
        try:
            async with bound:
                left_s = deadline - loop.time()
                if left_s <= 0:
                    raise GatewayUnreachable(handle.name, "its turn did not come in time")
                views[handle.name] = await look(handle, outer=outer.get(handle.name, ()), timeout_s=left_s)
        except GatewayUnreachable as error:
            views[handle.name] = error

    async with asyncio.TaskGroup() as group:
        for handle in handles.values():
            group.create_task(one(handle))


async def _look_again(
    declared: tuple[Declared, ...],
    tunnels: tuple[TunnelHealth, ...],
    handles: Mapping[str, Handle],
    views: dict[str, LiveView | GatewayUnreachable],
    deadline: float,
) -> tuple[TunnelHealth, ...]:
    """Look at doubtful tunnels until each fits together once, or has the same SAs in two looks at both ends.

    The connections stand before the first of these looks: so it is at both ends within milliseconds, while a
    rekey keeps the old SA at both for longer. An IKE_SA that charon is busy with, as in a rekey, is waited
    for: without that it would be missing in the list. ``views`` gets what charon then told.
    """
    settled = {tunnel.name: tunnel for tunnel in tunnels if not _in_doubt(tunnel)}
    doubtful = _doubtful(declared, tunnels)
    earlier: list[Mapping[str, LiveView | GatewayUnreachable]] = []
    again_at: set[str] = set()
    in_time = False
    with suppress(TimeoutError):
        async with (
            asyncio.timeout_at(deadline),
            watch({name: handles[name] for name in doubtful if name in handles}) as watched,
        ):
            for _ in range(_LOOKS):
                last = {tunnel.name: _spis(tunnel) for tunnel in tunnels}
                earlier.append(dict(views))
                seen_now = set()
                for name, again in (await watched.look(doubtful, wait=True)).items():
                    seen = views.get(name)
                    # A look that fails says less than the one before, and this one asks no shell.
                    if isinstance(again, LiveView) and isinstance(seen, LiveView):
                        views[name] = replace(seen, sas=again.sas, connections=again.connections)
                        seen_now.add(name)
                again_at |= seen_now
                tunnels = judge(declared, views, datetime.now(UTC))
                for tunnel in tunnels:
                    if tunnel.name in settled:
                        continue
                    met = _met(declared, tunnel, earlier, views)
                    same = _spis(tunnel) == last[tunnel.name] and seen_now >= _seen_ends(tunnel)
                    if met or same or not _in_doubt(tunnel):
                        settled[tunnel.name] = met or tunnel
                doubtful = _doubtful(declared, tuple(t for t in tunnels if t.name not in settled))
                if not doubtful:
                    break
                await asyncio.sleep(_LOOK_AGAIN_S)
            in_time = True
    return _worst_first(
        settled.get(tunnel.name)
        or (tunnel if in_time and again_at >= _seen_ends(tunnel) else _not_told(tunnel))
        for tunnel in tunnels
    )


def _worst_first(tunnels: Iterable[TunnelHealth]) -> tuple[TunnelHealth, ...]:
    return tuple(sorted(tunnels, key=lambda health: (health.verdict, health.name)))


def _not_told(tunnel: TunnelHealth) -> TunnelHealth:
    """Return what is known of a tunnel that could not be looked at again: one look does not make it down."""
    if tunnel.verdict is not Verdict.DOWN or not _in_doubt(tunnel):
        return tunnel
    return replace(tunnel, verdict=Verdict.UNKNOWN, causes=(*tunnel.causes, _ONE_LOOK))


def _met(
    declared: tuple[Declared, ...],
    tunnel: TunnelHealth,
    earlier: Iterable[Mapping[str, LiveView | GatewayUnreachable]],
    now: Mapping[str, LiveView | GatewayUnreachable],
) -> TunnelHealth | None:
    """Return the health of a tunnel whose ends fit if one of them was seen some looks earlier than the other.

    With rekeys in a row, and more so from both ends, each end may be seen some SAs ahead of the other: that
    what one has now the other had in one of the looks is what is asked.
    """
    (wanted,) = (t for t in declared if t.name == tunnel.name)
    for before in earlier:
        for end in tunnel.ends:
            mixed = {**now, end.gateway: before[end.gateway]} if end.gateway in before else now
            (health,) = judge([wanted], mixed, datetime.now(UTC))
            if health.verdict is Verdict.UP:
                return health
    return None


def _seen_ends(tunnel: TunnelHealth) -> set[str]:
    return {end.gateway for end in tunnel.ends if end.state is EndState.SEEN}


def _in_doubt(tunnel: TunnelHealth) -> bool:
    """Whether its ends do not fit together, or an IKE_SA may be missing because charon was busy with it."""
    bare = any(end.state is EndState.SEEN and not end.sas for end in tunnel.ends)
    return tunnel.unsteady or (tunnel.verdict is Verdict.DOWN and bare)


def _spis(tunnel: TunnelHealth) -> frozenset[tuple[str, str]]:
    """Return the CHILD_SAs of both ends, each by its end and the SPI that it receives on."""
    return frozenset(
        (end.gateway, child.spi_in) for end in tunnel.ends for sa in end.sas for child in sa.children
    )


def _doubtful(declared: tuple[Declared, ...], tunnels: tuple[TunnelHealth, ...]) -> set[str]:
    """Return the gateways of tunnels that are in doubt."""
    names = {tunnel.name for tunnel in tunnels if _in_doubt(tunnel)}
    return {gateway.name for t in declared if t.name in names for gateway in (t.left, t.right)}

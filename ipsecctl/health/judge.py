"""Verdicts: declared tunnels against what both of their ends show.

A tunnel is up when each of its children has a CHILD_SA in state INSTALLED at both ends whose SPIs match
crosswise: the inbound SPI of one end is the outbound SPI of the other, so what one seals the other opens. A
CHILD_SA that the kernel does not have carries nothing, whatever charon says. A tunnel
is down when not one of them has, or when a gateway reaches none of its own networks that the tunnel joins:
then nothing passes. In between it is degraded, and so is one that carries
all its traffic and is not as declared, or could leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Guard, LiveView
from ipsecctl.health.astray import astray_obstacles
from ipsecctl.health.device import device_causes, without_barred
from ipsecctl.health.ends import by_connection, view_end
from ipsecctl.health.kernel import kernel_causes
from ipsecctl.health.sa import ChildSa
from ipsecctl.health.start_up import start_up_causes
from ipsecctl.health.traffic import departures, ike_departures
from ipsecctl.health.tunnel import Declared, EndState, EndView, TunnelHealth, Verdict
from ipsecctl.health.way import cut_off, rewritten_note, way_causes
from ipsecctl.health.way_out import nothing_leaves, way_out_obstacles
from ipsecctl.topology import Gateway

__all__ = ["judge"]


class _Health(Protocol):
    """Makes the result for the tunnel at hand."""

    def __call__(
        self, verdict: Verdict, causes: Iterable[str], *, unsteady: bool = False
    ) -> TunnelHealth: ...


def judge(
    tunnels: Iterable[Declared], views: Mapping[str, LiveView | GatewayUnreachable], now: datetime
) -> tuple[TunnelHealth, ...]:
    """Return the verdict on each tunnel, worst first, then by name.

    ``views`` holds, by gateway, what was seen there or why nothing could be; a gateway that is missing in it
    counts as not reached.
    """
    by_name = {gateway: by_connection(view) for gateway, view in views.items()}

    def end(gateway: Gateway, tunnel: Declared) -> EndView:
        return view_end(gateway, tunnel, views.get(gateway.name), by_name.get(gateway.name, {}))

    verdicts = (_judge(t, (end(t.left, t), end(t.right, t)), now) for t in tunnels)
    return tuple(sorted(verdicts, key=lambda health: (health.verdict, health.name)))


def _judge(tunnel: Declared, ends: tuple[EndView, EndView], now: datetime) -> TunnelHealth:
    def health(verdict: Verdict, causes: Iterable[str], *, unsteady: bool = False) -> TunnelHealth:
        since = _since(ends, now) if verdict is Verdict.UP else None
        return TunnelHealth(tunnel.name, verdict, tuple(causes), ends, tunnel.children, since, unsteady)

    dead = [f"{end.gateway}: {end.error}" for end in ends if end.state is EndState.CHARON_DOWN]
    lost = [
        f"{end.gateway} cannot be reached: {end.error}" for end in ends if end.state is EndState.UNREACHABLE
    ]
    seen = [end for end in ends if end.state is EndState.SEEN]
    if dead:
        return health(Verdict.DOWN, dead + lost + _beside_charon(tunnel, ends))
    if lost:
        one_sided = [_one_sided(end, tunnel) for end in seen]
        return health(Verdict.UNKNOWN, lost + one_sided + _beside_charon(tunnel, ends))
    if len(seen) == 1:
        return _judge_alone(tunnel, seen[0], health)
    return _judge_both(tunnel, seen[0], seen[1], health)


def _since(ends: Iterable[EndView], now: datetime) -> datetime | None:
    ages = [sa.age_s for end in ends for sa in end.sas if sa.age_s is not None]
    return now - timedelta(seconds=max(ages)) if ages else None


def _one_sided(end: EndView, tunnel: Declared) -> str:
    """Return what the only end that is seen shows."""
    missing = [name for name in tunnel.children if not _carrying(end, name)]
    lost = [cause for name in tunnel.children for cause in _kernel_causes(tunnel, end, name)]
    if lost := [*_device_causes(tunnel, end), *lost]:
        return "; ".join(lost)
    if not missing:
        return f"as {end.gateway} sees it, it is up"
    if len(missing) < len(tunnel.children):
        return f"{end.gateway} has no CHILD_SA for {', '.join(missing)}"
    return f"{end.gateway} has no CHILD_SA for it"


def _device_causes(tunnel: Declared, end: EndView) -> list[str]:
    """Return what keeps packets from entering charon's own device at one end; nothing without one."""
    needs = tunnel.devices.get(end.gateway)
    if needs is None or end.state is not EndState.SEEN:
        return []
    idle = [name for name in tunnel.children if end.loaded and not _has_sa(end, name)]
    lacking = [sa for name in tunnel.children for sa in end.lacks(name)]
    return list(device_causes(end.gateway, needs, end.own_path, idle, end.restart, end.version, lacking))


def _kernel_causes(tunnel: Declared, end: EndView, name: str) -> list[str]:
    """Return what the kernel of one end lacks of a child's SAs and the next apply brings back."""
    needs, missing = tunnel.devices.get(end.gateway), end.lacks(name)
    if needs is not None:
        missing = without_barred(end.gateway, needs, end.own_path, end.version, missing)
    return kernel_causes(end.gateway, missing)


def _no_way_out(tunnel: Declared, ends: Iterable[EndView]) -> list[str]:
    """Return what keeps ends from sending to each other at all."""
    return [
        obstacle.cause for end in ends for obstacle in way_out_obstacles(tunnel, end.gateway, end.way_out)
    ]


def _has_sa(end: EndView, name: str) -> bool:
    return any(child.name == name and child.carries for sa in end.sas for child in sa.children)


def _beside_charon(tunnel: Declared, ends: Iterable[EndView]) -> list[str]:
    """Return what is wrong with ways, firewall and forwarding, which the shell tells without any charon."""
    found = _Findings(tunnel)
    ends = tuple(ends)
    _blame_ways(found, ends)
    return [*_nothing_applied(ends), *_no_way_out(tunnel, ends), *found.blocked, *_unguarded(ends)]


def _nothing_applied(ends: Iterable[EndView]) -> list[str]:
    """Return as one cause on which gateways nothing has been applied: there nothing else is to be found."""
    bare = [end.gateway for end in ends if end.applied is False]
    return [f"nothing has been applied yet on {' and '.join(bare)}: apply the topology"] if bare else []


def _unguarded(ends: Iterable[EndView]) -> list[str]:
    """Return which gateways could let traffic out in clear, or let none through, and how to mend it."""
    causes = []
    for end in ends:
        if end.applied is False:
            continue
        if end.unheld:
            shown = f"{', '.join(end.unheld[:3])}{', ...' if len(end.unheld) > 3 else ''}"
            what = f"the routes that hold what no tunnel carries are not there ({shown})"
            causes.append(f"{end.gateway}: {what}: apply the topology")
        if end.guard is Guard.MISSING:
            what = "the no-leak firewall (nft table inet ipsecctl) is not loaded"
            causes.append(f"{end.gateway}: {what}: apply the topology")
        elif end.guard is Guard.ALTERED:
            what = "the no-leak firewall (nft table inet ipsecctl) is not as it was applied"
            causes.append(f"{end.gateway}: {what}: apply the topology")
        if end.forwarding is False:
            causes.append(f"{end.gateway}: the kernel does not forward packets: apply the topology")
    return causes


@dataclass(slots=True)
class _Findings:
    """What is wrong, gathered child by child."""

    tunnel: Declared
    good: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    device: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unsteady: bool = False
    cut_off: bool = False

    def blame(self, child: str, *causes: str) -> None:
        """Note what is wrong with a child, by its name where the tunnel has several."""
        prefix = f"{child}: " if len(self.tunnel.children) > 1 else ""
        self.wrong += [f"{prefix}{cause}" for cause in causes]


def _judge_alone(tunnel: Declared, end: EndView, health: _Health) -> TunnelHealth:
    """Judge by our end alone: the far one is not ours to look at."""
    found = _Findings(tunnel)
    for name in tunnel.children:
        if _carrying(end, name):
            found.good.append(name)
        elif not end.lacks(name):
            found.missing.append(name)
        found.blame(name, *_kernel_causes(tunnel, end, name))
        found.blame(name, *_duplicates(end, name), *_departures(tunnel, end, name))
    _blame_undeclared(found, (end,))
    _note_older(found, (end,))
    _blame_ike(found, (end,))
    _blame_unloaded(found, (end,))
    _blame_ways(found, (end,))
    return _conclude(found, (end,), health)


def _judge_both(tunnel: Declared, left: EndView, right: EndView, health: _Health) -> TunnelHealth:
    found = _Findings(tunnel)
    for name in tunnel.children:
        _match(name, left, right, found)
    for end in (left, right):
        established = sum(sa.state == "ESTABLISHED" for sa in end.sas)
        if established > 1:
            found.wrong.append(f"{end.gateway} has {established} IKE_SAs for it")
            found.unsteady = True
    _blame_undeclared(found, (left, right))
    _note_older(found, (left, right))
    _blame_ike(found, (left, right))
    _blame_unloaded(found, (left, right))
    _blame_ways(found, (left, right))
    return _conclude(found, (left, right), health)


def _note_older(found: _Findings, ends: Iterable[EndView]) -> None:
    """Note, beside the verdict, which ends live on SAs of an earlier configuration than they were given."""
    waiting: dict[str, list[str]] = {}
    for end in ends:
        if end.older is not None and any(child.carries for sa in end.sas for child in sa.children):
            waiting.setdefault(end.older, []).append(end.gateway)
    for older, gateways in waiting.items():
        why = f" ({older}): when that is mended" if older else ": when the far end has its part"
        both = len(gateways) > 1
        found.notes.append(
            f"{' and '.join(gateways)}: {'their' if both else 'its'} SAs have an earlier configuration than "
            f"the one applied there, which is pending{why}, apply again"
        )


def _blame_undeclared(found: _Findings, ends: Iterable[EndView]) -> None:
    """Note what ends let through, or would call for, that is not declared; where nothing is, below."""
    declared = found.tunnel.children
    if len(found.missing) == len(declared):
        return
    for end in ends:
        if running := _undeclared_sas(end, declared):
            what = f"{end.gateway} lets through what is not declared ({', '.join(running)})"
            found.wrong.append(f"{what}: apply the topology")
        if stray := sorted((end.traps or frozenset()) - {*declared, *running}):
            what = f"{end.gateway} would call for what is not declared ({', '.join(stray)})"
            found.wrong.append(f"{what}: apply the topology")


def _undeclared_sas(end: EndView, declared: Collection[str]) -> list[str]:
    """Return the names of children that have a CHILD_SA at an end and are not declared."""
    carrying = (child for sa in end.sas for child in sa.children if child.carries)
    return sorted({child.name for child in carrying} - {*declared})


def _blame_ike(found: _Findings, ends: Iterable[EndView]) -> None:
    """Note in what the IKE_SAs are not as declared; both ends negotiated the same, so one is enough."""
    for end in ends:
        declared = found.tunnel.ike.get(end.gateway, ())
        causes = (cause for sa in end.sas if sa.established for cause in ike_departures(declared, sa))
        if wrong := [f"the IKE_SA at {end.gateway}: {cause}" for cause in dict.fromkeys(causes)]:
            found.wrong += wrong
            return


def _blame_ways(found: _Findings, ends: Iterable[EndView]) -> None:
    """Note what keeps packets from entering the tunnel; and, beside the verdict, who changes them."""
    for end in ends:
        if end.applied is False:
            continue
        found.device += _device_causes(found.tunnel, end)
        way = found.tunnel.ways.get(end.gateway)
        if way is not None and end.way is not None:
            found.blocked += way_causes(end.gateway, way, end.way)
            found.cut_off = found.cut_off or cut_off(way, end.way)
            found.notes += rewritten_note(end.gateway, way, end.rewritten)
        if end.state is EndState.SEEN:
            mtu = found.tunnel.mtus.get(end.gateway)
            found.blocked += start_up_causes(end.gateway, mtu, end.pending, end.restart)


def _blame_unloaded(found: _Findings, ends: Iterable[EndView]) -> None:
    """Note which ends live on SAs whose connection charon no longer has; without SAs it is simply down."""
    if found.good or found.wrong:
        found.wrong += [*_nothing_applied(ends), *_not_loaded(ends)]


def _not_loaded(ends: Iterable[EndView]) -> list[str]:
    return [_unloaded(end) for end in ends if not end.loaded and end.applied is not False]


def _unloaded(end: EndView) -> str:
    return f"charon on {end.gateway} does not have the connection: apply the topology"


def _departures(tunnel: Declared, end: EndView, name: str) -> list[str]:
    """Return in what a child at one end is not as declared, each thing once."""
    traffic = tunnel.traffic.get((end.gateway, name))
    if traffic is None:
        return []
    found = (cause for sa in _carrying(end, name) for cause in departures(traffic, sa))
    return [f"at {end.gateway} {cause}" for cause in dict.fromkeys(found)]


def _match(name: str, left: EndView, right: EndView, found: _Findings) -> None:
    """Find the CHILD_SAs of one child that fit together, and say what does not."""
    ours, theirs = _carrying(left, name), _carrying(right, name)
    by_spis = {(sa.spi_out, sa.spi_in): sa for sa in theirs}
    pairs = [(sa, by_spis[sa.spi_in, sa.spi_out]) for sa in ours if (sa.spi_in, sa.spi_out) in by_spis]
    if pairs:
        found.good.append(name)
        for mine, other in pairs:
            found.blame(name, *_unlike(left, mine, right, other))
    elif left.lacks(name) or right.lacks(name):
        pass  # that says it all, and below
    elif not ours and not theirs:
        found.missing.append(name)
    else:
        found.unsteady = True
        found.blame(name, _unmatched(left, ours, right, theirs))
    for end in (left, right):
        found.blame(name, *_kernel_causes(found.tunnel, end, name))
        if duplicates := _duplicates(end, name):
            found.blame(name, *duplicates)
            found.unsteady = True
    # Both ends negotiated the same: one of them is enough to say so.
    departed = (causes for end in (left, right) if (causes := _departures(found.tunnel, end, name)))
    found.blame(name, *next(departed, ()))


def _unmatched(left: EndView, ours: list[ChildSa], right: EndView, theirs: list[ChildSa]) -> str:
    if ours and theirs:
        return (
            f"the ends have different CHILD_SAs ({left.gateway} receives on {ours[-1].spi_in}, "
            f"{right.gateway} sends to {theirs[-1].spi_out})"
        )
    has, lacks, sa = (left, right, ours[-1]) if ours else (right, left, theirs[-1])
    return f"only {has.gateway} has a CHILD_SA (it receives on {sa.spi_in}); {lacks.gateway} has none"


def _unlike(left: EndView, mine: ChildSa, right: EndView, other: ChildSa) -> list[str]:
    """Return what two halves of one CHILD_SA do not agree upon."""
    unlike = []
    if mine.suite != other.suite:
        unlike.append(f"{left.gateway} uses {mine.suite}, {right.gateway} {other.suite}")
    if mine.local_ts != other.remote_ts or mine.remote_ts != other.local_ts:
        unlike.append(f"the selectors differ: {_ts(mine)} at {left.gateway}, {_ts(other)} at {right.gateway}")
    return unlike


def _ts(sa: ChildSa) -> str:
    return f"{' '.join(sa.local_ts)} === {' '.join(sa.remote_ts)}"


def _duplicates(end: EndView, name: str) -> list[str]:
    """Return as a cause that an end has several SAs where one is enough: one, or one for each CPU."""
    counts = Counter(sa.cpu for sa in _carrying(end, name) if sa.installed)
    extra = [f" and CPU {cpu}" if cpu is not None else "" for cpu, count in counts.items() if count > 1]
    return [f"{end.gateway} has {max(counts.values())} CHILD_SAs for it{extra[0]}"] if extra else []


def _carrying(end: EndView, name: str) -> list[ChildSa]:
    dead = {sa.spi_in for sa in end.lacks(name) if sa.dead}
    children = (child for sa in end.sas for child in sa.children if child.name == name)
    return [child for child in children if child.carries and child.spi_in not in dead]


def _conclude(found: _Findings, ends: tuple[EndView, ...], health: _Health) -> TunnelHealth:
    unguarded = [*found.blocked, *_unguarded(ends)]
    no_way_out = _no_way_out(found.tunnel, ends)
    if len(found.missing) == len(found.tunnel.children):
        why = _why_nothing(ends, found.tunnel.children)
        astray = [o.cause for end in ends for o in astray_obstacles(found.tunnel, end.gateway, end.way_out)]
        nothing = dict.fromkeys(
            [*no_way_out, *astray, *found.device, *found.wrong, *why, *unguarded, *found.notes]
        )
        unsteady = found.unsteady or any(_under_way(end) for end in ends)
        return health(Verdict.DOWN, nothing, unsteady=unsteady)
    missing = [f"{name}: no CHILD_SA at either end" for name in found.missing]
    if len(ends) == 1:
        missing = [f"{name}: no CHILD_SA at {ends[0].gateway}" for name in found.missing]
    causes = [*dict.fromkeys([*no_way_out, *found.device, *found.wrong]), *missing, *unguarded]
    nothing_passes = not found.good or found.cut_off or any(nothing_leaves(found.tunnel, e) for e in ends)
    verdict = Verdict.DOWN if nothing_passes else Verdict.DEGRADED if causes else Verdict.UP
    return health(verdict, [*causes, *found.notes], unsteady=found.unsteady)


def _under_way(end: EndView) -> bool:
    return any(sa.state in ("CREATED", "CONNECTING") for sa in end.sas)


def _why_nothing(ends: tuple[EndView, ...], declared: Collection[str]) -> list[str]:
    """Return why no declared child has a CHILD_SA, as far as the ends show it."""
    causes = [*_nothing_applied(ends), *_not_loaded(ends)]
    for end in ends:
        for sa in end.sas:
            names = sorted({child.name for child in sa.children if child.carries} - {*declared})
            if sa.established and names:
                what = f"{end.gateway} has CHILD_SAs of an earlier configuration only"
                causes.append(f"{what}: {', '.join(names)}")
            elif sa.established:
                causes.append(f"{end.gateway} has an IKE_SA with {sa.remote_host} and no CHILD_SA in it")
            elif sa.initiator:
                causes.append(f"{end.gateway} is calling {sa.remote_host} and has no IKE_SA yet")
    if not causes:
        causes.append(
            f"neither {ends[0].gateway} nor {ends[1].gateway} has an IKE_SA for it"
            if len(ends) > 1
            else f"{ends[0].gateway} has no IKE_SA for it"
        )
    return causes

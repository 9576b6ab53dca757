"""What the gateways have to work with: found out once, remembered, and held against what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from netaddr import IPAddress

from ipsecctl.desired import GatewayState, Means, compile_topology
from ipsecctl.errors import IpsecctlError
from ipsecctl.gateway import (
    Answer,
    Handle,
    Lack,
    Needs,
    Observed,
    Trials,
    addresses_of,
    capabilities,
    lacks,
    needs_of,
    unknown_options,
    way_out_questions,
)
from ipsecctl.plan import Conflict, Note
from ipsecctl.topology import Mode, Topology

__all__ = [
    "Compiled",
    "compile_observed",
    "far_prefixes",
    "means_remembered",
    "outer_questions",
    "own_prefixes",
    "trials_of",
]

_SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class Compiled:
    """A topology compiled for what its gateways have.

    ``means`` are for the record of each gateway, ``trials`` by gateway for its own. ``lacking`` has by
    gateway what it would have to be able to do and is not, ``notes`` what it may lack, or lacks and does not
    use.
    """

    states: tuple[GatewayState, ...]
    means: Mapping[str, Means]
    trials: Mapping[str, Trials]
    lacking: Mapping[str, tuple[Conflict, ...]]
    notes: Mapping[str, tuple[Note, ...]]


async def compile_observed(
    topology: Topology,
    handles: Mapping[str, Handle],
    observed: Mapping[str, Observed],
    *,
    timeout_s: float,
) -> Compiled:
    """Compile for what the gateways have; what their kernels can do is tried only where nobody knows it yet.

    A "no" that was found earlier is tried again, as a module may have been installed since; so only what a
    gateway lacks costs time at every plan.
    """
    remembered = {name: known for name, seen in observed.items() if (known := trials_of(seen))}
    running = {name for name, seen in observed.items() if seen.charon_down is None}
    unknown = {name: handles[name] for name in running if name not in remembered}
    tried, failed = await _try_all(unknown, observed, timeout_s)
    trials = remembered | tried
    compiled = _compile(topology, observed, trials, failed)
    doubtful = {name: handles[name] for name in compiled.lacking if name in remembered}
    if doubtful:
        again, _ = await _try_all(doubtful, observed, timeout_s)
        compiled = _compile(topology, observed, trials | again, failed)
    return compiled


def trials_of(seen: Observed) -> Trials | None:
    """Return what was tried on the kernel that runs now."""
    record = seen.facts.record
    trials = record.trials if record else None
    return trials if trials and seen.facts.kernel and trials.start == seen.facts.kernel else None


async def _try_all(
    handles: Mapping[str, Handle], observed: Mapping[str, Observed], timeout_s: float
) -> tuple[dict[str, Trials], dict[str, str]]:
    """Try what these gateways can do, side by side; return by name what came of it, or why nothing did."""
    bound = asyncio.Semaphore(_SIDE_BY_SIDE)
    found: dict[str, Trials] = {}
    failed: dict[str, str] = {}

    async def one(handle: Handle) -> None:
        async with bound:
            try:
                told = await capabilities(handle, timeout_s=timeout_s)
            except IpsecctlError as error:  # "auto" takes the safe choice then, and nothing is refused
                failed[handle.name] = error.summary
                return
        found[handle.name] = Trials.of(told, observed[handle.name].facts.kernel)

    async with asyncio.TaskGroup() as group:
        for handle in handles.values():
            group.create_task(one(handle))
    return found, failed


def _compile(
    topology: Topology,
    observed: Mapping[str, Observed],
    trials: Mapping[str, Trials],
    failed: Mapping[str, str],
) -> Compiled:
    records = {name: seen.facts.record for name, seen in observed.items()}
    before = means_remembered({name: record.means for name, record in records.items() if record})
    means = before | {
        name: _means(seen, trials.get(name), before.get(name))
        if seen.charon_down is None
        else replace(before.get(name, Means()), connected=frozenset(seen.facts.ways.connected))
        for name, seen in observed.items()
    }
    states = compile_topology(topology, means)
    paths = {gateway.name: gateway.data_path for gateway in topology.gateways()}
    by_name = {state.name: state for state in states}
    lacking: dict[str, tuple[Conflict, ...]] = {}
    notes: dict[str, tuple[Note, ...]] = {}
    for state in states:
        if state.name in observed and observed[state.name].charon_down is None:
            needs = needs_of(state, paths[state.name], by_name)
            found = tuple(_lacking(state, needs, observed[state.name], trials.get(state.name)))
            if conflicts := tuple(_conflict(state.name, lack) for lack in found if lack.stops):
                lacking[state.name] = conflicts
            notes[state.name] = (
                *_not_tried(state.name, failed),
                *(_note(state.name, lack) for lack in found if not lack.stops),
            )
    return Compiled(states, dict(_worth_keeping(topology, means)), trials, lacking, notes)


def means_remembered(records: Mapping[str, Mapping[str, Means]]) -> dict[str, Means]:
    """Return what is known of each gateway from the records (by gateway) of those that were reached.

    What a gateway's own record says of it comes first. So a gateway that is away for a moment does not change
    what its neighbours are to be.
    """
    means: dict[str, Means] = {}
    for name in sorted(records):
        means = dict(records[name]) | means
    return means | {name: told[name] for name, told in records.items() if name in told}


def _means(seen: Observed, trials: Trials | None, before: Means | None) -> Means:
    """Return what a gateway has; a choice that hung on its xfrm interfaces stays unless these are gone."""
    answer = trials.kernel.xfrm_interfaces if trials else Answer()
    interfaces = True if answer.yes else False if answer.no else None
    chosen = before.xfrm_interfaces if before and before.data_path is seen.data_path else None
    if chosen is not None:
        interfaces = chosen and not answer.no
    return Means(
        data_path=seen.data_path,
        xfrm_interfaces=interfaces,
        version=seen.charon.version_numbers or None,
        algorithms=frozenset(name for _, names in seen.charon.algorithms for name in names) or None,
        connected=frozenset(seen.facts.ways.connected),
    )


def _worth_keeping(topology: Topology, means: Mapping[str, Means]) -> Iterator[tuple[str, Means]]:
    """Yield by gateway what others must know to compile the same without it, and what was chosen for it."""
    open_ends = {
        end.gateway.name
        for tunnel in topology.tunnels
        for end in (tunnel.left, tunnel.right)
        if end.mode is Mode.AUTO
    }
    for name, found in sorted(means.items()):
        chosen = found.xfrm_interfaces if name in open_ends else None
        yield name, replace(found, xfrm_interfaces=chosen, algorithms=None, connected=frozenset())


# ---------------------------------------------------------------------------------------------------- lacking


def _lacking(state: GatewayState, needs: Needs, seen: Observed, trials: Trials | None) -> Iterator[Lack]:
    """Yield what a gateway lacks, or may lack, of what its state needs."""
    yield from unknown_options(state, seen.version)
    if trials is not None:
        yield from lacks(trials.with_charon(state.name, seen.charon), needs)


def _conflict(gateway: str, lack: Lack) -> Conflict:
    return Conflict(f"{gateway}: {lack.what}; {lack.why_needed}", lack.mend)


def _note(gateway: str, lack: Lack) -> Note:
    return Note(f"{gateway}: {lack.what}; {lack.why_needed}", lack.mend)


def _not_tried(gateway: str, failed: Mapping[str, str]) -> Iterator[Note]:
    if gateway in failed:
        why = failed[gateway].removeprefix(f"{gateway}: ")
        yield Note(
            f"{gateway}: not known what its kernel can do, so nothing was held against it: {why}",
            f"'ipsecctl facts {gateway} FILE' tries it by itself.",
        )


def far_prefixes(topology: Topology) -> dict[str, frozenset[str]]:
    """Return by gateway the prefixes that may be led into tunnels in route mode."""
    found: dict[str, set[str]] = {}
    for tunnel in topology.tunnels:
        left = [end.prefix for flow in tunnel.flows for end in flow.left]
        right = [end.prefix for flow in tunnel.flows for end in flow.right]
        for here, far in ((tunnel.left, right), (tunnel.right, left)):
            if here.mode is not Mode.POLICY:
                prefixes = [*far, *(here.routes or ())]
                found.setdefault(here.gateway.name, set()).update(str(prefix.cidr) for prefix in prefixes)
    return {name: frozenset(prefixes) for name, prefixes in found.items()}


def outer_questions(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Return by gateway what to ask it of its way to its peers; of names and dynamic addresses nothing."""
    own: dict[str, set[IPAddress]] = {}
    peers: dict[str, set[IPAddress]] = {}
    for tunnel in topology.tunnels:
        left, right = tunnel.left.gateway, tunnel.right.gateway
        for here, far in ((left, right), (right, left)):
            own.setdefault(here.name, set()).update(addresses_of([here.address]))
            peers.setdefault(here.name, set()).update(addresses_of([far.reachable_at]))
    return {name: way_out_questions(own[name], peers[name]) for name in own}


def own_prefixes(topology: Topology) -> dict[str, frozenset[str]]:
    """Return by gateway the prefixes of its site, to which it should have a route that is no default one."""
    return {
        gateway.name: frozenset(str(prefix.cidr) for network in site.networks for prefix in network.prefixes)
        for site in topology.sites
        for gateway in site.gateways
        if gateway.managed and not gateway.one_armed
    }

"""Before anything happens: reach and observe every gateway, compile, render, and plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipsecctl.deploy.holding import doomed, held
from ipsecctl.deploy.means import compile_observed, far_prefixes, outer_questions, own_prefixes
from ipsecctl.deploy.pending import waiting
from ipsecctl.deploy.safety import standings
from ipsecctl.desired import GatewayState
from ipsecctl.errors import IpsecctlError
from ipsecctl.gateway import Handle, Observed, Obstacle, observe, reach
from ipsecctl.health import outdated
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import (
    GatewayPlan,
    Safety,
    Stop,
    Wanted,
    calm,
    half_notes,
    halves,
    holding,
    plan_gateway,
    stops,
    wanted,
    with_far_ends,
)
from ipsecctl.render import render_files, render_messages
from ipsecctl.secrets import Secret, read_all, read_certificate
from ipsecctl.topology import SecretRef, Topology

__all__ = ["SIDE_BY_SIDE", "Prepared", "prepare", "reach_all"]

SIDE_BY_SIDE = 16
"""How many gateways are worked on at a time: each takes two child processes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before an apply, by gateway; ``failures`` has those that could not be observed.

    A gateway of which only charon does not run is among the failures, and has a plan of the host's part.
    ``stops`` say why the plans are not to be carried out, although they could be. ``limit`` are the gateways
    that are changed, ``None`` for all: the others were looked at, and have no plan. ``half`` has by tunnel
    those of them that would have to be changed, too. ``doomed`` are the tunnels whose SAs would end and not
    come up again, with the reasons; those of them that are ``held`` are left as they run.
    """

    topology: Topology
    states: tuple[GatewayState, ...]
    handles: Mapping[str, Handle]
    observed: Mapping[str, Observed]
    wanted: Mapping[str, Wanted]
    plans: tuple[GatewayPlan, ...]
    failures: Mapping[str, IpsecctlError]
    stops: tuple[Stop, ...] = ()
    limit: frozenset[str] | None = None
    half: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doomed: Mapping[str, tuple[Obstacle, ...]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()

    @property
    def shown(self) -> tuple[GatewayPlan, ...]:
        """The plans for a person: what is changed at one end only is not disturbed yet, what is held not at
        all."""
        return holding(calm(self.plans, self.half), self.doomed, self.held)

    @property
    def tunnels(self) -> frozenset[str]:
        """The tunnels that these plans are about: all, or those with an end in the limit."""
        return frozenset(
            t.name
            for t in self.topology.tunnels
            if self.limit is None or {t.left.gateway.name, t.right.gateway.name} & self.limit
        )


@dataclass(frozen=True, slots=True)
class _Questions:
    """What gateways are asked beside what they are always asked, by their names: see ``observe``."""

    prefixes: Mapping[str, Iterable[str]]
    own: Mapping[str, Iterable[str]]
    outer: Mapping[str, Iterable[str]]


async def prepare(
    topology: Topology,
    base: Path,
    *,
    lab: str | None = None,
    take_over: bool = False,
    safety: Safety | None = None,
    limit: frozenset[str] | None = None,
    timeout_s: float = 20.0 * PATIENCE,
) -> Prepared:
    """Plan every managed gateway of a topology whose files lie in ``base``, or only those in the ``limit``.

    ``lab`` says that the gateways are the containers of that lab; ``safety`` how much the plans may remove
    and disturb. A gateway that cannot be reached or read is
    among the failures and does not hold up the others, for at most ``timeout_s`` seconds. Raises
    ``SecretUnavailable`` for a secret or certificate that cannot be read.
    """
    handles, failures = reach_all(topology, lab)
    if limit is not None:
        seen = with_far_ends(topology, limit)
        handles = {name: handle for name, handle in handles.items() if name in seen}
        failures = {name: error for name, error in failures.items() if name in seen}
    asked = _Questions(far_prefixes(topology), own_prefixes(topology), outer_questions(topology))
    observed = await _observe_all(handles, failures, asked, timeout_s)
    compiled = await compile_observed(topology, handles, observed, timeout_s=timeout_s)
    states = compiled.states
    secrets, certificates = await asyncio.to_thread(_read_all, states, base)
    foreign = frozenset(
        t.name for t in topology.tunnels if not (t.left.gateway.managed and t.right.gateway.managed)
    )
    targets = {
        state.name: wanted(
            topology.name,
            state,
            render_files(state, secrets, certificates),
            render_messages(state, secrets, certificates),
            compiled.means,
            compiled.trials.get(state.name),
            foreign,
        )
        for state in states
        if state.name in observed
    }
    by_name = {state.name: state for state in states}
    partners = {t.name for t in topology.tunnels if not (t.left.gateway.managed and t.right.gateway.managed)}
    plans = tuple(
        plan_gateway(
            targets[name],
            observed[name],
            take_over=take_over,
            lacking=(*waiting(observed[name]), *compiled.lacking.get(name, ())),
            notes=compiled.notes.get(name, ()),
            outdated=outdated(by_name[name], observed[name].sas, partners),
        )
        for name in sorted(targets)
    )
    half: Mapping[str, tuple[str, ...]] = {}
    if limit is not None:
        half = halves(plans, limit)
        plans = tuple(
            replace(plan, notes=(*plan.notes, *half_notes(plan, half)))
            for plan in plans
            if plan.gateway in limit
        )
    safety = safety or Safety()
    lost = doomed(calm(plans, half), targets, observed)
    prepared = Prepared(
        topology,
        states,
        handles,
        observed,
        targets,
        plans,
        failures,
        (),
        limit,
        half,
        lost,
        held(lost, safety),
    )
    stopped = stops(standings(topology, targets, observed), prepared.shown, safety)
    return replace(prepared, stops=stopped)


def reach_all(topology: Topology, lab: str | None) -> tuple[dict[str, Handle], dict[str, IpsecctlError]]:
    """Return the handles of all managed gateways by name, and why others have none. Nothing is opened yet."""
    handles: dict[str, Handle] = {}
    failures: dict[str, IpsecctlError] = {}
    for gateway in topology.gateways():
        if gateway.managed:
            try:
                handles[gateway.name] = reach(gateway, topology, lab)
            except IpsecctlError as error:
                failures[gateway.name] = error
    return handles, failures


async def _observe_all(
    handles: Mapping[str, Handle],
    failures: dict[str, IpsecctlError],
    asked: _Questions,
    timeout_s: float,
) -> dict[str, Observed]:
    """Observe all gateways side by side; those that fail go to ``failures``."""
    bound = asyncio.Semaphore(SIDE_BY_SIDE)
    observed: dict[str, Observed] = {}

    async def one(handle: Handle) -> None:
        async with bound:
            try:
                name = handle.name
                seen = await observe(
                    handle,
                    asked.prefixes.get(name, ()),
                    own=asked.own.get(name, ()),
                    outer=asked.outer.get(name, ()),
                    timeout_s=timeout_s,
                )
                observed[handle.name] = seen
                if seen.charon_down is not None:
                    failures[handle.name] = seen.charon_down
            except IpsecctlError as error:
                failures[handle.name] = error

    async with asyncio.TaskGroup() as group:
        for handle in handles.values():
            group.create_task(one(handle))
    return observed


def _read_all(states: Iterable[GatewayState], base: Path) -> tuple[dict[SecretRef, Secret], dict[str, bytes]]:
    refs = {key.secret for state in states for key in state.shared_keys}
    refs |= {key.secret for state in states for key in state.private_keys}
    sources = {file.source for state in states for file in state.certificates}
    return (
        read_all(refs, base),
        {source: read_certificate(source, base) for source in sorted(sources)},
    )

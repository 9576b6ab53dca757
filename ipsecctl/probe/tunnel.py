"""Proving tunnels: send, listen, ask, and let the checks judge."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ipsecctl.desired import GatewayState, compile_topology
from ipsecctl.gateway import Handle
from ipsecctl.health import IkeSa
from ipsecctl.patience import PATIENCE
from ipsecctl.probe.bench import Bench, bench
from ipsecctl.probe.charons import Charons, charons
from ipsecctl.probe.checks import CHECKS, check_path
from ipsecctl.probe.evidence import Evidence
from ipsecctl.probe.expect import expected
from ipsecctl.probe.guard import GuardSeen, guard_checks, look_at_guards
from ipsecctl.probe.report import Check, NotApplicable, Outcome, TunnelReport
from ipsecctl.probe.sas import CharonView, charon_view
from ipsecctl.probe.scene import Scene
from ipsecctl.probe.sizes import SMALLEST_BYTES, next_sizes, settled, sized
from ipsecctl.probe.traffic import Gap, Path, Probe, kinds, paths, size_probe, steady_probes
from ipsecctl.topology import Topology, Tunnel

__all__ = ["probe_tunnels"]

_ARRIVAL_S = 1.0 * PATIENCE
_ROUND_S = 0.4 * PATIENCE
_LARGEST_BYTES = 1500  # what a host's own link carries

SasByGateway = Mapping[str, tuple[IkeSa, ...]]


@dataclass(frozen=True)
class _Plan:
    """What is to be done for one tunnel."""

    tunnel: Tunnel
    paths: tuple[Path, ...]
    gaps: tuple[Gap, ...]
    spared: tuple[NotApplicable, ...]


async def probe_tunnels(
    topology: Topology, tunnels: Sequence[Tunnel], scene: Scene, handles: Mapping[str, Handle]
) -> tuple[TunnelReport, ...]:
    """Probe tunnels all at once and return a report for each, in their order.

    ``handles`` are by name those of the gateways that may be asked: all managed ones of the topology, as the
    data paths of all of them decide about sizes. Whatever cannot be asked, sent or heard makes its checks
    "could not run"; nothing is raised for it. Nothing that was started is left behind, also when the task is
    cancelled.
    """
    plans = [_plan(tunnel, scene) for tunnel in tunnels]
    used = [path for plan in plans for path in plan.paths]
    async with charons(handles) as asked, bench(used, scene) as running:
        before = await asked.sas()
        states = compile_topology(topology, asked.means)
        run = _Run(running, scene, asked, states, before)
        await run.send_all(plans)
        await run.search_sizes(plans)
        after = await asked.sas()
        guards = await look_at_guards(_of(tunnels, handles))
        await running.finish()
        return tuple(_report(plan, run.evidence(plan.tunnel, after), guards) for plan in plans)


class _Run:
    """One run over all tunnels: what was asked before, and the bench that sends and listens."""

    def __init__(
        self,
        running: Bench,
        scene: Scene,
        asked: Charons,
        states: Sequence[GatewayState],
        before: SasByGateway,
    ) -> None:
        self._bench = running
        self._scene = scene
        self._asked = asked
        self._states = states
        self._before = before

    def evidence(self, tunnel: Tunnel, after: SasByGateway | None = None) -> Evidence:
        """Return all that is known of a tunnel at this moment."""
        before = _views(tunnel, self._before)
        later = before if after is None else _views(tunnel, after)
        suites = [sa.suite for view in later.values() for sa in view.sas if sa.suite is not None]
        gateways = (tunnel.left.gateway, tunnel.right.gateway)
        links = {g.name: self._scene.links[g.name] for g in gateways if g.name in self._scene.links}
        foreign = {g.name: f"{g.name} is not managed" for g in gateways if not g.managed}
        return Evidence(
            tunnel=tunnel,
            probes=tuple(p for p in self._bench.probes if p.path.tunnel == tunnel.name),
            recordings=self._bench.recordings,
            links=links,
            others={name: link for name, link in self._scene.links.items() if name not in links},
            expected=expected(tunnel, self._states, suites, self._asked.data_paths),
            before=before,
            after=later,
            unasked=self._asked.unasked | foreign,
            unsent=self._bench.unsent,
        )

    async def send_all(self, plans: Iterable[_Plan]) -> None:
        """Send what every path needs, and wait until all of it has arrived or been answered."""
        probes: list[Probe] = []
        for plan in plans:
            computed = self.evidence(plan.tunnel).expected
            for path in plan.paths:
                probes += steady_probes(path, self._bench.serials)
                if computed is not None:
                    sizes = (computed.inner_mtu, computed.inner_mtu + 1)
                    probes += [size_probe(path, size, self._bench.serials) for size in sizes]
        await self._bench.send(probes)
        evidence = {plan.tunnel.name: self.evidence(plan.tunnel) for plan in plans}
        waiting = [(evidence[p.path.tunnel], p) for p in probes if p.serial not in self._bench.unsent]

        def all_decided() -> bool:
            waiting[:] = [(e, p) for e, p in waiting if not e.arrived(p) and not e.too_big(p)]
            return not waiting

        await self._bench.until(all_decided, _ARRIVAL_S)

    async def search_sizes(self, plans: Iterable[_Plan]) -> None:
        """Find the largest size on every path where it is not the one computed."""
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                evidence = self.evidence(plan.tunnel)
                for path in plan.paths:
                    computed = evidence.expected
                    if computed is not None and not settled(path, computed.inner_mtu, evidence):
                        group.create_task(self._search(plan.tunnel, path))

    async def _search(self, tunnel: Tunnel, path: Path) -> None:
        """Narrow the gap between the largest size that passes and the smallest above it that does not."""
        await self._try_sizes(tunnel, path, [SMALLEST_BYTES[path.family], _LARGEST_BYTES])
        while True:
            tried = sized(path, self.evidence(tunnel))
            low = max((s.size_bytes for s in tried if s.passed), default=0)
            high = min((s.size_bytes for s in tried if s.size_bytes > low), default=0)
            sizes = next_sizes(low, high) if low else []
            if not sizes:
                return
            await self._try_sizes(tunnel, path, sizes)

    async def _try_sizes(self, tunnel: Tunnel, path: Path, sizes: Iterable[int]) -> None:
        probes = [size_probe(path, size, self._bench.serials) for size in sizes]
        await self._bench.send(probes)
        evidence = self.evidence(tunnel)
        sent = [p for p in probes if p.serial not in self._bench.unsent]
        await self._bench.until(
            lambda: all(evidence.arrived(p) or evidence.too_big(p) for p in sent), _ROUND_S
        )


def _plan(tunnel: Tunnel, scene: Scene) -> _Plan:
    found, gaps = paths(tunnel, scene.hosts)
    spared = [
        NotApplicable(
            name, path.flow, path.direction, path.family, "the flow's protocol is not in this family"
        )
        for path in found
        if not kinds(path)
        for name in CHECKS
    ]
    return _Plan(tunnel, tuple(p for p in found if kinds(p)), tuple(gaps), tuple(spared))


def _of(tunnels: Iterable[Tunnel], handles: Mapping[str, Handle]) -> dict[str, Handle]:
    """Return the handles of the gateways that the tunnels join."""
    names = {end.gateway.name for tunnel in tunnels for end in (tunnel.left, tunnel.right)}
    return {name: handle for name, handle in handles.items() if name in names}


def _report(plan: _Plan, evidence: Evidence, guards: Mapping[str, GuardSeen]) -> TunnelReport:
    checks: list[Check] = []
    spared = list(plan.spared)
    for path in plan.paths:
        run, left_out = check_path(path, evidence)
        checks += run
        spared += left_out
    for gap in plan.gaps:
        checks += [
            Check(
                check=name,
                claim=kind.claim,
                flow=gap.flow,
                direction=gap.direction,
                family=gap.family,
                outcome=Outcome.COULD_NOT_RUN,
                expected=None,
                measured=None,
                evidence=gap.why,
            )
            for name, kind in CHECKS.items()
        ]
    checks += guard_checks(plan.tunnel, guards)
    return TunnelReport(plan.tunnel.name, tuple(checks), tuple(spared))


def _views(tunnel: Tunnel, sas: SasByGateway) -> dict[str, CharonView]:
    names = (tunnel.left.gateway.name, tunnel.right.gateway.name)
    return {name: charon_view(name, tunnel.name, sas[name]) for name in names if name in sas}

"""Watching for leaks: marked traffic goes on while something happens, and must never be on the WAN in
clear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from netaddr import IPNetwork

from ipsecctl.interrupt import complete
from ipsecctl.probe.bench import Bench, bench
from ipsecctl.probe.checks import leaks, packet_in_words
from ipsecctl.probe.evidence import Evidence
from ipsecctl.probe.report import Outcome
from ipsecctl.probe.scene import Scene
from ipsecctl.probe.traffic import Path, Probe, Purpose, kinds, paths
from ipsecctl.topology import Tunnel

__all__ = ["LeakReport", "LeakWatch", "judge", "watch_for_leaks", "watch_while"]

_INTERVAL_S = 0.01


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What a watch has found.

    ``sent`` and ``arrived`` count marked packets; ``leaked`` those packets on the WAN that were in clear, at
    every place where one was seen; ``wan_packets`` all that were looked at, ``esp_packets`` the ESP among
    them. ``evidence`` says it in words.
    """

    tunnel: str
    outcome: Outcome
    sent: int
    arrived: int
    leaked: int
    wan_packets: int
    esp_packets: int
    evidence: str

    def as_json(self) -> dict[str, Any]:
        return {
            "tunnel": self.tunnel,
            "outcome": self.outcome.value,
            "sent": self.sent,
            "arrived": self.arrived,
            "leaked": self.leaked,
            "wan_packets": self.wan_packets,
            "esp_packets": self.esp_packets,
            "evidence": self.evidence,
        }


class LeakWatch:
    """A watch that runs; ``report`` is there once it has ended."""

    def __init__(self, tunnel: Tunnel, running: Bench, scene: Scene) -> None:
        self._tunnel = tunnel
        self._bench = running
        self._scene = scene
        self._report: LeakReport | None = None

    @property
    def sent(self) -> int:
        """How many marked packets were sent so far."""
        return len(self._bench.probes) - len(self._bench.unsent)

    @property
    def arrived(self) -> int:
        """How many of them have arrived so far."""
        evidence = self._evidence()
        return sum(evidence.arrived(probe) is not None for probe in evidence.probes)

    @property
    def report(self) -> LeakReport:
        """What was found. Raises ``RuntimeError`` while the watch still runs."""
        if self._report is None:
            raise RuntimeError("the watch has not ended yet")
        return self._report

    async def send(self, used: Sequence[Path], interval_s: float) -> None:
        """Send one marked packet after another, paths and kinds of traffic in turn, until cancelled."""
        for path, kind in cycle([(each, kind) for each in used for kind in kinds(each)]):
            await self._bench.send([Probe(next(self._bench.serials), path, kind, Purpose.ARRIVES)])
            await asyncio.sleep(interval_s)

    async def finish(self) -> None:
        """End the captures and judge."""
        await self._bench.finish()
        self._report = judge(self._evidence())

    def _evidence(self) -> Evidence:
        gateways = (self._tunnel.left.gateway.name, self._tunnel.right.gateway.name)
        links = {name: self._scene.links[name] for name in gateways if name in self._scene.links}
        return Evidence(
            tunnel=self._tunnel,
            probes=tuple(self._bench.probes),
            recordings=self._bench.recordings,
            links=links,
            others={name: link for name, link in self._scene.links.items() if name not in links},
            unsent=self._bench.unsent,
        )


@asynccontextmanager
async def watch_for_leaks(
    tunnel: Tunnel, scene: Scene, *, interval_s: float = _INTERVAL_S
) -> AsyncIterator[LeakWatch]:
    """Send marked traffic both ways through a tunnel for as long as the body runs, and capture the WAN
    meanwhile.

    Packets go out every ``interval_s`` seconds, the paths of the tunnel in turn. When the body begins, the
    captures run and packets are being sent; when it ends without an error, ``report`` of what was yielded is
    there. Raises ``CannotTell`` when Docker cannot be run.
    """
    used = [path for path in paths(tunnel, scene.hosts)[0] if kinds(path)]
    async with bench(used, scene) as running:
        watch = LeakWatch(tunnel, running, scene)
        sending = asyncio.create_task(watch.send(used, interval_s)) if used else None
        try:
            yield watch
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
        await watch.finish()


def watch_while(
    tunnel: Tunnel, scene: Scene, during: Callable[[], object], *, interval_s: float = _INTERVAL_S
) -> LeakReport:
    """Watch for leaks for as long as ``during`` takes, which runs in a thread of its own; return what was
    found.

    Whatever ``during`` raises is raised here.
    """

    async def watch() -> LeakReport:
        async with watch_for_leaks(tunnel, scene, interval_s=interval_s) as watching:
            await asyncio.to_thread(during)
        return watching.report

    return complete(watch())


def judge(evidence: Evidence) -> LeakReport:
    """A leak is a failure whatever else, at whichever gateway; no leak counts only when every place was heard
    without loss, and the tunnel was seen to carry something at some time of the watch."""
    sent = [probe for probe in evidence.probes if probe.serial not in evidence.unsent]
    arrived = sum(evidence.arrived(probe) is not None for probe in sent)
    serials = frozenset(probe.serial for probe in evidence.probes)
    found = leaks(evidence, serials, _ways(evidence.tunnel))
    looked_at = sum(len(recording.packets) for recording in evidence.every_wan)
    doubts = evidence.clear_doubts or _not_shown(evidence, sent, arrived)
    seen = f"{len(sent)} marked packets sent, {arrived} arrived, {looked_at} WAN packets looked at"
    if found:
        outcome = Outcome.FAILS
        recording, heard = found[0]
        seen += f"; {len(found)} in clear, the first at {recording.tap}: {packet_in_words(heard.packet)}"
    elif doubts:
        outcome, seen = Outcome.COULD_NOT_RUN, f"{seen}; {doubts}"
    else:
        outcome, seen = Outcome.HOLDS, f"{seen}, none in clear"
    return LeakReport(
        tunnel=evidence.tunnel.name,
        outcome=outcome,
        sent=len(sent),
        arrived=arrived,
        leaked=len(found),
        wan_packets=looked_at,
        esp_packets=len(evidence.esp),
        evidence=seen,
    )


def _not_shown(evidence: Evidence, sent: Sequence[Probe], arrived: int) -> str:
    """Say what the watch lacks to show that it would have seen a leak; empty when it lacks nothing."""
    if not sent:
        return "nothing was sent"
    if deaf := [str(recording.tap) for recording in evidence.wan if not recording.packets]:
        return f"not one packet was heard at {', '.join(deaf)}"
    if not arrived and not _any_esp(evidence, sent):
        return "no ESP of the tunnel was seen, and nothing arrived"
    return ""


def _any_esp(evidence: Evidence, sent: Sequence[Probe]) -> bool:
    """Whether ESP of the tunnel was on the WAN.

    The link of a hub carries that of other tunnels, too: there the peer's address must be known, and fit.
    """
    used = {(probe.path.sender, probe.path.receiver): probe.path for probe in sent}.values()
    for seen in evidence.esp:
        for path in used:
            pair = evidence.outer_pair(path, seen.tap)
            at_sender = seen.tap in evidence.links[path.sender].taps
            peer = pair.destination if at_sender else pair.source
            if peer is not None and pair.fits(seen.packet):
                return True
    return False


def _ways(tunnel: Tunnel) -> list[tuple[IPNetwork, IPNetwork]]:
    """Return the pairs of prefixes between which a tunnel carries packets, both ways."""
    pairs = [(near.prefix, far.prefix) for flow in tunnel.flows for near in flow.left for far in flow.right]
    return pairs + [(far, near) for near, far in pairs]

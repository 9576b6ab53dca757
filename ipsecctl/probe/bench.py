"""The bench of a run: captures that listen, hosts that send, and what was sent so far."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from itertools import count

from ipsecctl.errors import CannotTell
from ipsecctl.probe.capture import Captures, captures
from ipsecctl.probe.recording import TOKEN_BYTES
from ipsecctl.probe.scene import Scene, Tap
from ipsecctl.probe.send import Sender, senders
from ipsecctl.probe.traffic import Path, Probe

__all__ = ["Bench", "bench"]

_GRACE_S = 0.1


class Bench:
    """Sends probes and knows what became of the sending; ``unsent`` says by serial why one was not sent."""

    def __init__(self, token: bytes, listening: Captures, sending: dict[str, Sender]) -> None:
        self.token = token
        self.recordings = listening.recordings
        self.serials = count(secrets.randbelow(1 << 30))
        self.probes: list[Probe] = []
        self.unsent: dict[int, str] = {}
        self._listening = listening
        self._sending = sending

    async def send(self, probes: Sequence[Probe]) -> None:
        """Send probes, those of one host in their order and the hosts side by side."""
        from ipsecctl.probe.craft import craft

        self.probes += probes

        async def from_one_host(sender: Sender, mine: list[Probe]) -> None:
            for probe in mine:
                try:
                    why = await sender.send(craft(probe, self.token))
                except CannotTell as error:
                    why = error.summary
                if why:
                    self.unsent[probe.serial] = why

        async with asyncio.TaskGroup() as group:
            for node, sender in self._sending.items():
                if mine := [probe for probe in probes if probe.path.source.node == node]:
                    group.create_task(from_one_host(sender, mine))

    async def until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Wait until ``done``, looking again whenever something was heard; false after ``limit_s``."""
        try:
            async with asyncio.timeout(limit_s):
                while not done():
                    self._listening.changed.clear()
                    await self._listening.changed.wait()
        except TimeoutError:
            return done()
        return True

    async def finish(self) -> None:
        """End the captures: nothing is heard after this, and what was lost is known."""
        await asyncio.sleep(_GRACE_S)
        await self._listening.stop()


@asynccontextmanager
async def bench(paths: Iterable[Path], scene: Scene) -> AsyncIterator[Bench]:
    """Listen and be ready to send on ``paths``; the captures run when this is entered.

    Listens on every host of the paths and on every WAN link of the scene: what leaves in clear may do so at a
    gateway that the tunnel knows nothing of. On leaving nothing runs any more.
    """
    used = tuple(paths)
    hosts = {host for path in used for host in (path.source, path.destination)}
    taps: set[Tap] = {host.tap for host in hosts} | {t for link in scene.links.values() for t in link.taps}
    token = secrets.token_bytes(TOKEN_BYTES)
    async with senders(hosts) as sending, captures() as listening:
        async with asyncio.TaskGroup() as group:
            group.create_task(listening.start(taps, token))
            # scapy takes half a second to import, in which the captures start.
            group.create_task(asyncio.to_thread(import_module, "ipsecctl.probe.craft"))
        yield Bench(token, listening, {host.node: sender for host, sender in sending.items()})

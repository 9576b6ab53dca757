"""Captures in containers, streamed here as they grow.

On the node runs ``wirekit capture``: tcpdump, which ends when its standard input does. So no capture outlives
the probe, however the probe ends.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from ipsecctl.errors import CannotTell
from ipsecctl.gateway.names import reboot_command
from ipsecctl.gateway.process import child
from ipsecctl.patience import PATIENCE
from ipsecctl.probe.recording import Recording
from ipsecctl.probe.scene import Tap
from ipsecctl.probe.wire import CaptureDamaged, NotACapture, PcapReader

__all__ = ["WIREKIT", "Captures", "captures", "docker_in_words"]

WIREKIT = "/usr/lib/ipsecctl-lab/wirekit"
# Of libpcap's own making: a filter of "outbound" in the kernel lets the first packet slip by unheard.
_LEAVING = ("-Q", "out")
_READY_S = 5.0 * PATIENCE
_STOP_S = 3.0 * PATIENCE
_READ_BYTES = 1 << 18
_DROPPED = re.compile(rb"(\d+) packets? dropped by (kernel|interface)")


def docker_in_words(said: str, container: str, node: str) -> str:
    """Return what docker says of a node's container that it runs nothing in; anything else as it is."""
    if "No such container" in said:
        return f"there is no container {container}: make the lab anew (ipsecctl lab up, with --recreate)"
    if "is not running" in said:
        return f"container {container} does not run: {reboot_command(container, node)}"
    return said


class Captures:
    """Captures at many taps; ``changed`` is set whenever one of them has heard something."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.recordings: dict[Tap, Recording] = {}
        self.changed = asyncio.Event()
        self._running: list[_Capture] = []
        self._stack = stack

    async def start(self, taps: Iterable[Tap], token: bytes) -> None:
        """Listen at every tap for packets with ``token``; return when all listen, or have said why not.

        A tap where nobody can listen raises nothing: its recording has ``trouble``.
        """
        async with asyncio.TaskGroup() as group:
            for tap in sorted(set(taps)):
                self.recordings[tap] = Recording(tap, token)
                capture = _Capture(self.recordings[tap], self.changed)
                self._running.append(capture)
                group.create_task(capture.start(self._stack))

    async def stop(self) -> None:
        """End every capture and wait for the rest of its packets and for its count of losses."""
        async with asyncio.TaskGroup() as group:
            for capture in self._running:
                group.create_task(capture.stop())


@asynccontextmanager
async def captures() -> AsyncIterator[Captures]:
    """Be ready to capture; on leaving nothing runs any more."""
    async with AsyncExitStack() as stack:
        yield Captures(stack)


class _Capture:
    """One tcpdump and the recording that it fills."""

    def __init__(self, recording: Recording, changed: asyncio.Event) -> None:
        self._recording = recording
        self._changed = changed
        self._reader = PcapReader()
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._ending = False

    async def start(self, stack: AsyncExitStack) -> None:
        tap = self._recording.tap
        command = ["docker", "exec", "-i", tap.container, WIREKIT, "capture", tap.interface]
        try:
            self._process = await stack.enter_async_context(
                child([*command, *_LEAVING] if tap.leaving else command)
            )
            async with asyncio.timeout(_READY_S):
                await self._until_open(self._stream(self._process.stdout))
        except (OSError, CannotTell) as error:
            self._fault(str(error))
        if not self._recording.trouble:
            self._listening = asyncio.create_task(self._listen())
            stack.push_async_callback(_cancelled, self._listening)

    async def stop(self) -> None:
        process, listening = self._process, self._listening
        if process is None or process.stdin is None or listening is None:
            return
        self._ending = True
        process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await listening
                said = await self._stream(process.stderr).read()
        except TimeoutError:
            self._fault(f"it did not end within {_STOP_S:g} s")
            return
        if self._reader.pending_bytes:
            self._fault("it ended in the middle of a packet")
        lost = [int(number) for number, _ in _DROPPED.findall(said)]
        self._recording.dropped = sum(lost) if lost else None

    async def _until_open(self, stdout: asyncio.StreamReader) -> None:
        """Wait for the file header: tcpdump writes it when the kernel already hands it packets."""
        while not self._reader.is_open:
            if not (data := await stdout.read(_READ_BYTES)):
                assert self._process is not None  # noqa: S101 - it was started
                said = (await self._stream(self._process.stderr).read()).decode("utf-8", "replace")
                last = said.strip().splitlines()[-1] if said.strip() else "it ended at once"
                tap = self._recording.tap
                raise CannotTell(docker_in_words(last, tap.container, tap.node))
            self._take(data)

    async def _listen(self) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        stdout = self._stream(self._process.stdout)
        while data := await stdout.read(_READ_BYTES):
            self._take(data)
        if not self._ending:
            self._fault("the capture ended early")

    def _take(self, data: bytes) -> None:
        if self._recording.trouble:
            return
        try:
            self._recording.add(self._reader.feed(data))
        except (NotACapture, CaptureDamaged) as error:
            self._fault(str(error))
        self._changed.set()

    def _fault(self, why: str) -> None:
        self._recording.trouble = self._recording.trouble or why or "it took too long to start"

    @staticmethod
    def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
        assert stream is not None  # noqa: S101 - children have pipes
        return stream


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

"""The one ``docker exec`` to a container, in which all goes on that we have it do; see ``_relay``.

A ``docker exec`` costs a tenth of a second of a processor, and ten times that on an emulated one: more than
most of what is run in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ipsecctl.gateway import _relay, process
from ipsecctl.gateway._relay import COUNT, HEAD, READ
from ipsecctl.patience import PATIENCE

__all__ = ["Channel", "Link", "LinkLost", "SocketRefused"]

_GRACE_S = 0.4 * PATIENCE
"""How long the relay waits for what it runs when we are gone: less than we then wait for the relay."""
_COMPLAINTS_BYTES = 1 << 20


class LinkLost(Exception):  # noqa: N818 - what happened, of the same kind as GatewayUnreachable
    """The link ended, or never stood; ``stderr`` is what docker said."""

    def __init__(self, stderr: bytes) -> None:
        super().__init__(stderr)
        self.stderr = stderr


class SocketRefused(Exception):  # noqa: N818 - likewise
    """The socket cannot be opened, for the reason given."""


@cache
def _program() -> str:
    return Path(_relay.__file__).read_text(encoding="utf-8")


class Channel:
    """Something that goes on in the container. It is a reader of its output, and a writer to its input."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._closed = False
        self.output = asyncio.StreamReader()
        self.stderr = bytearray()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.status.add_done_callback(lambda status: status.cancelled() or status.exception())

    async def read(self, n: int, /) -> bytes:
        """Return what has come, at most ``n`` bytes; the relay may then send as much more."""
        data = await self.output.read(n)
        if data:
            self._link.send(self._number, b"A", COUNT.pack(len(data)))
        return data

    async def first_line(self) -> bytes:
        """Return the first line, without its end where it is too long to be one."""
        try:
            return await self.output.readline()
        except ValueError:
            return b""

    async def read_all(self) -> bytes:
        """Return all that comes until the end."""
        read = bytearray()
        while data := await self.read(READ):
            read += data
        return bytes(read)

    def write(self, data: bytes, /) -> None:
        for start in range(0, len(data), READ):
            self._link.send(self._number, b"I", data[start : start + READ])

    async def drain(self) -> None:
        """Wait until what was written is on its way; that the link is lost is told to who reads."""
        with suppress(OSError):
            await self._link.drain()

    def end_input(self) -> None:
        self._link.send(self._number, b"C")

    def close(self) -> None:
        """Have nothing to do with it any more."""
        if not self._closed:
            self._closed = True
            self._link.forget(self._number)

    # ------------------------------------------------------------------------------------ from the link alone

    def receive(self, kind: bytes, content: bytes) -> None:
        if kind == b"O":
            self.output.feed_data(content)
        elif kind == b"E":
            self.stderr += content
            del self.stderr[:-_COMPLAINTS_BYTES]
        else:
            self.output.feed_eof()
            if self.status.done():
                return
            if kind == b"Q":
                self.status.set_result(int(content))
            else:
                self.status.set_exception(SocketRefused(content.decode("utf-8", "replace")))

    def lose(self, lost: LinkLost) -> None:
        self.stderr += lost.stderr
        self.output.feed_eof()
        if not self.status.done():
            self.status.set_exception(lost)


class Link:
    """Begun at once, and kept as long as the event loop runs, whose end cancels the task that keeps it."""

    def __init__(self, container: str) -> None:
        self._argv = ["docker", "exec", "-i", container, "python3", "-ISEc", _program(), f"{_GRACE_S:g}"]
        self._channels: dict[int, Channel] = {}
        self._count = 0
        self._lost: LinkLost | None = None
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.Future[asyncio.subprocess.Process] = self._loop.create_future()
        self._process.add_done_callback(lambda started: started.cancelled() or started.exception())
        self._task = self._loop.create_task(self._keep())

    @property
    def usable(self) -> bool:
        """Whether it stands, or is being made, in the loop that runs now."""
        return self._loop is asyncio.get_running_loop() and not self._task.done()

    async def run(self, argv: Sequence[str]) -> Channel:
        """Start a command. Raises ``OSError`` when docker cannot be started, ``LinkLost``."""
        return await self._begin(b"R", "\0".join(argv).encode())

    async def socket(self, path: str) -> Channel:
        """Open a UNIX socket; whether that works is known with the first answer. Raises as ``run`` does."""
        return await self._begin(b"S", path.encode())

    def send(self, number: int, kind: bytes, content: bytes = b"") -> None:
        """Send a frame; a link that is lost has told so to its channels."""
        if self._process.done() and not self._task.done():
            stdin = self._process.result().stdin
            if stdin is not None and not stdin.is_closing():
                stdin.write(HEAD.pack(number, kind, len(content)) + content)

    async def drain(self) -> None:
        """Wait until what was sent is on its way."""
        if stdin := (await asyncio.shield(self._process)).stdin:
            await stdin.drain()

    def forget(self, number: int) -> None:
        """Let a channel go: what is in it ends, or goes on unheard."""
        if self._channels.pop(number, None) is not None:
            self.send(number, b"D")

    async def _begin(self, kind: bytes, content: bytes) -> Channel:
        await asyncio.shield(self._process)
        if self._lost is not None:
            raise LinkLost(self._lost.stderr)
        self._count += 1
        channel = self._channels[self._count] = Channel(self, self._count)
        self.send(self._count, kind, content)
        return channel

    async def _keep(self) -> None:
        said = b""
        try:
            async with process.child(self._argv) as child:
                self._process.set_result(child)
                said = await self._hear(child)
        except OSError as failed:
            if self._process.done():
                raise
            self._process.set_exception(failed)
        finally:
            self._lost = LinkLost(said)
            if not self._process.done():
                self._process.set_exception(self._lost)
            for channel in self._channels.values():
                channel.lose(self._lost)
            self._channels.clear()

    async def _hear(self, child: asyncio.subprocess.Process) -> bytes:
        """Pass on what comes until the link ends; return what docker then said."""
        if child.stdout is None or child.stderr is None:
            raise RuntimeError("a child has pipes")
        try:
            while True:
                head = await child.stdout.readexactly(HEAD.size)
                number, kind, length = HEAD.unpack(head)
                if kind not in (b"O", b"E", b"Q", b"X") or length > READ:
                    # No relay began: docker tells its own user why, where a relay would speak to us.
                    return head + await child.stdout.read(READ)
                content = await child.stdout.readexactly(length)
                if channel := self._channels.get(number):
                    channel.receive(kind, content)
                    if kind in (b"Q", b"X"):
                        del self._channels[number]
        except asyncio.IncompleteReadError as short:
            return await child.stderr.read() or short.partial

"""An asyncio client for charon's VICI socket.

Commands have no sequence numbers: charon answers those of a connection one after the other, in their order.
So a connection on which a wait ran out, was cancelled or met an error is closed: its late answer would pass
for that of the next command.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ipsecctl.errors import ViciError, ViciRefused
from ipsecctl.patience import PATIENCE
from ipsecctl.vici.codec import Message, register_packet, request_packet, text, unregister_packet
from ipsecctl.vici.protocol import Kind, Received, Receiver

__all__ = ["DEFAULT_TIMEOUT_S", "Client", "connect_unix"]

DEFAULT_TIMEOUT_S = 10.0 * PATIENCE
_READ_BYTES = 1 << 16
_AHEAD = 128
"""How many commands are sent ahead of their answers. charon reads them into a queue for each connection and
works it off in one thread (``process_queue`` of vici_socket.c); so many keep it busy meanwhile, also where
the way there is a relay in a container: more make it no faster."""

_LONGEST = 10
"""How many times its limit a command may take in all whose events keep coming."""


class Reader(Protocol):
    """The part of ``asyncio.StreamReader`` that is needed; raises ``OSError`` when the connection breaks."""

    async def read(self, n: int, /) -> bytes: ...


class Writer(Protocol):
    """The part of ``asyncio.StreamWriter`` that is needed."""

    def write(self, data: bytes, /) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


class Client:
    """A connection to charon over any pair of streams.

    Use it as an async context manager. Several tasks may share it: their commands wait for one another.
    Answers have values of ``str``; with ``raw`` of ``bytes``, as certificates need. Errors of all calls:
    ``ViciError`` when no proper answer comes in ``timeout_s`` seconds (the connection is then closed, and
    says so to whoever uses it again), ``ViciRefused`` when charon says no (the connection stays good),
    ``TypeError`` for values that VICI does not have.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.timeout_s = timeout_s
        self._reader = reader
        self._writer = writer
        self._receiver = Receiver(raw=False)
        self._packets: deque[Received] = deque()
        self._lock = asyncio.Lock()
        self._closed_because = ""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("was closed")

    def close(self, why: str = "was closed") -> None:
        """Close the connection at once; later calls raise ``ViciError`` with ``why``."""
        self._closed_because = self._closed_because or why
        self._writer.close()

    async def command(
        self,
        name: str,
        message: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        raw: bool = False,
    ) -> Message:
        """Send a command and return charon's answer."""
        packet = request_packet(name, message)
        async with self._conversation(name, timeout_s, raw=raw):
            await self._send(packet)
            received, _ = await self._reply(name)
        return _answer(name, received)

    async def commands(
        self, name: str, messages: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> list[Message | ViciRefused]:
        """Send a command once for each message, some ahead of their answers; return these in their order.

        What charon refuses is in its place, and the rest is done all the same. ``timeout_s`` bounds the wait
        for each single answer.
        """
        answers: list[Message | ViciRefused] = []
        sent = 0
        async with self._lock:
            while len(answers) < len(messages):
                async with self._limited(name, timeout_s):
                    if sent - len(answers) <= _AHEAD // 2:  # by halves, so that packets share a write
                        few = messages[sent : len(answers) + _AHEAD]
                        sent += len(few)
                        await self._send(b"".join(request_packet(name, message) for message in few))
                    received, _ = await self._reply(name)
                try:
                    answers.append(_answer(name, received))
                except ViciRefused as refused:
                    answers.append(refused)
        return answers

    async def stream(
        self,
        name: str,
        event: str,
        message: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        raw: bool = False,
    ) -> list[Message]:
        """Send a command that answers in events (``list-sas``: ``list-sa``) and return their messages.

        As long as events come, ``timeout_s`` bounds the wait for the next one, and ten times that the whole:
        what charon has thousands of takes its time.
        """
        return [e.message for e in await self._events(name, event, message, timeout_s, raw=raw)]

    async def stream_undecoded(
        self,
        name: str,
        event: str,
        message: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[bytes]:
        """Do as ``stream``, and return the messages as they came: nobody has looked whether they are any."""
        events = await self._events(name, event, message, timeout_s, undecoded=True)
        return [e.data for e in events]

    async def _events(
        self,
        name: str,
        event: str,
        message: Mapping[str, Any] | None,
        timeout_s: float | None,
        *,
        raw: bool = False,
        undecoded: bool = False,
    ) -> list[Received]:
        packet = request_packet(name, message)
        async with self._conversation(name, timeout_s, raw=raw, undecoded=undecoded) as limit:
            await self._register(event)
            await self._send(packet)
            received, events = await self._reply(name, limit)
            await self._confirmed(unregister_packet(event), event)
        _answer(name, received)
        return [e for e in events if e.event == event]

    async def listen(self, events: Iterable[str], *, quiet_s: float) -> AsyncIterator[tuple[str, Message]]:
        """Yield (name, message) of each event as it comes; ends when none has come for ``quiet_s`` seconds.

        The connection serves nothing else meanwhile and is closed afterwards.
        """
        async with self._lock:
            try:
                async with self._limited("event registration", None):
                    for event in events:
                        await self._register(event)
                while True:
                    try:
                        async with asyncio.timeout(quiet_s):
                            received = await self._receive()
                    except TimeoutError:
                        return
                    if received.kind is not Kind.EVENT:
                        raise ViciError(f"charon sent {received.kind.name} while only events were expected")
                    yield received.event, received.message
            finally:
                self.close("has been used for listening")

    @asynccontextmanager
    async def _conversation(
        self, name: str, timeout_s: float | None, *, raw: bool, undecoded: bool = False
    ) -> AsyncIterator[_Limit]:
        async with self._lock, self._limited(name, timeout_s) as limit:
            self._receiver.raw, self._receiver.undecoded = raw, undecoded
            try:
                yield limit
            finally:
                self._receiver.raw = self._receiver.undecoded = False

    @asynccontextmanager
    async def _limited(self, what: str, timeout_s: float | None) -> AsyncIterator[_Limit]:
        """Bound the waits inside; what ends them early, except charon's own "no", closes the connection."""
        if self._closed_because:
            raise ViciError(f"the connection to charon {self._closed_because}: '{what}' was not sent")
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s) as timer:
                yield _Limit(timer, limit_s)
        except TimeoutError:
            self.close(f"timed out at '{what}'")
            raise ViciError(
                f"charon did not answer '{what}' within {limit_s:.3g} s",
                "It may hang or be overloaded; an answer of more than 512 KiB is never sent either.",
            ) from None
        except ViciRefused:
            raise
        except BaseException:
            self.close(f"broke at '{what}'")
            raise

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as exc:
            raise ViciError(f"the connection to charon broke: {exc}") from exc

    async def _receive(self) -> Received:
        while not self._packets:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as exc:
                raise ViciError(f"the connection to charon broke: {exc}") from exc
            if not data:
                raise self._receiver.eof()
            self._packets.extend(self._receiver.feed(data))
        return self._packets.popleft()

    async def _reply(self, name: str, limit: _Limit | None = None) -> tuple[Received, list[Received]]:
        """Return what is not an event, and the events that came before it, each of which renews a limit."""
        events = []
        while (received := await self._receive()).kind is Kind.EVENT:
            events.append(received)
            if limit is not None:
                limit.renew()
        if received.kind not in (Kind.RESPONSE, Kind.UNKNOWN_COMMAND):
            raise ViciError(f"charon answered '{name}' with {received.kind.name}")
        return received, events

    async def _register(self, event: str) -> None:
        await self._confirmed(register_packet(event), event)

    async def _confirmed(self, packet: bytes, event: str) -> None:
        await self._send(packet)
        while (received := await self._receive()).kind is Kind.EVENT:
            pass  # a straggler of an event that is being given up
        if received.kind is Kind.UNKNOWN_EVENT:
            raise ViciRefused(f"charon does not know the event '{event}'")
        if received.kind is not Kind.CONFIRM:
            raise ViciError(f"charon answered the registration of '{event}' with {received.kind.name}")


class _Limit:
    """The end of a wait: begun anew whenever something has come, but not for ever."""

    def __init__(self, timer: asyncio.Timeout, limit_s: float) -> None:
        self._timer = timer
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._latest = self._loop.time() + _LONGEST * limit_s

    def renew(self) -> None:
        if not self._timer.expired():
            self._timer.reschedule(min(self._latest, self._loop.time() + self._limit_s))


def _answer(name: str, received: Received) -> Message:
    if received.kind is Kind.UNKNOWN_COMMAND:
        raise ViciRefused(f"charon does not know the command '{name}'")
    if received.message.get("success", "yes") not in ("yes", b"yes"):
        reason = _words(received.message.get("errmsg", "")) or "no reason given"
        raise ViciRefused(f"charon refused '{name}': {reason}")
    return received.message


def _words(value: str | bytes) -> str:
    return value if isinstance(value, str) else str(text(value))


@asynccontextmanager
async def connect_unix(path: str | Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> AsyncIterator[Client]:
    """Connect to a VICI socket. Raises ``OSError`` as ``connect(2)`` does, ``ViciError`` when it is late."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
    except TimeoutError:
        raise ViciError(f"no connection to {path} within {timeout_s:.3g} s") from None
    async with Client(reader, writer, timeout_s=timeout_s) as client:
        yield client

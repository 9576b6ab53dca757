"""Sending packets from hosts: one ``wirekit send`` for each host, fed with whole packets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from ipsecctl.errors import CannotTell
from ipsecctl.gateway.process import child
from ipsecctl.patience import PATIENCE
from ipsecctl.probe.capture import WIREKIT, docker_in_words
from ipsecctl.probe.scene import Host

__all__ = ["Sender", "senders"]

_ANSWER_S = 5.0 * PATIENCE
_LAST_WORDS_S = 1.0 * PATIENCE


class Sender:
    """Sends IP packets from one host, exactly as they are."""

    def __init__(self, host: Host, process: asyncio.subprocess.Process) -> None:
        self.host = host
        self._process = process
        self._lock = asyncio.Lock()
        self._gone = ""

    async def send(self, packet: bytes) -> str:
        """Send one packet; return the empty string, or why the host could not send it.

        Raises ``CannotTell`` when the host does not answer at all.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101 - children have pipes
        async with self._lock:
            if self._gone:
                raise CannotTell(self._gone)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    stdin.write(len(packet).to_bytes(2) + packet)
                    await stdin.drain()
                    answer = (await stdout.readline()).strip()
            except TimeoutError as error:
                raise CannotTell(f"host {self.host.node} does not send: no answer") from error
            except OSError:
                answer = b""
            if not answer.isdigit():
                self._gone = await self._why()
                raise CannotTell(self._gone)
        number = int(answer)
        return f"{self.host.node}: {os.strerror(number)}" if number else ""

    async def _why(self) -> str:
        assert self._process.stderr is not None  # noqa: S101 - children have pipes
        said = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                said = await self._process.stderr.read()
        lines = said.decode("utf-8", "replace").strip().splitlines() or ["it ended"]
        why = docker_in_words(lines[-1], self.host.container, self.host.node)
        return f"host {self.host.node} cannot send: {why}"


@asynccontextmanager
async def senders(hosts: Iterable[Host]) -> AsyncIterator[dict[Host, Sender]]:
    """Have a sender on every host; on leaving nothing runs any more."""
    async with AsyncExitStack() as stack:
        ready: dict[Host, Sender] = {}
        for host in sorted(set(hosts)):
            command = ["docker", "exec", "-i", host.container, WIREKIT, "send"]
            try:
                ready[host] = Sender(host, await stack.enter_async_context(child(command)))
            except OSError as error:
                raise CannotTell(f"cannot run docker: {os.strerror(error.errno or 0)}") from error
        yield ready

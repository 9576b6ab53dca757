"""A gateway in a container of a lab, reached with ``docker exec``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ipsecctl.errors import GatewayUnreachable, ViciError
from ipsecctl.gateway import process
from ipsecctl.gateway.handle import Completed
from ipsecctl.gateway.names import VICI_SOCKETS
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client

__all__ = ["Container"]

_DOCKER_FAILURES = frozenset((125, 126, 127))
_CHARON_DOWN = ("Connection refused", "No such file or directory")
_MARGIN_S = 1.0 * PATIENCE


class Container:
    """A container by its name; ``name`` is the gateway's in the topology.

    charon's socket is joined to the standard streams of a ``docker exec`` by socat, which must be in the
    image.
    """

    def __init__(self, name: str, container: str, socket: str = VICI_SOCKETS[0]) -> None:
        self.name = name
        self.container = container
        self._socket = socket

    async def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
    ) -> Completed:
        """Run a command in the container; see ``Handle.run``."""
        # Killing the docker client leaves the command running inside, so it has a limit of its own in there.
        command = self._exec("timeout", "-s", "KILL", f"{timeout_s:g}", *argv)
        try:
            completed = await process.run(command, stdin, timeout_s=timeout_s + _MARGIN_S)
        except TimeoutError:
            raise self._late(argv[0], timeout_s) from None
        except OSError as exc:
            raise self._no_docker(exc) from exc
        if completed.status == 137:
            raise self._late(argv[0], timeout_s)
        if completed.status in (1, *_DOCKER_FAILURES) and (gone := self._gone(completed.stderr)):
            raise gone
        return completed

    @asynccontextmanager
    async def hold(self, argv: Sequence[str], *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[str]:
        """Run a command in the container for as long as the context lasts; see ``Handle.hold``."""
        async with AsyncExitStack() as stack:
            try:
                child = await stack.enter_async_context(process.child(self._exec(*argv)))
                line, stderr = await process.first_line(child, timeout_s=timeout_s)
            except TimeoutError:
                raise self._late(argv[0], timeout_s) from None
            except OSError as exc:
                raise self._no_docker(exc) from exc
            if not line:
                said = stderr.decode("utf-8", "replace").strip() or f"'{argv[0]}' said nothing"
                raise self._gone(stderr) or GatewayUnreachable(self.name, said)
            yield line

    @asynccontextmanager
    async def vici(self, *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[Client]:
        """Connect to the container's charon; see ``Handle.vici``."""
        async with AsyncExitStack() as stack:
            try:
                # After our end is closed socat still waits a moment for charon's last words: -t 0 spares it.
                child = await stack.enter_async_context(
                    process.child(self._exec("socat", "-t", "0", "STDIO", f"UNIX-CONNECT:{self._socket}"))
                )
            except OSError as exc:
                raise self._no_docker(exc) from exc
            yield await self._greet(child, timeout_s)

    async def _greet(self, child: asyncio.subprocess.Process, timeout_s: float) -> Client:
        """Have a first answer, as a connection that was refused shows only then."""
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise RuntimeError("a child has pipes")
        client = Client(child.stdout, child.stdin, timeout_s=timeout_s)
        try:
            await client.command("version")
        except ViciError as exc:
            if not child.stdout.at_eof():
                raise GatewayUnreachable(self.name, exc.summary, exc.hint) from exc
            raise self._why(await child.stderr.read(), exc.summary) from exc
        return client

    def _exec(self, *argv: str) -> list[str]:
        return ["docker", "exec", "-i", self.container, *argv]

    @property
    def lab(self) -> str:
        """The lab that the container is of, by its name (see ``container_name``)."""
        return self.container.removeprefix("ipsecctl-").removesuffix(f"-{self.name}")

    def _why(self, stderr: bytes, otherwise: str) -> GatewayUnreachable:
        """Return what the end of socat or docker means; ``otherwise`` is said where they say nothing."""
        if gone := self._gone(stderr):
            return gone
        said = stderr.decode("utf-8", "replace").strip()
        if any(sign in said for sign in _CHARON_DOWN):
            return GatewayUnreachable(
                self.name,
                f"charon is not running in container {self.container}",
                f"Start it: docker exec {self.container} /usr/lib/ipsecctl-lab/charon start",
                charon_down=True,
            )
        last = said.splitlines()[-1] if said else otherwise
        return GatewayUnreachable(self.name, f"no connection to charon: {last}")

    def _gone(self, stderr: bytes) -> GatewayUnreachable | None:
        """Return what docker itself says against reaching the container, if it does."""
        said = stderr.decode("utf-8", "replace")
        for sign, state, hint in (
            ("No such container", "does not exist", f"Bring the lab up: ipsecctl lab up {self.lab}"),
            ("is not running", "is not running", f"Start it: docker start {self.container}"),
            ("is paused", "is paused", f"Go on with it: docker unpause {self.container}"),
        ):
            if sign in said:
                return GatewayUnreachable(self.name, f"container {self.container} {state}", hint)
        if "Cannot connect to the Docker daemon" in said or "permission denied while trying" in said:
            return GatewayUnreachable(
                self.name, "Docker does not answer", "Is the Docker Engine running, and may you use it?"
            )
        return None

    def _late(self, command: str, timeout_s: float) -> GatewayUnreachable:
        return GatewayUnreachable(self.name, f"'{command}' did not end within {timeout_s:.3g} s")

    def _no_docker(self, exc: OSError) -> GatewayUnreachable:
        return GatewayUnreachable(
            self.name, f"cannot run docker: {os.strerror(exc.errno or 0)}", "Is Docker installed?"
        )

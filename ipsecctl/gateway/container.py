"""A gateway in a container of a lab, reached with ``docker exec``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from ipsecctl.errors import GatewayUnreachable, ViciError
from ipsecctl.gateway import process
from ipsecctl.gateway._container_link import Channel, Link, LinkLost, SocketRefused
from ipsecctl.gateway.handle import GREETING_S, Completed
from ipsecctl.gateway.names import VICI_SOCKETS, reboot_command
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client

__all__ = ["Container"]

_CHARON_DOWN = ("Connection refused", "No such file or directory")
_NODE_STATE = "/run/ipsecctl-lab"
_WAITS = '[ -e "$1/waiting" ] && [ ! -e "$1/ready" ]'
"""Whether a node's first process (labs/image/bin/init) waits to be wired, which docker does not do."""

_MARGIN_S = 1.0 * PATIENCE


class Container:
    """A container by its name; ``name`` is the gateway's in the topology.

    ``lab_place`` is by what ``ipsecctl lab up`` finds its lab, where it is not the lab's name.

    All that is done there goes through one ``docker exec``, which lasts as long as the event loop; python3
    must be in the image.
    """

    def __init__(
        self, name: str, container: str, socket: str = VICI_SOCKETS[0], *, lab_place: str = ""
    ) -> None:
        self.name = name
        self._lab_place = lab_place
        self.container = container
        self._socket = socket
        self._link: Link | None = None
        self._held: list[Link] = []

    async def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
    ) -> Completed:
        """Run a command in the container; see ``Handle.run``."""
        # Nobody there ends what nobody waits for any more, so it has a limit of its own.
        limited = ("timeout", "-s", "KILL", f"{timeout_s:g}", *argv)
        async with self._channel(argv[0], timeout_s + _MARGIN_S, timeout_s) as link:
            channel = await link.run(limited)
            try:
                channel.write(stdin)
                channel.end_input()
                output = await channel.read_all()
                status = await channel.status
            finally:
                channel.close()
        if status == 137:
            raise self._late(argv[0], timeout_s)
        return Completed(status, output, bytes(channel.stderr))

    @asynccontextmanager
    async def hold(self, argv: Sequence[str], *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[str]:
        """Run a command in the container for as long as the context lasts; see ``Handle.hold``."""
        async with AsyncExitStack() as stack:
            async with self._channel(argv[0], timeout_s, timeout_s) as link:
                channel = await link.run(argv)
                stack.push_async_callback(_let_go, channel)
                line = (await channel.first_line()).decode("utf-8", "replace").strip()
                if not line:
                    await channel.status
            if not line:
                said = channel.stderr.decode("utf-8", "replace").strip() or f"'{argv[0]}' said nothing"
                raise GatewayUnreachable(self.name, said)
            self._held.append(link)
            stack.callback(self._held.remove, link)
            yield line

    @asynccontextmanager
    async def vici(self, *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[Client]:
        """Connect to the container's charon; see ``Handle.vici``."""
        async with self._channel("charon's socket", timeout_s, timeout_s) as link:
            channel = await link.socket(self._socket)
        async with Client(channel, channel, timeout_s=timeout_s) as client:
            await self._greet(client, channel)
            yield client

    async def _greet(self, client: Client, channel: Channel) -> None:
        """Have a first answer, as a connection that was refused shows only then."""
        try:
            await client.command("version", timeout_s=min(client.timeout_s, GREETING_S))
        except ViciError as exc:
            if not channel.status.done():
                silent = GatewayUnreachable(self.name, exc.summary, exc.hint)
                raise await self._paused() or silent from exc
            try:
                await channel.status
            except LinkLost as lost:
                raise self._why(lost.stderr) from exc
            except SocketRefused as refused:
                raise await self._refused(str(refused)) from exc
            raise GatewayUnreachable(self.name, f"no connection to charon: {exc.summary}", exc.hint) from exc

    @asynccontextmanager
    async def _channel(self, what: str, within_s: float, limit_s: float) -> AsyncIterator[Link]:
        """Use the link for at most ``within_s`` seconds; what goes wrong with it is told in our words."""
        try:
            async with asyncio.timeout(within_s):
                if not all(link.usable for link in self._held):
                    raise GatewayUnreachable(
                        self.name, "the connection broke, and what it held is held no more"
                    )
                if self._link is None or not self._link.usable:
                    self._link = Link(self.container)
                yield self._link
        except TimeoutError:
            raise await self._paused() or self._late(what, limit_s) from None
        except OSError as exc:
            raise self._no_docker(exc) from exc
        except LinkLost as lost:
            raise self._why(lost.stderr) from None

    async def _paused(self) -> GatewayUnreachable | None:
        """Return why a link that stands is silent, if docker knows."""
        with suppress(TimeoutError, OSError):
            asked = ("docker", "exec", self.container, "true")
            return self._gone((await process.run(asked, b"", timeout_s=2 * _MARGIN_S)).stderr)
        return None

    @property
    def lab(self) -> str:
        """The lab that the container is of, by its name (see ``container_name``)."""
        return self.container.removeprefix("ipsecctl-").removesuffix(f"-{self.name}")

    @property
    def _place(self) -> str:
        return self._lab_place or self.lab

    async def _refused(self, why: str) -> GatewayUnreachable:
        """Return what it means that charon's socket cannot be opened."""
        if why in _CHARON_DOWN:
            with suppress(GatewayUnreachable):  # without an answer it is the one that is more often right
                waits = await self.run(("sh", "-c", _WAITS, "waits", _NODE_STATE), timeout_s=GREETING_S)
                if waits.status == 0:
                    return GatewayUnreachable(
                        self.name,
                        f"container {self.container} was started without its links, and waits for them",
                        f"Start it with them: {reboot_command(self.container, self.name)}",
                    )
            return GatewayUnreachable(
                self.name,
                f"charon is not running in container {self.container}",
                f"Start it: docker exec {self.container} /usr/lib/ipsecctl-lab/charon start",
                charon_down=True,
            )
        return GatewayUnreachable(self.name, f"no connection to charon: {why}")

    def _why(self, stderr: bytes) -> GatewayUnreachable:
        """Return what the end of the connection means."""
        if gone := self._gone(stderr):
            return gone
        said = stderr.decode("utf-8", "replace").strip()
        last = said.splitlines()[-1] if said else "the connection ended without a word"
        return GatewayUnreachable(self.name, f"no connection to container {self.container}: {last}")

    def _gone(self, stderr: bytes) -> GatewayUnreachable | None:
        """Return what docker itself says against reaching the container, if it does."""
        said = stderr.decode("utf-8", "replace")
        for sign, state, hint in (
            ("No such container", "does not exist", f"Bring the lab up: ipsecctl lab up {self._place}"),
            ("is not running", "is not running", f"Start it: {reboot_command(self.container, self.name)}"),
            ("is paused", "is paused", f"Go on with it: docker unpause {self.container}"),
            ("executable file not found", "has no python3", "Labs' images have it: labs/setup makes them."),
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


async def _let_go(channel: Channel) -> None:
    """End the input of what was held, give it a moment to end, and see to it that it has ended."""
    channel.end_input()
    try:
        with suppress(TimeoutError, LinkLost):
            async with asyncio.timeout(_MARGIN_S):
                await asyncio.shield(channel.status)
    finally:
        channel.close()

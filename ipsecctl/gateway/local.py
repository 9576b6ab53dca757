"""The gateway that this host is."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from ipsecctl.errors import GatewayUnreachable, ViciError
from ipsecctl.gateway import process
from ipsecctl.gateway.handle import GREETING_S, Completed
from ipsecctl.gateway.names import VICI_SOCKETS
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client, connect_unix

__all__ = ["LocalHost"]

_NOT_RUNNING = frozenset((errno.ENOENT, errno.ECONNREFUSED))


class LocalHost:
    """This host, as the user who runs us; charon's socket is at one of ``sockets``."""

    def __init__(self, name: str, sockets: Sequence[str] = VICI_SOCKETS) -> None:
        self.name = name
        self._sockets = tuple(sockets)

    async def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
    ) -> Completed:
        """Run a command here; see ``Handle.run``."""
        try:
            return await process.run(argv, stdin, timeout_s=timeout_s)
        except TimeoutError:
            raise GatewayUnreachable(self.name, f"'{argv[0]}' did not end within {timeout_s:.3g} s") from None
        except OSError as exc:
            raise GatewayUnreachable(self.name, f"cannot run '{argv[0]}': {exc.strerror}") from exc

    @asynccontextmanager
    async def hold(self, argv: Sequence[str], *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[str]:
        """Run a command here for as long as the context lasts; see ``Handle.hold``."""
        async with AsyncExitStack() as stack:
            try:
                child = await stack.enter_async_context(process.child(argv))
                line, stderr = await process.first_line(child, timeout_s=timeout_s)
            except TimeoutError:
                raise GatewayUnreachable(
                    self.name, f"'{argv[0]}' said nothing within {timeout_s:.3g} s"
                ) from None
            except OSError as exc:
                raise GatewayUnreachable(self.name, f"cannot run '{argv[0]}': {exc.strerror}") from exc
            if not line:
                said = stderr.decode("utf-8", "replace").strip() or f"'{argv[0]}' said nothing"
                raise GatewayUnreachable(self.name, said)
            yield line

    @asynccontextmanager
    async def vici(self, *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[Client]:
        """Connect to this host's charon; see ``Handle.vici``."""
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(connect_unix(self._socket(), timeout_s=timeout_s))
                await client.command("version", timeout_s=min(client.timeout_s, GREETING_S))
            except ViciError as exc:
                raise GatewayUnreachable(self.name, exc.summary, exc.hint) from exc
            except OSError as exc:
                raise self._refused(exc) from exc
            yield client

    def _socket(self) -> str:
        there = (path for path in self._sockets if os.path.exists(path))  # noqa: PTH110
        return next(there, self._sockets[0])

    def _refused(self, exc: OSError) -> GatewayUnreachable:
        if exc.errno in _NOT_RUNNING:
            return GatewayUnreachable(
                self.name,
                "charon is not running on this host",
                "Start it (systemctl start strongswan) and look into its log if it does not stay.",
                charon_down=True,
            )
        hint = "Run ipsecctl as root." if exc.errno in (errno.EACCES, errno.EPERM) else ""
        return GatewayUnreachable(self.name, f"no access to charon's socket: {exc.strerror}", hint)

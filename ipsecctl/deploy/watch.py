"""Keep an eye on several gateways at once: one VICI connection each, looked through again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from ipsecctl.errors import GatewayUnreachable, IpsecctlError, ViciError
from ipsecctl.gateway import Handle, LiveView, list_connections
from ipsecctl.vici import Client

__all__ = ["Watch", "watch"]


class Watch:
    """Open connections to gateways; one that fails counts as not reachable from then on."""

    def __init__(self, timeout_s: float) -> None:
        self.views: dict[str, LiveView | GatewayUnreachable] = {}
        self._timeout_s = timeout_s
        self._clients: dict[str, Client] = {}
        self._known: dict[str, tuple[str, frozenset[str]]] = {}
        self._closing = asyncio.Event()

    async def hold(self, handle: Handle, ready: asyncio.Event) -> None:
        """Keep one gateway's connection until ``close``; sets ``ready`` once it is there, or known not to be."""
        try:
            async with handle.vici(timeout_s=self._timeout_s) as client:
                version = await client.command("version")
                connections = frozenset(await list_connections(client))
                self._known[handle.name] = (version.get("version", ""), connections)
                self._clients[handle.name] = client
                ready.set()
                await self._closing.wait()
        except GatewayUnreachable as error:
            self.views[handle.name] = error
        except ViciError as error:
            self.views[handle.name] = GatewayUnreachable(handle.name, error.summary, error.hint)
        finally:
            ready.set()

    def close(self) -> None:
        self._closing.set()

    def client(self, gateway: str) -> Client | None:
        """Return the connection to a gateway, ``None`` when it is not reachable."""
        return self._clients.get(gateway)

    async def look(self, gateways: Iterable[str]) -> Mapping[str, LiveView | GatewayUnreachable]:
        """Look at some gateways now, side by side; return what is known of all."""
        async with asyncio.TaskGroup() as group:
            for gateway in gateways:
                if gateway in self._clients:
                    group.create_task(self._look(gateway, self._clients[gateway]))
        return self.views

    async def _look(self, gateway: str, client: Client) -> None:
        version, connections = self._known[gateway]
        try:
            sas = await client.stream("list-sas", "list-sa", {"noblock": "yes"})
        except IpsecctlError as error:
            del self._clients[gateway]
            self.views[gateway] = GatewayUnreachable(gateway, error.summary, error.hint)
        else:
            self.views[gateway] = LiveView(gateway, version, tuple(sas), connections)


@asynccontextmanager
async def watch(handles: Mapping[str, Handle], *, timeout_s: float = 4.0) -> AsyncIterator[Watch]:
    """Connect to gateways side by side; ``timeout_s`` bounds each single answer."""
    watched = Watch(timeout_s)
    async with asyncio.TaskGroup() as group:
        waits = [asyncio.Event() for _ in handles]
        for handle, ready in zip(handles.values(), waits, strict=True):
            group.create_task(watched.hold(handle, ready))
        for ready in waits:
            await ready.wait()
        try:
            yield watched
        finally:
            watched.close()

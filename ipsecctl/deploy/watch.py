"""Keep an eye on several gateways at once: one VICI connection each, looked through again and again."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress

from ipsecctl.errors import GatewayUnreachable, IpsecctlError, ViciError
from ipsecctl.gateway import Handle, LiveView, ike_sas, list_connections
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client, Message

__all__ = ["BUSY_S", "Watch", "watch"]

BUSY_S = 1.0 * PATIENCE
"""How long what charon may be busy with is waited for, before it counts as not there."""

_LOOK_AGAIN_S = 0.05

_COMPLAINT = re.compile(
    r"notify|failed|giving up|not responding|no (matching|shared|trusted|acceptable|private|proposal)"
    r"|not found|mismatch|unacceptable|rejected|unable|constraint|duplicate|PPK required"
)


class Watch:
    """Open connections to gateways; one that fails counts as not reachable from then on."""

    def __init__(self, timeout_s: float, group: asyncio.TaskGroup) -> None:
        self._group = group
        self.views: dict[str, LiveView | GatewayUnreachable] = {}
        self._timeout_s = timeout_s
        self._clients: dict[str, Client] = {}
        self._known: dict[str, tuple[str, frozenset[str]]] = {}
        self._closing = asyncio.Event()
        self._handles: dict[str, Handle] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._complaints: dict[tuple[str, str], str] = {}

    def listen(self, gateways: Iterable[str]) -> None:
        """Begin to follow charon's log on gateways where that is not done yet, each on a second connection.

        The log costs charon more than a look at its SAs: it is for tunnels that do not come up by themselves.
        """
        for gateway in gateways:
            if gateway in self._clients and gateway not in self._listening:
                self._listening[gateway] = self._group.create_task(self._listen(self._handles[gateway]))

    def complaint(self, gateway: str, tunnel: str) -> str:
        """Return the last thing that charon complained about for a tunnel, "" if nothing."""
        return self._complaints.get((gateway, tunnel), "")

    async def _listen(self, handle: Handle) -> None:
        with suppress(IpsecctlError):  # what it could have told would have been a help, no more
            async with handle.vici(timeout_s=self._timeout_s) as client:
                async for _, message in client.listen(("log",), quiet_s=math.inf):
                    tunnel, said = message.get("ikesa-name", ""), message.get("msg", "")
                    if tunnel and _COMPLAINT.search(said):
                        self._complaints[handle.name, tunnel] = said

    async def hold(self, handle: Handle, ready: asyncio.Event) -> None:
        """Keep a gateway's connection until ``close``; ``ready`` is set when it stands, or cannot."""
        self._handles[handle.name] = handle
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
        """Let all connections go."""
        self._closing.set()
        for task in self._listening.values():
            task.cancel()

    def loaded(self, gateway: str, connections: Iterable[str]) -> None:
        """Note connections that were loaded since we look at a gateway."""
        version, known = self._known[gateway]
        self._known[gateway] = (version, known | {*connections})

    def client(self, gateway: str) -> Client | None:
        """Return the connection to a gateway, ``None`` when it is not reachable."""
        return self._clients.get(gateway)

    async def look(
        self, gateways: Iterable[str], *, wait: bool = False
    ) -> Mapping[str, LiveView | GatewayUnreachable]:
        """Look at some gateways now, side by side; return what is known of all.

        An IKE_SA that charon is busy with is left out by it, unless we ``wait`` for that.
        """
        async with asyncio.TaskGroup() as group:
            for gateway in gateways:
                if gateway in self._clients:
                    group.create_task(self._look(gateway, self._clients[gateway], wait))
        return self.views

    async def sas(self, gateway: str, tunnels: Iterable[str] = ()) -> list[Message] | None:
        """Return the IKE_SAs of some ``tunnels``, or all, as ``list-sas`` sends them.

        Those are among them that charon is busy with. ``None`` where the gateway does not answer.
        """
        client = self._clients.get(gateway)
        if client is None:
            return None
        asked: list[dict[str, str]] = [{"ike": name} for name in tunnels] or [{}]
        try:
            return [sa for what in asked for sa in await client.stream("list-sas", "list-sa", what)]
        except IpsecctlError as error:
            self._lost(gateway, error)
            return None

    async def left_out(self, gateways: Iterable[str]) -> frozenset[str]:
        """Return the gateways whose charon has more IKE_SAs than it listed in the last look.

        It leaves out those that a thread of its works on, as in every rekey, or that somebody else lists at
        that moment. What is missing in such a list may well be there.
        """
        found = set()

        async def one(gateway: str, client: Client) -> None:
            try:
                there = ike_sas(await client.command("stats"))
            except IpsecctlError as error:
                self._lost(gateway, error)
                return
            view = self.views.get(gateway)
            if there is not None and isinstance(view, LiveView) and there > len(view.sas):
                found.add(gateway)

        async with asyncio.TaskGroup() as group:
            for gateway in gateways:
                if gateway in self._clients:
                    group.create_task(one(gateway, self._clients[gateway]))
        return frozenset(found)

    async def look_well(self, gateways: Iterable[str]) -> Mapping[str, LiveView | GatewayUnreachable]:
        """Look at gateways until none leaves an IKE_SA out, for at most ``BUSY_S``; return what is known.

        charon is not made to wait for what it is busy with: it may be for long, as with a name to resolve.
        """
        deadline = time.monotonic() + BUSY_S
        wanted = frozenset(gateways)
        while wanted:
            await self.look(wanted)
            wanted = await self.left_out(wanted)
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_AGAIN_S if wanted else 0)
        return self.views

    def _lost(self, gateway: str, error: IpsecctlError) -> None:
        self._clients.pop(gateway, None)
        self.views[gateway] = GatewayUnreachable(gateway, error.summary, error.hint)

    async def _look(self, gateway: str, client: Client, wait: bool) -> None:
        version, connections = self._known[gateway]
        how = {} if wait else {"noblock": "yes"}
        try:
            sas = await client.stream("list-sas", "list-sa", how)
        except IpsecctlError as error:
            self._lost(gateway, error)
        else:
            self.views[gateway] = LiveView(gateway, version, tuple(sas), connections)


@asynccontextmanager
async def watch(handles: Mapping[str, Handle], *, timeout_s: float = 4.0 * PATIENCE) -> AsyncIterator[Watch]:
    """Connect to gateways side by side; ``timeout_s`` bounds each single answer."""
    async with asyncio.TaskGroup() as group:
        watched = Watch(timeout_s, group)
        waits = [asyncio.Event() for _ in handles]
        for handle, ready in zip(handles.values(), waits, strict=True):
            group.create_task(watched.hold(handle, ready))
        for ready in waits:
            await ready.wait()
        try:
            yield watched
        finally:
            watched.close()

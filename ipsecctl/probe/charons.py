"""Asking the charons of both ends, before and after, over one connection each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from ipsecctl.desired import Means
from ipsecctl.errors import CannotTell, GatewayUnreachable, ViciRefused
from ipsecctl.gateway import Charon, Handle
from ipsecctl.health import IkeSa, parse_list_sas
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import DataPath
from ipsecctl.vici import Client

__all__ = ["Charons", "charons"]

_TIMEOUT_S = 4.0 * PATIENCE


class Charons:
    """Connections to gateways' charons.

    ``means`` and ``data_paths`` are by gateway name, for those that answered; ``unasked`` says why others did
    not.
    """

    def __init__(self) -> None:
        self.means: dict[str, Means] = {}
        self.unasked: dict[str, str] = {}
        self._clients: dict[str, Client] = {}

    @property
    def data_paths(self) -> dict[str, DataPath]:
        return {name: means.data_path for name, means in self.means.items()}

    async def connect(self, handle: Handle, stack: AsyncExitStack) -> None:
        """Connect to one gateway, or note why that cannot be."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                client = await stack.enter_async_context(handle.vici(timeout_s=_TIMEOUT_S))
                plugins = (await client.command("stats")).get("plugins", [])
                version = (await client.command("version")).get("version", "")
        except TimeoutError:
            self.unasked[handle.name] = f"{handle.name}: charon does not answer within {_TIMEOUT_S:g} s"
        except GatewayUnreachable as error:
            self.unasked[handle.name] = error.summary
        except (CannotTell, ViciRefused) as error:
            self.unasked[handle.name] = f"{handle.name}: {error.summary}"
        else:
            libipsec = "kernel-libipsec" in plugins
            path = DataPath.LIBIPSEC if libipsec else DataPath.KERNEL
            self.means[handle.name] = Means(path, version=Charon(str(version)).version_numbers or None)
            self._clients[handle.name] = client

    async def sas(self) -> dict[str, tuple[IkeSa, ...]]:
        """Return the IKE_SAs of every gateway that answers, by its name."""
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._list(name)) for name in sorted(self._clients)}
        return {name: task.result() for name, task in asked.items() if name not in self.unasked}

    async def _list(self, name: str) -> tuple[IkeSa, ...]:
        try:
            # Waiting for what charon is busy with: "noblock" leaves those IKE_SAs out, and an SA that is not
            # in the later list would count as one that carried nothing.
            return parse_list_sas(await self._clients[name].stream("list-sas", "list-sa", {}))
        except (CannotTell, ViciRefused) as error:
            self.unasked[name] = f"{name}: {error.summary}"
            return ()


@asynccontextmanager
async def charons(handles: Mapping[str, Handle]) -> AsyncIterator[Charons]:
    """Be connected to the charon of every gateway that can be reached; nobody else's absence is an error."""
    async with AsyncExitStack() as stack:
        connected = Charons()
        async with asyncio.TaskGroup() as group:
            for handle in handles.values():
                group.create_task(connected.connect(handle, stack))
        yield connected

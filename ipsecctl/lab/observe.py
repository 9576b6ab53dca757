"""Look at labs as they are: containers by their labels, addresses and charon by asking inside."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from ipsecctl.errors import IpsecctlError, LabError
from ipsecctl.gateway.handle import Completed
from ipsecctl.gateway.names import container_name
from ipsecctl.lab import docker
from ipsecctl.lab.script import LOOK, read_look
from ipsecctl.lab.wiring import Role
from ipsecctl.patience import PATIENCE

__all__ = ["LabStatus", "NodeStatus", "look", "look_all", "node_status", "shell", "side_by_side"]

_LOOK_S = 8.0 * PATIENCE
_PARALLEL = 16
_DOCKERS_INTERFACE = "eth"
_ORDER = {
    str(role): position for position, role in enumerate((Role.INTERNET, Role.NAT, Role.GATEWAY, Role.HOST))
}

T = TypeVar("T")


@dataclass(frozen=True, order=True, slots=True)
class NodeStatus:
    """A node as it is.

    ``state`` is its container's: ``running``, ``exited``, ``paused`` and so on; or ``not wired`` for one that
    was started again behind the lab's back, and so has Docker's interfaces in place of the lab's. For the
    rest see :class:`~ipsecctl.lab.script.Seen`; a node that could not be asked has ``unknown`` there.
    """

    name: str
    role: str
    state: str
    charon: str
    data_path: str
    addresses: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def healthy(self) -> bool:
        return self.state == "running" and self.charon in ("running", "-")


@dataclass(frozen=True, slots=True)
class LabStatus:
    """A lab as it is; ``nodes`` in the order internet, NAT boxes, gateways, hosts, none when it is not up."""

    lab: str
    nodes: tuple[NodeStatus, ...]

    @property
    def healthy(self) -> bool:
        return bool(self.nodes) and all(node.healthy for node in self.nodes)


async def look(lab: str) -> LabStatus:
    """Return the status of a lab; raises ``LabError`` when Docker does not answer."""
    there = await docker.containers(lab)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_look_at(container)) for container in there]
    nodes = sorted((task.result() for task in tasks), key=lambda n: (_ORDER.get(n.role, 9), n.name))
    return LabStatus(lab, tuple(nodes))


async def look_all() -> tuple[LabStatus, ...]:
    """Return the status of every lab that is on this machine, sorted by name."""
    names = sorted({container.lab for container in await docker.containers()})
    return tuple([await look(name) for name in names])


async def _look_at(container: docker.Container) -> NodeStatus:
    unknown = "unknown" if container.role == Role.GATEWAY else "-"
    blind = NodeStatus(container.node, container.role, container.state, unknown, unknown)
    if not container.running:
        return blind
    try:
        completed = await shell(
            container_name(container.lab, container.node), LOOK, container.role, timeout_s=_LOOK_S
        )
        return node_status(container.node, container.role, completed)
    except LabError:
        return blind


def node_status(name: str, role: str, completed: Completed) -> NodeStatus:
    """Return what a running node said to ``LOOK``; raises ``LabError`` when that cannot be read."""
    seen = read_look(completed.stdout.decode("utf-8", "replace"))
    addresses = sorted(seen.addresses.items(), key=lambda item: (item[0] != "wan", item[0]))
    wired = not any(interface.startswith(_DOCKERS_INTERFACE) for interface in seen.addresses)
    state = "running" if wired else "not wired"
    return NodeStatus(name, role, state, seen.charon, seen.data_path, tuple(addresses))


async def shell(
    container: str, script: str, *arguments: str, timeout_s: float, privileged: bool = False
) -> Completed:
    """Run a shell script in a container; any exit status is an answer."""
    argv = ["sh", "-s", *arguments]
    return await docker.execute(container, argv, script.encode(), timeout_s=timeout_s, privileged=privileged)


async def side_by_side(summary: str, hint: str, work: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    """Run work concurrently; return its results in order, or raise one ``LabError`` with every failure."""
    limit = asyncio.Semaphore(_PARALLEL)

    async def kept(one: Coroutine[Any, Any, T]) -> T | IpsecctlError:
        async with limit:
            try:
                return await one
            except IpsecctlError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(kept(one)) for one in work]
    outcomes = [task.result() for task in tasks]
    errors = [outcome for outcome in outcomes if isinstance(outcome, IpsecctlError)]
    if errors:
        raise LabError("\n  ".join([f"{summary}:", *(error.summary for error in errors)]), hint)
    return tuple(outcome for outcome in outcomes if not isinstance(outcome, IpsecctlError))

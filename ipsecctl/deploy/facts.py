"""Ask gateways of a topology what they are and can do; hold it against what the topology asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from ipsecctl.desired import compile_topology
from ipsecctl.errors import CannotTell, IpsecctlError
from ipsecctl.gateway import Capabilities, Lack, capabilities, lacks, needs_of, reach
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import Gateway, Topology

__all__ = ["GatewayFacts", "gather_facts"]

_SIDE_BY_SIDE = 16


@dataclass(frozen=True, slots=True)
class GatewayFacts:
    """A gateway and what was found; ``found`` is ``None`` when it could not be asked, for ``error``."""

    name: str
    found: Capabilities | None
    lacking: tuple[Lack, ...] = ()
    error: IpsecctlError | None = None

    @property
    def exit_status(self) -> int:
        """0 when nothing is lacking for certain, 1 when something is, 3 when it could not be asked."""
        if self.found is None:
            return CannotTell.exit_status
        return 1 if any(lack.certain for lack in self.lacking) else 0


async def gather_facts(
    topology: Topology,
    gateways: Iterable[Gateway],
    *,
    lab: str | None = None,
    timeout_s: float = 30.0 * PATIENCE,
) -> tuple[GatewayFacts, ...]:
    """Ask these managed gateways side by side, ``timeout_s`` seconds each at most; sorted by name.

    ``lab``: the gateways are the containers of that lab.
    """
    states = {state.name: state for state in compile_topology(topology)}
    bound = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(gateway: Gateway) -> GatewayFacts:
        try:
            async with bound:
                found = await capabilities(reach(gateway, topology.name, lab), timeout_s=timeout_s)
        except IpsecctlError as error:
            return GatewayFacts(gateway.name, None, error=error)
        needs = needs_of(states[gateway.name], gateway.data_path)
        return GatewayFacts(gateway.name, found, lacks(found, needs))

    return tuple(await asyncio.gather(*(one(g) for g in sorted(gateways, key=lambda g: g.name))))

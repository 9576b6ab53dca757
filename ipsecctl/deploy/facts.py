"""Ask gateways of a topology what they are and can do; hold it against what the topology asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ipsecctl.desired import GatewayState, Means, compile_topology
from ipsecctl.errors import CannotTell, IpsecctlError
from ipsecctl.gateway import Capabilities, Lack, capabilities, lacks, needs_of, reach, unknown_options
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import DataPath, Gateway, Topology

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
        """0 when nothing stops its tunnels for certain, 1 when something does, 3 when it was not asked."""
        if self.found is None:
            return CannotTell.exit_status
        return 1 if any(lack.stops for lack in self.lacking) else 0


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
    bound = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(gateway: Gateway) -> Capabilities | IpsecctlError:
        try:
            async with bound:
                return await capabilities(reach(gateway, topology, lab), timeout_s=timeout_s)
        except IpsecctlError as error:
            return error

    asked = sorted(gateways, key=lambda gateway: gateway.name)
    answers = await asyncio.gather(*(one(gateway) for gateway in asked))
    found = {answer.gateway: answer for answer in answers if isinstance(answer, Capabilities)}
    means = {name: _means(capable) for name, capable in found.items()}
    states = {state.name: state for state in compile_topology(topology, means)}
    return tuple(
        GatewayFacts(gateway.name, answer, tuple(_lacking(answer, gateway, states)))
        if isinstance(answer, Capabilities)
        else GatewayFacts(gateway.name, None, error=answer)
        for gateway, answer in zip(asked, answers, strict=True)
    )


def _means(found: Capabilities) -> Means:
    """Return what a topology's meaning hangs on, so that ``auto`` is what it would be there."""
    interfaces = found.kernel.xfrm_interfaces
    return Means(
        data_path=found.data_path or DataPath.AUTO,
        xfrm_interfaces=True if interfaces.yes else False if interfaces.no else None,
        version=(found.charon.version_numbers or None) if found.charon else None,
    )


def _lacking(found: Capabilities, gateway: Gateway, states: Mapping[str, GatewayState]) -> Iterator[Lack]:
    """Yield what a gateway lacks: words that its charon does not know, then what it cannot do."""
    state = states[gateway.name]
    if found.charon is not None:
        yield from unknown_options(state, found.charon.version)
    yield from lacks(found, needs_of(state, gateway.data_path, states))

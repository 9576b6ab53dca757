"""CHILD_SAs that charon believes in alone: somebody took from the kernel what carries them."""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.gateway import NotInKernel

__all__ = ["kernel_causes", "kernel_lacks"]

_SHOWN = 3


def kernel_causes(gateway: str, missing: Iterable[NotInKernel]) -> list[str]:
    """Return what the kernel of a gateway lacks of a child's SAs, each thing once, and how to mend it.

    What concerns all that goes through charon's device, with or without SAs, is told elsewhere.
    """
    missing = tuple(sa for sa in missing if not sa.device)
    causes = []
    if sas := [name for sa in missing for name in sa.sas]:
        causes.append(f"the kernel does not have the SAs that charon believes in ({_listed(sas)})")
    # Without its SAs policies alone would change nothing: one cause is enough.
    elif policies := [name for sa in missing for name in sa.policies]:
        causes.append(f"the kernel does not have the IPsec policies of its SAs ({_listed(policies)})")
    if routes := [name for sa in missing for name in sa.routes]:
        causes.append(f"charon's routes through ipsec0 are not there ({_listed(routes)})")
    return [f"{gateway}: {cause}: apply the topology, which makes the SAs anew" for cause in causes]


def kernel_lacks(missing: Iterable[NotInKernel], spi_in: str) -> list[str]:
    """Return what the kernel lacks of one CHILD_SA, each thing in words."""
    return [
        *(f"SA {name}" for sa in missing if sa.spi_in == spi_in for name in sa.sas),
        *(f"policy {name}" for sa in missing if sa.spi_in == spi_in for name in sa.policies),
        *(f"route {name}" for sa in missing if sa.spi_in == spi_in for name in sa.routes),
        *(f"rule for IPv{family}" for sa in missing if sa.spi_in == spi_in for family in sa.unruled),
        *(f"device (it is {sa.device})" for sa in missing if sa.spi_in == spi_in and sa.device),
    ]


def _listed(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""Why the SAs of a connection must be made anew: the kernel lacks what charon believes in."""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.gateway import NotInKernel
from ipsecctl.gateway.device import DOWN, GONE
from ipsecctl.plan.reasons import Drift

__all__ = ["kernel_reasons"]

_NO_SAS = Drift("the kernel does not have its SAs, which charon believes in: they are made anew")
_NO_POLICIES = Drift("the kernel does not have the IPsec policies of its SAs: they are made anew")
_NO_DEVICE = Drift("charon's device ipsec0 is gone, and its SAs carry nothing: they are made anew")
_NO_ROUTES = Drift(
    "charon's routes through ipsec0 are not there: its SAs are made anew, and the routes with them"
)


def kernel_reasons(missing: Iterable[NotInKernel], connection: str) -> tuple[str, ...]:
    """Return what the kernel lacks of the SAs of a connection; empty when it lacks nothing."""
    missing = [sa for sa in missing if sa.tunnel == connection]
    if any(sa.sas for sa in missing):
        return (_NO_SAS,)
    if any(sa.device == GONE for sa in missing):
        return (_NO_DEVICE,)
    missing = [sa for sa in missing if sa.device != DOWN]  # its routes come back with it
    policies = (_NO_POLICIES,) if any(sa.policies for sa in missing) else ()
    return policies + ((_NO_ROUTES,) if any(sa.routes for sa in missing) else ())

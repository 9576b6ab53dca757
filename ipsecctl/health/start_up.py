"""Tunnels of a charon that runs with other options than were applied: it reads some only when it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ipsecctl.crypto import LIBIPSEC_MTU

__all__ = ["start_up_causes"]

_ROUTE_MTU: Final = "kernel-netlink.mtu"


def start_up_causes(
    gateway: str, mtu: int | None, pending: Mapping[str, tuple[str, str]], restart: str
) -> Iterator[str]:
    """Yield why a tunnel of a gateway is not proven right as charon there runs, at most one cause.

    ``pending`` are the options that charon has not read (``StartUp.pending``), ``restart`` how it is
    restarted. ``mtu`` (bytes) is what the tunnel carries where charon's routes must say so, as on its own
    data path; elsewhere ``None``: charon's options concern it only as far as they choose another data path.
    """
    lets_in = _lets_in(pending.get(_ROUTE_MTU, ("", ""))[0])
    too_large = mtu is not None and _ROUTE_MTU in pending and lets_in > mtu
    others = [name for name in pending if name != _ROUTE_MTU]
    if not others and not too_large:
        return
    named = [*others, _ROUTE_MTU] if too_large else others
    wanted = ", ".join(f"{name}: {pending[name][1] or 'default'} wanted" for name in sorted(named))
    effect = f": packets over {mtu} bytes may be lost" if too_large else ""
    how = f"restart charon: {restart}" if restart else "restart charon"
    yield f"charon on {gateway} runs with other options than applied ({wanted}){effect}; {how}"


def _lets_in(running: str) -> int:
    """Return how large a packet charon's device lets in, with the MTU on its routes that charon has read."""
    return min(LIBIPSEC_MTU, int(running)) if running.isdecimal() and int(running) else LIBIPSEC_MTU

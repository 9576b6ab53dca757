"""Which way packets take at each gateway: whose data path, by policies or by interfaces, in UDP or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ipsecctl.desired.means import Means, Version
from ipsecctl.desired.versions import Knows, knows
from ipsecctl.topology import DataPath, End, Gateway, Mode, Tunnel

__all__ = ["Ways"]

_NOT_KNOWN = Means()


class Ways:
    """What is left open in a topology (``auto``), decided by what the gateways have.

    What is not known gives the conservative choice: the kernel's data path, and policies.
    """

    def __init__(self, gateways: Iterable[Gateway], means: Mapping[str, Means]) -> None:
        self._means = means
        self._paths = {gateway.name: _data_path(gateway, self.means(gateway.name)) for gateway in gateways}

    def means(self, gateway: str) -> Means:
        """Return what a gateway was found to have."""
        return self._means.get(gateway, _NOT_KNOWN)

    def data_path(self, gateway: str) -> DataPath:
        """Return who carries ESP on a gateway, never ``AUTO``."""
        return self._paths.get(gateway, DataPath.KERNEL)

    def version(self, gateway: str) -> Version | None:
        """Return the version of a gateway's charon, ``None`` where it is not known."""
        return self.means(gateway).version

    def mode(self, end: End) -> Mode:
        """Return the mode of an end, never ``AUTO``.

        ``auto`` is ``route`` where the kernel carries ESP and is known to have xfrm interfaces.
        """
        if end.mode is not Mode.AUTO:
            return end.mode
        kernel = self.data_path(end.gateway.name) is DataPath.KERNEL
        return Mode.ROUTE if kernel and self.means(end.gateway.name).xfrm_interfaces else Mode.POLICY

    def has_traps(self, gateway: str) -> bool:
        """Return whether traffic without an SA makes a gateway's charon call: an older libipsec drops it."""
        kernel = self.data_path(gateway) is DataPath.KERNEL
        return kernel or knows(self.version(gateway), Knows.LIBIPSEC_TRAPS)

    def left_calls(self, tunnel: Tunnel) -> bool:
        """Return whether it is the left end that brings a tunnel up.

        It is as the topology has it, unless nobody asked for that, the calling end has no traps, and the
        other one has, is ours, and can call it.
        """
        left_calls = tunnel.initiator == "left"
        caller, called = (tunnel.left, tunnel.right) if left_calls else (tunnel.right, tunnel.left)
        better = (
            not tunnel.initiator_given
            and not self.has_traps(caller.gateway.name)
            and self.has_traps(called.gateway.name)
            and called.gateway.managed
            and caller.gateway.reachable_at is not None
        )
        return left_calls is not better

    def in_udp(self, tunnel: Tunnel) -> bool:
        """Return whether ESP travels in UDP: a NAT, a wish, or a kernel-libipsec that can do nothing else."""
        return tunnel.in_udp or any(
            self.data_path(end.gateway.name) is DataPath.LIBIPSEC
            and not knows(self.version(end.gateway.name), Knows.RAW_ESP)
            for end in (tunnel.left, tunnel.right)
        )


def _data_path(gateway: Gateway, means: Means) -> DataPath:
    if gateway.data_path is not DataPath.AUTO:
        return gateway.data_path
    return DataPath.KERNEL if means.data_path is DataPath.AUTO else means.data_path

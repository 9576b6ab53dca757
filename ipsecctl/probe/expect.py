"""What packets should show: sizes, MSS and encapsulation of a tunnel, computed and not measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netaddr import IPAddress

from ipsecctl.crypto import LIBIPSEC_MTU, EspSuite, overhead
from ipsecctl.desired import GatewayState
from ipsecctl.probe.wire import Encapsulation
from ipsecctl.topology import DataPath, End, Tunnel

__all__ = ["Expected", "esp_bytes", "expected"]

_TCP_AND_IP_BYTES = {4: 40, 6: 60}


@dataclass(frozen=True, slots=True)
class Expected:
    """What is computed for a tunnel: ``inner_mtu`` in bytes, and ``because``, where it comes from."""

    inner_mtu: int
    because: str
    encapsulation: Encapsulation

    def mss(self, family: int) -> int:
        """Return the MSS that a SYN must carry after the clamp."""
        return self.inner_mtu - _TCP_AND_IP_BYTES[family]


def expected(
    tunnel: Tunnel,
    states: Iterable[GatewayState],
    suites: Iterable[EspSuite],
    data_paths: Mapping[str, DataPath],
) -> Expected | None:
    """Compute what a tunnel's packets should show.

    It is the smallest of what the compiled states set on the gateways and of what ``suites``, those that were
    negotiated, leave of both WAN links. ``None`` when neither is known.
    """
    ours = [c for state in states for c in state.connections if c.name == tunnel.name]
    # The compiled state knows a charon that can only send ESP in UDP, whatever the topology says.
    udp = tunnel.in_udp or any(connection.nat_t for connection in ours)
    limits = [(connection.inner_mtu, "what the topology comes to") for connection in ours]
    limits += _negotiated(tunnel, sorted(set(suites)), data_paths, udp=udp)
    if not limits:
        return None
    smallest = min(size for size, _ in limits)
    reasons = dict.fromkeys(why for size, why in limits if size == smallest)
    encapsulation = Encapsulation.UDP if udp else Encapsulation.NATIVE
    return Expected(smallest, "; ".join(reasons), encapsulation)


def esp_bytes(inner_bytes: int, suite: EspSuite) -> int:
    """Return the length of ESP, SPI to ICV, that carries an inner packet (RFC 4303 section 2)."""
    blocks = -(-(inner_bytes + 2) // suite.alignment_bytes)
    return 8 + suite.iv_bytes + blocks * suite.alignment_bytes + suite.icv_bytes


def _negotiated(
    tunnel: Tunnel, suites: Iterable[EspSuite], data_paths: Mapping[str, DataPath], *, udp: bool
) -> list[tuple[int, str]]:
    limits: list[tuple[int, str]] = []
    outer = _outer_version(tunnel)
    for end in (tunnel.left, tunnel.right):
        gateway = end.gateway
        for suite in suites:
            size = overhead(gateway.mtu, suite, outer=outer, nat_t=udp).inner_mtu
            how = "in UDP " if udp else ""
            limits.append((size, f"{suite} {how}on {gateway.name}'s WAN link of {gateway.mtu}"))
        if data_paths.get(gateway.name) is DataPath.LIBIPSEC:
            limits.append((LIBIPSEC_MTU, f"libipsec on {gateway.name}"))
    return limits


def _outer_version(tunnel: Tunnel) -> int:
    ends: tuple[End, End] = (tunnel.left, tunnel.right)
    known = [e.gateway.reachable_at for e in ends] + [e.gateway.address for e in ends]
    return next((address.version for address in known if isinstance(address, IPAddress)), 4)

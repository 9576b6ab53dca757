"""Topologies of any size, as text: what the benchmarks measure."""

from __future__ import annotations

__all__ = ["hub_and_spoke"]

_TWINS = ("twin-a", "twin-b")


def hub_and_spoke(clinics: int, hubs: int = 2, *, twins: bool = False) -> str:
    """Return a topology of ``clinics`` sites with a network each, joined to ``hubs`` data centres.

    Every fourth clinic is behind NAT with a dynamic address, every tenth on a 1492-byte WAN. With ``twins``
    there are two more sites with the same network and no tunnel in common, so that the overlap check has to
    look closely.
    """
    names = [f"dc-{number + 1}" for number in range(hubs)]
    lines = [
        "ipsecctl: 1",
        f"name: hub-and-spoke-{clinics}",
        'defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}}',
        "sites:",
    ]
    for number, name in enumerate(names):
        lines += [
            f"  {name}:",
            f"    networks: {{servers: 10.{number}.0.0/24, imaging: 10.{number}.8.0/24}}",
            f"    gateway: 198.51.100.{number + 10}",
        ]
    for number in range(clinics):
        lines += [
            f"  clinic-{number:05d}:",
            f"    networks: {{lan: {_network(number)}}}",
            f"    gateway: {_gateway(number)}",
        ]
    if twins:
        for number, twin in enumerate(_TWINS):
            lines.append(f"  {twin}: {{networks: {{lan: 172.16.0.0/24}}, gateway: 192.0.2.{number + 1}}}")
    lines += [
        "tunnels:",
        "  clinics:",
        f"    hub: [{', '.join(names)}]",
        '    spokes: ["clinic-*"]',
    ]
    if twins:
        lines += [
            f"  {twin}: {{between: [{twin}, {name}]}}" for twin, name in zip(_TWINS, names, strict=False)
        ]
    return "\n".join(lines) + "\n"


def _network(number: int) -> str:
    block = number + (32 << 8)  # from 10.32.0.0 on
    return f"10.{block >> 8}.{block & 255}.0/24"


def _gateway(number: int) -> str:
    mtu = ", mtu: 1492" if number % 10 == 0 else ""
    if number % 4 == 0:
        return f"{{address: dynamic, behind_nat: true{mtu}}}"
    address = f"203.{number >> 14}.{number >> 6 & 255}.{(number & 63) + 1}"
    return f"{{address: {address}{mtu}}}" if mtu else address

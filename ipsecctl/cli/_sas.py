"""Both ends' IKE_SAs and CHILD_SAs of a tunnel, in full, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipsecctl.health import ChildSa, EndView, IkeSa, TunnelHealth

__all__ = ["amount", "sa_lines", "span"]


def sa_lines(tunnel: TunnelHealth) -> Iterator[str]:
    """Yield what each end of a tunnel has: algorithms, selectors, SPIs, traffic, age and rekey.

    Beside an SPI stands where the other end has it: what is ``in`` here must be ``out`` there.
    """
    yield f"{tunnel.name}: {tunnel.verdict}"
    for end, other in (tunnel.ends, tunnel.ends[::-1]):
        if end.state != "seen":
            yield f"  {end.gateway}: {end.state}"
            continue
        yield f"  {end.gateway}: {'' if end.sas else 'no IKE_SA'}".rstrip()
        for sa in end.sas:
            yield from _ike_lines(sa)
            for child in sa.children:
                yield from _child_lines(child, other)
                yield from _kernel_lines(child, end)


def _ike_lines(sa: IkeSa) -> Iterator[str]:
    role = "initiator" if sa.initiator else "responder"
    nat = [side for side, found in (("local", sa.nat_local), ("remote", sa.nat_remote)) if found]
    yield f"    IKE_SA #{sa.unique_id}: {sa.state}, {role}, {_times(sa.age_s, sa.rekey_in_s)}"
    yield f"      algorithms  {sa.suite or '-'}"
    yield f"      local       {_end(sa.local_host, sa.local_port, sa.local_id)}"
    yield f"      remote      {_end(sa.remote_host, sa.remote_port, sa.remote_id)}"
    yield f"      SPIs        initiator {sa.initiator_spi or '-'}, responder {sa.responder_spi or '-'}"
    yield f"      NAT         {'in front of ' + ' and '.join(nat) if nat else 'none found'}"


def _child_lines(child: ChildSa, other: EndView) -> Iterator[str]:
    there = [c for sa in other.sas for c in sa.children] if other.state == "seen" else None
    spis_in = None if there is None else {c.spi_in for c in there}
    spis_out = None if there is None else {c.spi_out for c in there}
    ends = f", ends in {span(child.life_in_s)}" if child.life_in_s is not None else ""
    yield (
        f"    CHILD_SA {child.name} #{child.unique_id}: {child.state}, "
        f"{_times(child.age_s, child.rekey_in_s)}{ends}"
    )
    yield f"      algorithms  {child.suite or '-'}, {'ESP in UDP' if child.encapsulated else 'ESP'}"
    yield f"      selectors   local {', '.join(child.local_ts) or '-'}"
    yield f"                  remote {', '.join(child.remote_ts) or '-'}"
    out = f"SPI {child.spi_out or '-'}{_crosswise(child.spi_out, spis_in, 'in', other)}"
    yield f"      out         {amount(child.bytes_out, child.packets_out)}, {out}"
    back = f"SPI {child.spi_in or '-'}{_crosswise(child.spi_in, spis_out, 'out', other)}"
    yield f"      in          {amount(child.bytes_in, child.packets_in)}, {back}"


def _kernel_lines(child: ChildSa, end: EndView) -> Iterator[str]:
    """Say whether the kernel has what charon says; nothing where nobody could look."""
    from ipsecctl.health import kernel_lacks

    if end.not_in_kernel is not None and child.installed:
        lacks = kernel_lacks(end.not_in_kernel, child.spi_in)
        yield f"      kernel      {'has NOT ' + ', '.join(lacks) if lacks else 'has all that carries it'}"


def _crosswise(spi: str, there: set[str] | None, direction: str, other: EndView) -> str:
    """Say whether the other end has an SPI in the other direction; nothing where nobody could look."""
    if there is None:
        return ""
    return f" ({'is' if spi in there else 'NOT'} {direction} at {other.gateway})"


def _end(host: str, port: int, identity: str) -> str:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{place}, {identity}" if identity else place


def _times(age_s: int | None, rekey_in_s: int | None) -> str:
    return f"age {span(age_s)}, rekey in {span(rekey_in_s)}"


def amount(size: int, packets: int) -> str:
    """Return bytes and packets for a person."""
    scaled, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while scaled >= 1024 and len(units) > 1:
        scaled /= 1024
        units.pop(0)
    return f"{scaled:.{0 if units[0] == 'B' else 1}f} {units[0]} / {packets} p"


def span(time_s: int | None) -> str:
    """Return seconds as ``[h:]mm:ss``, or ``-`` where nobody knows."""
    if time_s is None:
        return "-"
    hours, minutes = divmod(time_s // 60, 60)
    return f"{hours}:{minutes:02}:{time_s % 60:02}" if hours else f"{minutes}:{time_s % 60:02}"

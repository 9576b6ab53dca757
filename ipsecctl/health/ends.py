"""What is seen of a tunnel at each of its ends, out of all that is seen of their gateways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Charon, CharonSilent, KernelView, LiveView, ShellView
from ipsecctl.health.sa import IkeSa, parse_list_sas
from ipsecctl.health.tunnel import Declared, EndState, EndView
from ipsecctl.health.way import view_way
from ipsecctl.topology import Gateway

__all__ = ["by_connection", "view_end"]


def by_connection(view: LiveView | GatewayUnreachable) -> dict[str, tuple[IkeSa, ...]]:
    """Return the IKE_SAs that a gateway's charon reports, by the name of their connection."""
    if isinstance(view, GatewayUnreachable):
        return {}
    found: dict[str, tuple[IkeSa, ...]] = {}
    for sa in parse_list_sas(view.sas):
        found[sa.name] = (*found.get(sa.name, ()), sa)
    return found


def view_end(
    gateway: Gateway,
    tunnel: Declared,
    view: LiveView | GatewayUnreachable | None,
    sas: Mapping[str, tuple[IkeSa, ...]],
) -> EndView:
    """Return what there is to see of a tunnel at one of its gateways.

    ``view`` is what was seen there, or why nothing could be, or ``None`` if nobody looked; ``sas`` are the
    gateway's IKE_SAs by connection.
    """
    if not gateway.managed:
        return EndView(gateway.name, gateway.site, EndState.NOT_MANAGED)
    shell = view.shell if isinstance(view, (LiveView, CharonSilent)) else ShellView()
    way = tunnel.ways.get(gateway.name)
    end = EndView(
        gateway.name,
        gateway.site,
        EndState.UNREACHABLE,
        guard=shell.guard,
        forwarding=shell.forwarding,
        rewritten=shell.rewritten,
        way=view_way(way, shell.ways) if way else None,
        pending=shell.pending,
        restart=shell.restart,
        applied=shell.applied,
        unheld=shell.unheld,
        way_out=shell.way_out,
        older=shell.older.get(tunnel.name),
    )
    if isinstance(view, LiveView):
        found, loaded, missing = sas.get(tunnel.name, ()), tunnel.name in view.connections, None
        if view.not_in_kernel is not None:
            there = {child.spi_in for sa in found for child in sa.children}
            missing = tuple(
                sa for sa in view.not_in_kernel if sa.tunnel == tunnel.name and sa.spi_in in there
            )
        known = shell.means.get(gateway.name)
        path = shell.in_kernel.on(known.data_path) if known else KernelView()
        seen = replace(end, state=EndState.SEEN, sas=found, loaded=loaded, not_in_kernel=missing)
        if view.traps is not None:
            seen = replace(seen, traps=view.traps.get(tunnel.name, frozenset()))
        return replace(seen, own_path=path, version=Charon(view.version).version_numbers or None)
    if view is None:
        return replace(end, error="it was not looked at")
    state = EndState.CHARON_DOWN if view.charon_down else EndState.UNREACHABLE
    return replace(end, state=state, error=view.cause)

"""The document ``ipsecctl/status/1``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ipsecctl.desired import OwnNetwork
from ipsecctl.errors import Diagnostic, GatewayUnreachable, worst_first
from ipsecctl.gateway import LiveView, Pending, WayHome, names_of_sas
from ipsecctl.health.kernel import kernel_lacks
from ipsecctl.health.sa import ChildSa, IkeSa
from ipsecctl.health.tunnel import EndState, EndView, TunnelHealth, Verdict
from ipsecctl.health.way import WayView

__all__ = ["exit_status", "headline", "left_over", "nothing_known_json", "status_json"]


def exit_status(tunnels: Iterable[TunnelHealth]) -> int:
    """Return the exit status of ``status``.

    0: all tunnels are up; 3: some cannot be judged, and none is known to be bad; 1: otherwise.
    """
    verdicts = {tunnel.verdict for tunnel in tunnels} - {Verdict.UP}
    if not verdicts:
        return 0
    return 3 if verdicts == {Verdict.UNKNOWN} else 1


def headline(tunnels: Iterable[TunnelHealth]) -> str:
    """Return one line for a person: "2 of 41 tunnels down, 1 degraded", of a single one "1 tunnel, down"."""
    verdicts = [tunnel.verdict for tunnel in tunnels]
    total = f"{len(verdicts)} tunnel{'' if len(verdicts) == 1 else 's'}"
    bad = [(v, verdicts.count(v)) for v in Verdict if v is not Verdict.UP and v in verdicts]
    if len(verdicts) == 1:
        return f"{total}, {verdicts[0]}"
    if not bad:
        return f"all {total} up"
    first, *rest = bad
    return ", ".join(
        [f"{first[1]} of {total} {first[0]}", *(f"{count} {verdict}" for verdict, count in rest)]
    )


def status_json(
    tunnels: Iterable[TunnelHealth],
    views: Mapping[str, LiveView | GatewayUnreachable],
    now: datetime,
) -> dict[str, Any]:
    """Return the whole document; tunnels keep their order, gateways are sorted by name."""
    tunnels = tuple(tunnels)
    left = left_over(tunnels, views)
    return {
        "schema": "ipsecctl/status/1",
        "time": now.isoformat(timespec="seconds"),
        "headline": headline(tunnels),
        "tunnels": [_tunnel(tunnel) for tunnel in tunnels],
        "gateways": [
            _gateway(name, view) | {"left_over": list(left.get(name, ()))}
            for name, view in sorted(views.items())
        ],
        "diagnostics": [],
    }


def left_over(
    tunnels: Iterable[TunnelHealth], views: Mapping[str, LiveView | GatewayUnreachable]
) -> dict[str, tuple[str, ...]]:
    """Return by gateway the connections that we applied there once, are not declared, and still have SAs."""
    declared = {tunnel.name for tunnel in tunnels}
    found = {
        name: tuple(sorted(names_of_sas(view.sas) & view.shell.ours - declared))
        for name, view in sorted(views.items())
        if isinstance(view, LiveView)
    }
    return {name: names for name, names in found.items() if names}


def nothing_known_json(why: str, diagnostics: Iterable[Diagnostic], now: datetime) -> dict[str, Any]:
    """Return the document where it is not even known which tunnels are declared, with the findings why."""
    return {
        "schema": "ipsecctl/status/1",
        "time": now.isoformat(timespec="seconds"),
        "headline": f"not known: {why}",
        "tunnels": [],
        "gateways": [],
        "diagnostics": [finding.as_json() for finding in worst_first(diagnostics)],
    }


def _gateway(name: str, view: LiveView | GatewayUnreachable) -> dict[str, Any]:
    if isinstance(view, LiveView):
        return {"name": name, "reached": True, "charon": view.version, "waiting": _waiting(view.shell.undo)}
    return {
        "name": name,
        "reached": view.charon_down,
        "charon": None,
        "charon_down": view.charon_down,
        "cause": view.cause,
        "hint": view.hint,
    }


def _waiting(undo: Pending | None) -> dict[str, Any] | None:
    """Return the apply that a gateway would go back from, unless it is confirmed in time."""
    if undo is None:
        return None
    return {"owner": undo.owner, "left_s": undo.left_s, "going_back": undo.going}


def _tunnel(tunnel: TunnelHealth) -> dict[str, Any]:
    return {
        "name": tunnel.name,
        "verdict": str(tunnel.verdict),
        "causes": list(tunnel.causes),
        "since": tunnel.since.isoformat(timespec="seconds") if tunnel.since else None,
        "far_end": "managed" if tunnel.far_end_managed else "not managed",
        "children": list(tunnel.children),
        "ends": [_end(end) for end in tunnel.ends],
    }


def _end(end: EndView) -> dict[str, Any]:
    return {
        "gateway": end.gateway,
        "site": end.site,
        "state": str(end.state),
        "error": end.error,
        "loaded": end.loaded if end.state is EndState.SEEN else None,
        "guard": str(end.guard),
        "forwarding": end.forwarding,
        "applied": end.applied,
        "holding_routes_missing": None if end.unheld is None else list(end.unheld),
        "mode": str(end.way.mode) if end.way else None,
        "interface": _interface(end.way) if end.way and end.way.interface else None,
        "networks": [_network(*home) for home in end.way.homes] if end.way else [],
        "changed_by_nat": end.rewritten,
        "pending_change": _pending_change(end),
        "restart_for": [f"{name} = {wanted or 'default'}" for name, (_, wanted) in end.pending.items()],
        "ike_sas": [_ike(sa, end) for sa in end.sas],
    }


def _pending_change(end: EndView) -> dict[str, Any] | None:
    """Return that SAs have an earlier configuration than was applied, and why as far as that is known."""
    return {"why": end.older or None} if end.older is not None and end.sas else None


def _network(own: OwnNetwork, home: WayHome) -> dict[str, Any]:
    """Return a network of the gateway's own site, and whether it has a route into it."""
    return {"name": own.name, "prefix": str(own.prefix), "route": str(home)}


def _interface(way: WayView) -> dict[str, Any]:
    """Return the interface of an end in route mode; ``null`` where nobody could look."""
    link = way.link
    return {
        "name": way.interface,
        "present": link is not None if way.known else None,
        "up": link.up if link else None,
        "if_id": link.if_id if link else None,
        "mtu": link.mtu if link else None,
        "routes_missing": [str(route.prefix) for route in way.missing] if way.known else None,
    }


def _ike(sa: IkeSa, end: EndView) -> dict[str, Any]:
    return {
        "unique_id": sa.unique_id,
        "state": sa.state,
        "initiator": sa.initiator,
        "local": {"host": sa.local_host, "port": sa.local_port, "identity": sa.local_id},
        "remote": {"host": sa.remote_host, "port": sa.remote_port, "identity": sa.remote_id},
        "spis": {"initiator": sa.initiator_spi, "responder": sa.responder_spi},
        "algorithms": sa.suite,
        "ppk": sa.ppk,
        "nat_t": {"local": sa.nat_local, "remote": sa.nat_remote},
        "age_s": sa.age_s,
        "rekey_in_s": sa.rekey_in_s,
        "child_sas": [_child(child, end) for child in sa.children],
    }


def _child(sa: ChildSa, end: EndView) -> dict[str, Any]:
    missing = end.not_in_kernel
    return {
        "name": sa.name,
        "unique_id": sa.unique_id,
        "state": sa.state,
        "spi_in": sa.spi_in,
        "spi_out": sa.spi_out,
        "algorithms": sa.suite,
        "local_ts": list(sa.local_ts),
        "remote_ts": list(sa.remote_ts),
        "nat_t": sa.encapsulated,
        "bytes_in": sa.bytes_in,
        "packets_in": sa.packets_in,
        "bytes_out": sa.bytes_out,
        "packets_out": sa.packets_out,
        "age_s": sa.age_s,
        "rekey_in_s": sa.rekey_in_s,
        "life_in_s": sa.life_in_s,
        "kernel_lacks": kernel_lacks(missing, sa.spi_in) if sa.installed and missing is not None else None,
        "cpu": sa.cpu,
    }

"""Which mode holds at an end of a tunnel: what the tunnel says, else its gateway, else ``defaults``."""

from __future__ import annotations

from ipsecctl.topology.document import Document, GatewayDoc
from ipsecctl.topology.model import Gateway, Mode, Path

__all__ = ["end_mode"]


def end_mode(document: Document, group: str, gateway: Gateway) -> tuple[Mode, Path]:
    """Return the mode of a gateway's end of a group's tunnels, and where the file says so.

    Where it says nothing the place is that of the group.
    """
    tunnel = document.tunnels[group]
    if "mode" in tunnel.model_fields_set:
        return Mode(tunnel.mode), ("tunnels", group, "mode")
    doc = _gateway_doc(document, gateway)
    if doc is not None and "mode" in doc.model_fields_set:
        return Mode(doc.mode), (*gateway.where, "mode")
    if "mode" in document.defaults.model_fields_set:
        return Mode(document.defaults.mode), ("defaults", "mode")
    return Mode.POLICY, ("tunnels", group)


def _gateway_doc(document: Document, gateway: Gateway) -> GatewayDoc | None:
    site = document.sites[gateway.site]
    return site.gateways.get(gateway.name, site.gateway)

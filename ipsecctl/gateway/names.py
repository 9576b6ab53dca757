"""Names and places that are the same on every gateway."""

from __future__ import annotations

__all__ = [
    "LINK_ALIAS",
    "LOCK_PATH",
    "NFT_TABLE",
    "RECORD_PATH",
    "REWRITTEN_COUNTER",
    "ROUTE_PROTOCOL",
    "ROUTE_TABLE",
    "STATE_DIR",
    "UNDO_DIR",
    "VICI_SOCKETS",
    "container_name",
]

VICI_SOCKETS = ("/run/charon.vici", "/var/run/charon.vici", "/run/strongswan/charon.vici")
"""Where distributions let charon put its socket, in the order in which they are tried."""

STATE_DIR = "/var/lib/ipsecctl"
RECORD_PATH = f"{STATE_DIR}/applied.json"
"""What was applied to this gateway; see ``ipsecctl.gateway.record``."""

UNDO_DIR = f"{STATE_DIR}/undo"
"""What an apply that waits for its confirmation would go back to; see ``ipsecctl.gateway.undo``."""

LOCK_PATH = "/run/ipsecctl.lock"
"""Locked while an apply is at work; where nothing outlives a reboot."""

NFT_TABLE = ("inet", "ipsecctl")
"""Family and name of the nftables table that is ours."""

REWRITTEN_COUNTER = "leaving_after_nat"
"""The counter in it of packets that were bound for a tunnel until something changed their addresses."""

ROUTE_PROTOCOL = "213"
"""The protocol number (as ``ip route`` and ``ip rule`` have it) that marks a route or a rule as ours."""

ROUTE_TABLE = "213"
"""The routing table in which forwarded packets are held; a route of another protocol in it is not ours."""

LINK_ALIAS = "ipsecctl"
"""The first word of the alias (as ``ip link`` has it) that marks an interface as ours."""


def container_name(lab: str, node: str) -> str:
    """Return the name of a lab node's container."""
    return f"ipsecctl-{lab}-{node}"


def reboot_command(container: str, node: str) -> str:
    """Return what starts the container of a lab's node again, with its links and all that is on it.

    ``docker start`` alone would leave it without interfaces.
    """
    lab = container.removeprefix("ipsecctl-").removesuffix(f"-{node}")
    return f"ipsecctl lab reboot {lab} {node}"

"""Lay out a gateway's state: as files, and as VICI messages."""

from ipsecctl.render.files import (
    CALL_FILE,
    CHARON_UNIT_FILE,
    FIREWALL_FILE,
    GUARD_FILE,
    GUARD_UNIT_FILE,
    INTERFACES_FILE,
    NETWORK_MANAGER_FILE,
    NETWORKD_CONF_FILE,
    NETWORKD_FILE,
    ROUTES_FILE,
    STRONGSWAN_FILE,
    SWANCTL_FILE,
    SWANCTL_SECRETS_FILE,
    SYSCTL_FILE,
    RenderedFile,
    render_files,
)
from ipsecctl.render.messages import Message, Messages, render_messages

__all__ = [
    "CALL_FILE",
    "CHARON_UNIT_FILE",
    "FIREWALL_FILE",
    "GUARD_FILE",
    "GUARD_UNIT_FILE",
    "INTERFACES_FILE",
    "NETWORKD_CONF_FILE",
    "NETWORKD_FILE",
    "NETWORK_MANAGER_FILE",
    "ROUTES_FILE",
    "STRONGSWAN_FILE",
    "SWANCTL_FILE",
    "SWANCTL_SECRETS_FILE",
    "SYSCTL_FILE",
    "Message",
    "Messages",
    "RenderedFile",
    "render_files",
    "render_messages",
]

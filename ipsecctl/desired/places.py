"""Where the files lie that keep a gateway from leaking: the same on every gateway."""

from __future__ import annotations

__all__ = [
    "CALL_FILE",
    "CHARON_UNIT_FILE",
    "FIREWALL_FILE",
    "GUARD_FILE",
    "GUARD_UNIT",
    "GUARD_UNIT_FILE",
    "INTERFACES_FILE",
    "NETWORKD_CONF_FILE",
    "NETWORKD_FILE",
    "NETWORK_MANAGER_FILE",
    "ROUTES_FILE",
    "SYSCTL_FILE",
]

FIREWALL_FILE = "/etc/ipsecctl/firewall.nft"
INTERFACES_FILE = "/etc/ipsecctl/interfaces"
ROUTES_FILE = "/etc/ipsecctl/routes"
SYSCTL_FILE = "/etc/sysctl.d/60-ipsecctl.conf"

GUARD_FILE = "/etc/ipsecctl/guard"
"""The script that brings the four above into force: at boot, by ``apply``, and by hand."""

GUARD_UNIT = "ipsecctl-guard.service"
GUARD_UNIT_FILE = f"/etc/systemd/system/{GUARD_UNIT}"
"""systemd's unit that runs the script at boot."""

CALL_FILE = "/etc/ipsecctl/call"
"""The script that calls the peers that it is ours to call: when charon has started."""

CHARON_UNIT_FILE = "/etc/systemd/system/strongswan.service.d/60-ipsecctl.conf"
"""What has strongSwan's own unit run it."""

NETWORKD_FILE = "/etc/systemd/network/05-ipsecctl.network"
"""What keeps systemd-networkd from touching the tunnels' interfaces."""

NETWORKD_CONF_FILE = "/etc/systemd/networkd.conf.d/60-ipsecctl.conf"
"""What keeps it from removing rules, and routes to nowhere, that it did not make: charon's and ours."""

NETWORK_MANAGER_FILE = "/etc/NetworkManager/conf.d/60-ipsecctl.conf"
"""The same for NetworkManager."""

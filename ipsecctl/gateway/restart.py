"""How charon is restarted where it runs: only what can be seen of it, and else neutral words."""

from __future__ import annotations

import re
from typing import Final

from ipsecctl.gateway.handle import Handle

__all__ = ["SCRIPT", "how_to_restart"]

_LAB_CHARON: Final = "/usr/lib/ipsecctl-lab/charon"

# Says what has charon in its hands: the lab, a unit of systemd, or a systemd whose unit cannot be seen.
SCRIPT: Final = rf"""
runs_charon() {{
    if [ -x {_LAB_CHARON} ]; then echo 'service lab'; return; fi
    [ -d /run/systemd/system ] || return 0
    for pid in $(pidof charon-systemd charon 2>/dev/null); do
        unit=$(sed -n 's|.*/\([^/]*\)\.service$|\1|p' "/proc/$pid/cgroup" 2>/dev/null | head -n 1)
        case $unit in '' | user@*) ;; *) printf 'service unit %s\n' "$unit"; return ;; esac
    done
    echo 'service systemd'
}}
runs_charon
"""

_UNIT = re.compile(r"unit ([A-Za-z0-9:_.@\\-]+)")


def how_to_restart(handle: Handle, service: str) -> str:
    """Return what restarts charon on a gateway, from what the script said of its service ("" for nothing)."""
    lab = getattr(handle, "lab", "")
    if service == "lab" and lab:
        command = f"ipsecctl lab exec {lab} {handle.name} -- {_LAB_CHARON}"
        return f"{command} stop, the same with start, then apply the topology"
    if unit := _UNIT.fullmatch(service):
        return f"systemctl restart {unit[1]}"
    if service == "systemd":
        return "systemctl restart strongswan"
    return "stop and start it as it is started there"

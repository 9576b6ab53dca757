"""How charon is restarted where it runs: only what can be seen of it, and else neutral words."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.names import VICI_SOCKETS
from ipsecctl.patience import PATIENCE

__all__ = ["SCRIPT", "how_to_restart", "restart_charon", "restart_command"]

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

_RESTARTED_WITHIN_S: Final = 60.0 * PATIENCE
_BACK_WITHIN_S: Final = 10.0 * PATIENCE
_ASK_AGAIN_S: Final = 0.1

_WHICH_START: Final = """
for socket; do
    [ ! -S "$socket" ] || { stat -c '%i-%Y' "$socket"; break; }
done
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


def restart_command(handle: Handle, service: str) -> tuple[str, ...]:
    """Return the command that ``how_to_restart`` names, to be run there; empty where it would be a guess."""
    lab: str = getattr(handle, "lab", "")
    if service == "lab" and lab:
        # In a session of its own it comes to its end, as systemd's does, when we are stopped in the middle.
        return ("setsid", "--wait", "sh", "-c", f"{_LAB_CHARON} stop && {_LAB_CHARON} start")
    if unit := _UNIT.fullmatch(service):
        return ("systemctl", "restart", unit[1])
    return ()


async def restart_charon(handle: Handle, command: tuple[str, ...], why: str) -> str:
    """Restart charon with a command of ``restart_command`` and wait for its answer; return which start it is.

    That is inode and time of its VICI socket (``Facts.charon``). ``why`` says what for.

    Raises ``GatewayUnreachable``, with ``charon_down``, when it is not there again after ``_BACK_WITHIN_S``.
    """
    try:
        done = await handle.run(command, timeout_s=_RESTARTED_WITHIN_S)
        if done.status != 0:
            raise GatewayUnreachable(handle.name, done.error, charon_down=True)
        await _answers(handle)
    except GatewayUnreachable as error:
        raise GatewayUnreachable(
            handle.name,
            f"charon was restarted for {why} and is not there again: {error.cause}",
            "Look into its log, start it, then apply again. Files, firewall and routes are in place.",
            charon_down=True,
        ) from error
    told = await handle.run(("sh", "-c", _WHICH_START, "which", *VICI_SOCKETS))
    return told.stdout.decode("utf-8", "replace").strip()


async def _answers(handle: Handle) -> None:
    """Return when charon answers; raise what it or the gateway said last when it does not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _BACK_WITHIN_S
    while True:
        try:
            async with handle.vici(timeout_s=_BACK_WITHIN_S):
                return
        except GatewayUnreachable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(_ASK_AGAIN_S)

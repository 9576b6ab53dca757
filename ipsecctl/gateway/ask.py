"""Ask a gateway what it is and can do: its shell and its charon side by side."""

from __future__ import annotations

import asyncio
import time

from ipsecctl.errors import CannotTell, GatewayUnreachable, ViciError, ViciRefused
from ipsecctl.gateway._capability_parser import parse_capabilities, parse_charon
from ipsecctl.gateway._capability_script import script
from ipsecctl.gateway.capabilities import Capabilities, Charon
from ipsecctl.gateway.handle import Completed, Handle
from ipsecctl.patience import PATIENCE

__all__ = ["capabilities"]


async def capabilities(handle: Handle, *, timeout_s: float = 30.0 * PATIENCE) -> Capabilities:
    """Return what a gateway is and can do; nothing of it is changed.

    A charon that does not run or does not answer is part of what is found. Raises ``GatewayUnreachable`` when
    the gateway itself cannot be reached within ``timeout_s`` seconds, ``CannotTell`` when it can be reached
    and not be asked, as without root's rights.
    """
    try:
        async with asyncio.TaskGroup() as group:
            shell = group.create_task(_shell(handle, timeout_s))
            charon = group.create_task(_charon(handle, timeout_s))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # both say the same when it is the gateway that is gone
    asked_s, completed, answered_s = shell.result()
    if completed.status != 0:
        raise CannotTell(f"{handle.name}: it cannot be asked: {completed.error}")
    told, why = charon.result()
    text = completed.stdout.decode("utf-8", "replace")
    return parse_capabilities(handle.name, text, told, charon_why=why, asked_s=asked_s, answered_s=answered_s)


async def _shell(handle: Handle, timeout_s: float) -> tuple[float, Completed, float]:
    """Run the script; return its answer between our clock before and after (Unix time, seconds)."""
    asked_s = time.time()
    completed = await handle.run(script(), timeout_s=timeout_s)
    return asked_s, completed, time.time()


async def _charon(handle: Handle, timeout_s: float) -> tuple[Charon | None, str]:
    """Return what charon tells, or ``None`` and why it does not."""
    try:
        async with asyncio.timeout(timeout_s), handle.vici(timeout_s=0.4 * timeout_s) as client:
            version = await client.command("version")
            stats = await client.command("stats")
            return parse_charon(version, stats, await client.command("get-algorithms")), ""
    except TimeoutError:
        return None, f"it took longer than {timeout_s:.3g} s to answer"
    except GatewayUnreachable as exc:
        if not exc.charon_down:
            raise
        return None, exc.cause
    except (ViciError, ViciRefused) as exc:
        return None, exc.summary

"""One apply at a time: a lock on the gateway that ends with whoever holds it.

It is ``flock``'s, held by a shell on the gateway that waits for the end of its standard input. That comes
when we let go, are killed, or lose the connection, so a lock never outlives its holder. The file's content is
only for the message to whoever comes second.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.names import LOCK_PATH, RECORD_PATH
from ipsecctl.patience import PATIENCE
from ipsecctl.whoami import user_at_host

__all__ = ["locked"]

_GRACE_S = math.ceil(5 * PATIENCE)
"""How long an apply has to let go of a lock that is being broken: it is told by the store within 3 s."""

# `cat` gives the lock's descriptor up: a copy of it, left behind, would hold the lock.
_HOLD = r"""
LC_ALL=C; export LC_ALL
umask 077
exec 2>&1 9>>"$1"
lock=$1 grace=$4
take() {
    flock -n 9 && return
    status=$?
    [ "$status" = 1 ] && [ "$grace" ] || return "$status"
    flock -w "$grace" 9 && return
    holder=$(sed -n 's/^shell //p' "$lock")
    for file in "/proc/${holder:-none}/fd"/*; do
        [ "$file" -ef "$lock" ] && kill "$holder" && flock -w "$grace" 9 && return
    done
    return 1
}
take || { status=$?; [ $status = 1 ] && echo "busy $(head -n 1 "$1")"; exit $status; }
printf 'since %s (%s)\nshell %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" "$3" "$$" >"$1"
echo "held $(cat "$2" 2>/dev/null | sha256sum | cut -d' ' -f1)"
cat >/dev/null 9>&-
: >"$1"
"""


@asynccontextmanager
async def locked(
    handle: Handle, *, break_it: bool = False, timeout_s: float = 10.0 * PATIENCE
) -> AsyncIterator[str]:
    """Hold a gateway's lock; entering returns the SHA-256 of its record as it is now.

    That is the digest of nothing where there is no record yet. Raises ``ApplyFailed`` at once, saying who
    holds the lock, when it is held, and ``GatewayUnreachable``. ``break_it`` gives who holds it a little time
    to let go, and then takes the lock away.
    """
    grace = str(_GRACE_S) if break_it else ""
    argv = ("sh", "-c", _HOLD, "lock", LOCK_PATH, RECORD_PATH, _who(), grace)
    async with handle.hold(argv, timeout_s=timeout_s + (2 * _GRACE_S if break_it else 0)) as line:
        said, _, rest = line.partition(" ")
        if said == "busy":
            raise ApplyFailed(
                f"another apply is at work on {handle.name} {rest}".rstrip(),
                "Nothing was done. Wait for it to end, then apply again.",
            )
        if said != "held":
            raise ApplyFailed(f"{handle.name}: {LOCK_PATH} cannot be locked: {line}")
        yield rest


def _who() -> str:
    """Return who we are, for whoever finds the lock held: user@host, process id."""
    return f"{user_at_host()}, pid {os.getpid()}"

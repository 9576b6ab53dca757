"""How many tunnels a gateway is told to call at a time; the others stand in line.

charon works on calls and on our questions with the same 16 threads. Told of thousands of calls at once it
answers nobody until it has worked them all off, and then looks as if it could not be reached.
"""

from __future__ import annotations

from collections.abc import Iterable

from ipsecctl.patience import PATIENCE

__all__ = ["AT_ONCE", "Line"]

AT_ONCE = 64
"""How many calls of a gateway may be unanswered at a time."""

_ROOM_S = 3.0 * PATIENCE
"""After how long a call that was not answered no longer counts: charon only waits then, and repeats it."""


class Line:
    """The calls of each gateway that count. Times are of ``time.monotonic``, given by whoever asks."""

    def __init__(self, at_once: int = AT_ONCE, room_s: float = _ROOM_S) -> None:
        self._at_once = at_once
        self._room_s = room_s
        self._calls: dict[str, dict[str, float]] = {}

    def may_call(self, gateway: str, tunnel: str, now: float) -> bool:
        """Whether a gateway may be told to call for a tunnel: one that counts already may be called again."""
        calls = self._calls.get(gateway, {})
        for name in [name for name, since in calls.items() if now - since > self._room_s]:
            del calls[name]
        return tunnel in calls or len(calls) < self._at_once

    def called(self, gateway: str, tunnel: str, now: float) -> None:
        """Count a call from now on; one that counts already counts no longer for being repeated."""
        self._calls.setdefault(gateway, {}).setdefault(tunnel, now)

    def answered(self, gateway: str, tunnels: Iterable[str]) -> None:
        """Count no longer the calls for ``tunnels``: their IKE_SA stands."""
        calls = self._calls.get(gateway, {})
        for tunnel in tunnels:
            calls.pop(tunnel, None)

"""What an apply that waits for its confirmation means for the next one."""

from __future__ import annotations

from datetime import timedelta

from ipsecctl.gateway import Observed
from ipsecctl.plan import Conflict
from ipsecctl.store import span

__all__ = ["waiting"]


def waiting(observed: Observed) -> tuple[Conflict, ...]:
    """Return what stands against an apply on a gateway on which another one waits for its confirmation."""
    pending = observed.facts.undo
    if pending is None:
        return ()
    name = observed.gateway
    if pending.going:
        return (
            Conflict(
                f"{name} is going back: the apply of {pending.owner} was not confirmed",
                "Wait until it has, then apply again.",
            ),
        )
    left = span(timedelta(seconds=pending.left_s))
    return (
        Conflict(
            f"{name} waits for the confirmation of the apply of {pending.owner}, for {left} yet",
            "Keep that one with 'ipsecctl confirm FILE'; or wait, and the gateway goes back by itself.",
        ),
    )

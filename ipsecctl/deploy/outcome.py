"""What an apply did, on each gateway and to each tunnel; and who is told of it at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ipsecctl.deploy.tunnels import TunnelResult
from ipsecctl.errors import GatewayUnreachable, IpsecctlError

if TYPE_CHECKING:
    from ipsecctl.deploy.undo import Waiting
    from ipsecctl.plan import Batch, GatewayPlan

__all__ = ["Applied", "GatewayResult", "Reporter", "as_unreachable", "host_alone"]


@dataclass(frozen=True, slots=True)
class GatewayResult:
    """What became of a gateway: ``changes`` done in ``took_s`` seconds, or the ``error`` that stopped it.

    ``restart_for`` are the options for which its charon must yet be restarted, and ``restart`` says how;
    ``restarted`` says that this was done, as nobody used it. With
    ``charon_down`` the changes were done to the host alone, although there is an error. ``batch`` is the
    number of its batch, 0 where there was nothing to change. ``rolled_back``: it has gone back, as its batch
    failed; ``begun`` is false where its batch was not begun, for the same reason. ``partly``: it is done but
    for tunnels whose other end was to be changed in a batch that failed, or was not begun.
    """

    name: str
    changes: int
    took_s: float
    error: IpsecctlError | None = None
    restart_for: tuple[str, ...] = ()
    restart: str = ""
    charon_down: bool = False
    restarted: bool = False
    batch: int = 0
    rolled_back: bool = False
    begun: bool = True
    partly: bool = False

    @property
    def outcome(self) -> str:
        """What became of it, in a word or two: for a table, and for JSON."""
        if not self.begun:
            return "not begun"
        if self.rolled_back:
            return "rolled back"
        if self.partly:
            return "partly"
        return "failed" if self.error else "applied" if self.changes else "unchanged"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did. Gateways and tunnels are sorted by name.

    ``waiting`` says what became of its net, ``None`` where it had none, or nothing to change. ``stopped``
    says why not all batches were done. ``half`` are the tunnels of which only one end was changed, with the
    gateways that are not in the limit. ``held`` are those that were left as they run, as new SAs would not
    come up.
    """

    gateways: tuple[GatewayResult, ...]
    tunnels: tuple[TunnelResult, ...]
    took_s: float
    waiting: Waiting | None = None
    stopped: str = ""
    half: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    held: frozenset[str] = frozenset()

    @property
    def nothing_done(self) -> bool:
        """Whether there was nothing to do: no gateway changed, no tunnel acted upon."""
        return not any(g.changes or g.error for g in self.gateways) and not any(t.acted for t in self.tunnels)

    @property
    def succeeded(self) -> bool:
        return (
            not self.stopped and not any(g.error for g in self.gateways) and all(t.up for t in self.tunnels)
        )


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is told at once what has become of a gateway, of a tunnel, or that a batch is well."""

    gateway: Callable[[GatewayResult], None]
    tunnel: Callable[[TunnelResult], None]
    batch: Callable[[Batch, int], None] = lambda _batch, _of: None


def host_alone(plan: GatewayPlan, down: GatewayUnreachable) -> GatewayUnreachable:
    """Return what is to be said of a gateway whose charon does not run: what was done there, and what not."""
    done = ", ".join(f"{change.part} {change.name}" for change in plan.changes)
    host = f"done without it: {done}" if done else "the host's part is as it should be"
    cause = f"{down.cause}; {host}; not done: its connections and keys, and what is to be taken away"
    hint = f"{down.hint.rstrip('.')}, then apply again." if down.hint else "Start it, then apply again."
    return GatewayUnreachable(down.gateway, cause, hint, charon_down=True)


def as_unreachable(name: str, error: IpsecctlError) -> GatewayUnreachable:
    """Return as what a gateway that could not be looked at counts, whatever the reason."""
    if isinstance(error, GatewayUnreachable):
        return error
    return GatewayUnreachable(name, error.summary, error.hint)

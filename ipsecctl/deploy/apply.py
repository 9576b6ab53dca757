"""Make the gateways what the topology says, side by side, and wait for the tunnels.

A gateway that fails is reported and does not stop the others. Every gateway is as far as the others before
any tunnel is touched: running SAs are moved (deploy/move.py) when both ends accept the old and the new, what
is no longer wanted is withdrawn after that, and no call meets a far end that does not know it yet. All
gateways are locked from the first step to the last: of two applies that meet on one, the second does nothing.

The work is done in turns (deploy/turns.py), one for each batch (deploy/fleet.py).
"""

from __future__ import annotations

import time

from ipsecctl.deploy.fleet import Rollout, roll_out
from ipsecctl.deploy.locks import lock_all
from ipsecctl.deploy.move import movings
from ipsecctl.deploy.outcome import Applied, GatewayResult, Reporter
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.safety import refused
from ipsecctl.deploy.tunnels import callers
from ipsecctl.deploy.turns import Work
from ipsecctl.deploy.undo import Net
from ipsecctl.errors import ApplyFailed
from ipsecctl.health import declare
from ipsecctl.patience import PATIENCE
from ipsecctl.plan import needs

__all__ = ["Applied", "GatewayResult", "Reporter", "apply"]


async def apply(
    prepared: Prepared,
    report: Reporter,
    *,
    wait_s: float = 30.0 * PATIENCE,
    break_locks: bool = False,
    net: Net | None = None,
    rollout: Rollout | None = None,
) -> Applied:
    """Carry out prepared plans and bring the tunnels up, waiting for these at most ``wait_s`` seconds.

    Errors of single gateways are in the result. Raises ``SafetyStop`` when plans remove or disturb more than
    they may, ``ApplyFailed`` when a plan has conflicts, when
    another apply is at work on one of the gateways, or has been since the plan was made: then nothing at all
    is done. ``break_locks`` takes the gateways' locks from another apply. With a ``net`` the gateways go back
    by themselves unless they are confirmed. ``rollout`` says in which batches; without it, all side by side.
    """
    conflicts = [conflict for plan in prepared.plans for conflict in plan.conflicts]
    if conflicts:
        hints = dict.fromkeys(conflict.hint for conflict in conflicts)
        raise ApplyFailed("; ".join(conflict.summary for conflict in conflicts), " ".join(hints))
    if prepared.stops:
        raise refused(prepared.stops)
    async with lock_all(prepared, break_them=break_locks) as ready:
        return await _apply(ready, report, wait_s, net, rollout or Rollout())


async def _apply(
    prepared: Prepared, report: Reporter, wait_s: float, net: Net | None, rollout: Rollout
) -> Applied:
    started = time.monotonic()
    about = prepared.tunnels
    declared = tuple(t for t in declare(prepared.topology, prepared.states) if t.name in about)
    calling = callers(prepared.states, declared)
    work = Work(prepared, report, declared, calling, movings(prepared, declared, calling), wait_s)
    async with work:
        stopped, waiting = await roll_out(work, rollout, net)
    gateways = tuple(result for _, result in sorted(work.results.items()))
    tunnels = tuple(result for _, result in sorted(work.tunnels.items()))
    changed = needs(prepared.plans)
    half = {name: others for name, others in prepared.half.items() if name in changed}
    return Applied(gateways, tunnels, time.monotonic() - started, waiting, stopped, half, prepared.held)

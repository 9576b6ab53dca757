"""What an apply tells the store: which gateways it locks, what it is about to do, what became of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from ipsecctl.deploy.apply import Applied, GatewayResult
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.undo import Waiting
from ipsecctl.plan import plan_json
from ipsecctl.store import Claim, GatewayOutcome, GatewayRow, NewRevision, Outcome, Session
from ipsecctl.topology import ControlKind, Gateway, Topology

__all__ = ["both", "claims", "end", "gateway_row", "lab_of", "new_revision", "worth_recording"]


def claims(topology: Topology, lab: str | None) -> tuple[Claim, ...]:
    """Return what must be locked to apply a topology: each managed gateway, by the way to it.

    ``lab`` says that the gateways are the containers of that lab.
    """
    return tuple(
        Claim(_address(gateway, topology.name, lab), gateway.name)
        for gateway in topology.gateways()
        if gateway.managed
    )


def _address(gateway: Gateway, topology: str, lab: str | None) -> str:
    control = gateway.control
    if lab is not None or control.kind is ControlKind.LAB:
        return f"lab://{lab or control.target or topology}/{gateway.name}"
    if control.kind is ControlKind.LOCAL:
        return f"local://{socket.gethostname()}"
    target = control.target.rpartition("@")[2]  # whoever logs in, it is the same gateway
    parts = urlsplit(f"//{f'[{target}]' if target.count(':') > 1 and '[' not in target else target}")
    try:
        port = parts.port
    except ValueError:
        port = None
    host = parts.hostname or target
    return f"ssh://{f'[{host}]' if ':' in host else host}:{port or 22}"


def lab_of(topology: Topology, lab: str | None) -> str | None:
    """Return the lab that all gateways are in: ``lab``, else the one that all have as their control."""
    if lab is not None:
        return lab
    names = {
        (gateway.control.target or topology.name) if gateway.control.kind is ControlKind.LAB else None
        for gateway in topology.gateways()
        if gateway.managed
    }
    return names.pop() if len(names) == 1 else None


def new_revision(
    prepared: Prepared,
    *,
    file: str,
    text: str,
    message: str = "",
    lab: str | None = None,
    rollback_of: int | None = None,
) -> NewRevision:
    """Return the revision that begins with prepared plans.

    ``text`` is that of the topology and ``file`` where it came from, absolute, or ``-``. ``rollback_of`` is
    the revision whose text that is.
    """
    limit = prepared.limit
    rows = {name: GatewayRow(name) for name in prepared.failures if limit is None or name in limit}
    rows |= {plan.gateway: GatewayRow(plan.gateway, changes=len(plan.changes)) for plan in prepared.plans}
    plan = plan_json(prepared.plans, {name: error.summary for name, error in prepared.failures.items()})
    return NewRevision(
        topology=prepared.topology.name,
        file=file,
        text=text,
        plan=plan,
        gateways=tuple(rows[name] for name in sorted(rows)),
        message=message,
        lab=lab or "",
        rollback_of=rollback_of,
    )


def worth_recording(prepared: Prepared, new: NewRevision, session: Session) -> bool:
    """Whether an apply is a revision.

    It is none when there is nothing to change on any gateway, and the same text was the last to be applied:
    an apply that runs every hour would hide those that did something.
    """
    if new.message or prepared.failures or any(plan.changes for plan in prepared.plans):
        return True
    return session.is_news(new.topology, new.text, new.lab)


def both(tell: Callable[[GatewayResult], None], session: Session) -> Callable[[GatewayResult], None]:
    """Return who tells a person, and the store as well, what became of a gateway."""

    def told(result: GatewayResult) -> None:
        session.gateway(gateway_row(result))
        tell(result)

    return told


def gateway_row(result: GatewayResult) -> GatewayRow:
    """Return what became of a gateway, for the store."""
    error = result.error
    if not result.begun:
        return GatewayRow(result.name, GatewayOutcome.UNCHANGED, error="not begun: a batch before it failed")
    done = GatewayOutcome.APPLIED if result.changes else GatewayOutcome.UNCHANGED
    return GatewayRow(
        result.name,
        GatewayOutcome.FAILED if error else done,
        result.changes,
        result.took_s,
        (f"{error.summary}; rolled back" if result.rolled_back else error.summary) if error else "",
        error.hint if error else "",
    )


def end(session: Session, applied: Applied) -> None:
    """Close the revision of an apply that came to its end."""
    failed = [gateway.name for gateway in applied.gateways if gateway.error is not None]
    down = [tunnel.name for tunnel in applied.tunnels if not tunnel.up and not tunnel.kept]
    kept = [tunnel.name for tunnel in applied.tunnels if tunnel.kept]
    said = [applied.stopped] if applied.stopped else []
    said += [f"failed: {', '.join(failed)}"] if failed else []
    for what, names in (("not up", down), ("up, and not changed", kept)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            said.append(f"{what}: {', '.join(names[:5])}{more}")
    tunnels: list[dict[str, Any]] = [
        {"name": t.name, "verdict": str(t.health.verdict), "causes": list(t.health.causes)}
        for t in applied.tunnels
    ]
    outcome = Outcome.APPLIED if applied.succeeded else Outcome.FAILED
    token = applied.waiting.token if applied.waiting else ""
    session.end(outcome, "; ".join(said), tunnels, token=token, confirmation=_confirmation(applied.waiting))


def _confirmation(waiting: Waiting | None) -> str:
    """Return how the confirmation of an apply stands at its end, "" for one that needs none."""
    if waiting is None:
        return ""
    if waiting.undone is not None:
        return "undone at once, as it failed"
    if not waiting.gateways:
        return ""
    until = datetime.now(UTC) + timedelta(seconds=waiting.left_s)
    return f"waited for until {until:%Y-%m-%d %H:%M:%S} UTC"

"""Plans that are saved, and held against what is there when they are to be carried out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from ipsecctl.deploy.prepare import Prepared
from ipsecctl.errors import PlanStale
from ipsecctl.gateway import canonical
from ipsecctl.plan import SavedGateway, SavedPlan, plan_json, stale_because

__all__ = ["demand_fresh", "saved_plan"]

# Of scrypt (RFC 7914): 16 MiB and about 50 ms for each guess.
_COST, _BLOCK, _PARALLEL = 1 << 14, 8, 1
_MEMORY = 64 << 20


def saved_plan(
    prepared: Prepared,
    text: str,
    file: str,
    *,
    by: str,
    made: datetime,
    salt: bytes,
    lab: str | None = None,
    take_over: bool = False,
    allowed: Iterable[str] = (),
    limit: Iterable[str] = (),
) -> SavedPlan:
    """Return prepared plans as they are to be saved; ``file`` is where the topology's ``text`` came from."""
    failures = {name: error.summary for name, error in prepared.failures.items()}
    stops = (stop.as_json() for stop in prepared.stops)
    return SavedPlan(
        made=made.isoformat(timespec="seconds"),
        by=by,
        topology=prepared.topology.name,
        file=file,
        text=hashlib.sha256(text.encode()).hexdigest(),
        lab=lab or "",
        take_over=take_over,
        allowed=tuple(sorted(allowed)),
        certificates={
            f"{name}/{target}": hashlib.sha256(canonical(message)).hexdigest()
            for name, wanted in sorted(prepared.wanted.items())
            for target, message in sorted(wanted.certificates.items())
        },
        salt=salt.hex(),
        secrets=_secrets(prepared, salt),
        gateways={
            name: SavedGateway(seen.facts.record_sha256, seen.facts.charon, seen.facts.kernel)
            for name, seen in sorted(prepared.observed.items())
        },
        document=plan_json(prepared.shown, failures, stops),
        limit=tuple(limit),
    )


def _secrets(prepared: Prepared, salt: bytes) -> str:
    """Return one digest of all secrets: who would guess one has to guess all of them at once."""
    everything = canonical({n: {"shared": w.shared, "keys": w.keys} for n, w in prepared.wanted.items()})
    digest = hashlib.scrypt(everything, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, maxmem=_MEMORY)
    return digest.hex()


def demand_fresh(saved: SavedPlan, now: SavedPlan) -> None:
    """Raise ``PlanStale``, which names what has changed, unless a saved plan is what would be planned now."""
    if why := stale_because(saved, now):
        raise PlanStale(
            f"the plan that {saved.by} saved at {saved.made} is stale: {'; '.join(why)}",
            "Nothing was done. Plan and review again: ipsecctl plan "
            f"{saved.file}{f' --lab {saved.lab}' if saved.lab else ''} --out FILE",
        )

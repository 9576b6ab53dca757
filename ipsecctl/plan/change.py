"""What a plan says: changes with their reasons, graded by what they disturb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from ipsecctl.plan.reasons import Cause, cause_of

__all__ = [
    "Cause",
    "Change",
    "Conflict",
    "Disruption",
    "Fields",
    "GatewayPlan",
    "Hold",
    "Kind",
    "Note",
    "Part",
    "fields",
    "plan_json",
]

Fields = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    """What happens to an object."""

    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"


class Part(StrEnum):
    """What kind of object on a gateway it is."""

    FILE = "file"
    FIREWALL = "firewall"
    INTERFACE = "interface"
    SYSCTL = "sysctl"
    ROUTE = "route"
    RULE = "rule"
    DEVICE = "device"
    UNIT = "unit"
    CERTIFICATE = "certificate"
    KEY = "key"
    SHARED = "shared"
    CONNECTION = "connection"
    CHARON = "charon"
    RECORD = "record"


class Disruption(IntEnum):
    """What a change does to traffic, from nothing to the whole tunnel stopping and starting."""

    NONE = 0
    REKEY = 1
    CHILD_RESTART = 2
    IKE_RESTART = 3

    def __str__(self) -> str:
        return ("none", "rekey", "child restart", "IKE restart")[self]


def fields(values: Mapping[str, str]) -> Fields:
    """Return values by name in the form that a ``Change`` holds: sorted pairs."""
    return tuple(sorted(values.items()))


@dataclass(frozen=True, order=True, slots=True)
class Change:
    """One change on one gateway.

    ``before`` and ``after`` hold the fields that differ, with their values as text, none of them secret;
    empty where the object is not there or cannot be shown. ``reasons`` are sentences for a person, and say
    whether the change is intended or mends drift (``cause``).
    """

    gateway: str
    part: Part
    name: str
    kind: Kind
    before: Fields = ()
    after: Fields = ()
    reasons: tuple[str, ...] = ()
    disruption: Disruption = Disruption.NONE

    @property
    def address(self) -> str:
        """Where the object is: gateway, kind of object, and its name."""
        return f"{self.gateway}/{self.part}/{self.name.lstrip('/')}"

    @property
    def cause(self) -> Cause:
        """Whether somebody wants the change, or it mends what came about on the gateway."""
        return cause_of(self.reasons)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "address": self.address,
            "gateway": self.gateway,
            "part": str(self.part),
            "name": self.name,
            "before": dict(self.before),
            "after": dict(self.after),
            "cause": str(self.cause),
            "reasons": list(self.reasons),
            "disruption": str(self.disruption),
        }


@dataclass(frozen=True, order=True, slots=True)
class Conflict:
    """Something of another's that stands where ours must go: what, and how to mend it."""

    summary: str
    hint: str


@dataclass(frozen=True, order=True, slots=True)
class Note:
    """What whoever applies a plan should know of a gateway and that does not stand against it: what, and how
    to look into it or mend it."""

    summary: str
    hint: str


@dataclass(frozen=True, order=True, slots=True)
class Hold:
    """A tunnel that is left as it runs, and why, with how to mend it: new SAs would not come up."""

    tunnel: str
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """All changes on one gateway, sorted by address, and what stands against them.

    A plan with conflicts is not carried out. ``restart_for`` are the options that charon does not take up
    until it is restarted, be they about to be written or written before, and ``restart`` says how that is
    done there: ``apply`` restarts only a charon that nobody uses, which is a change of the part ``charon``.
    ``charon_down`` says why nothing was planned for charon: then the changes are the host's alone, and
    nothing is taken away yet. ``notes`` keep nothing from being done. ``held`` are tunnels that are not
    touched, and not among the disturbed ones.
    """

    gateway: str
    changes: tuple[Change, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    restart_for: tuple[str, ...] = ()
    version: str = field(default="", compare=False)
    restart: str = ""
    charon_down: str = ""
    notes: tuple[Note, ...] = ()
    held: tuple[Hold, ...] = ()

    def of(self, part: Part, *kinds: Kind) -> tuple[Change, ...]:
        """Return the changes to one kind of object, only those of ``kinds`` where given."""
        return tuple(c for c in self.changes if c.part is part and (not kinds or c.kind in kinds))

    @property
    def drift(self) -> tuple[Change, ...]:
        """The changes that mend what is no longer as it was applied."""
        return tuple(change for change in self.changes if change.cause is Cause.DRIFT)

    @property
    def disturbed(self) -> dict[str, Disruption]:
        """The tunnels that are disturbed, with the grade, sorted by name."""
        held = {hold.tunnel for hold in self.held}
        return {
            c.name: c.disruption
            for c in self.changes
            if c.part is Part.CONNECTION and c.disruption is not Disruption.NONE and c.name not in held
        }


def plan_json(
    plans: Iterable[GatewayPlan], failures: Mapping[str, str], stops: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the document ``ipsecctl/plan/1``; ``failures`` says by gateway why it could not be planned.

    ``stops`` are what keeps it from being carried out unless it is allowed, as JSON.
    """
    plans = sorted(plans, key=lambda plan: plan.gateway)
    return {
        "schema": "ipsecctl/plan/1",
        "changes": [change.as_json() for plan in plans for change in plan.changes],
        "gateways": [
            {
                "name": plan.gateway,
                "charon": plan.version or None,
                "charon_down": plan.charon_down or None,
                "changes": len(plan.changes),
                "drift": len(plan.drift),
                "disturbed": {name: str(grade) for name, grade in plan.disturbed.items()},
                "held": {hold.tunnel: list(hold.causes) for hold in plan.held},
                "restart_for": list(plan.restart_for),
                "restart": plan.restart if plan.restart_for else None,
                "conflicts": [{"summary": c.summary, "hint": c.hint} for c in plan.conflicts],
                "notes": [{"summary": n.summary, "hint": n.hint} for n in plan.notes],
            }
            for plan in plans
        ],
        "stops": list(stops),
        "failures": dict(sorted(failures.items())),
    }

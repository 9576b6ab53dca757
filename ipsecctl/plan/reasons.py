"""Why an object is to be changed, in words for a person; and of what kind that why is.

A plain reason is somebody's wish: the topology, or what it refers to, says so. A ``Drift`` lies on the
gateway: what was applied there is no longer so. A ``CutOff`` lies in an earlier apply, which did not come to
its end. A ``NotCompleted`` lies in one that did, and left running SAs as they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

__all__ = [
    "ALTERED",
    "BY_HAND",
    "CUT_OFF",
    "DECLARED",
    "NOT_THERE",
    "NO_LONGER",
    "UNDECLARED",
    "Cause",
    "CutOff",
    "Drift",
    "NotCompleted",
    "cause_of",
]


class Cause(StrEnum):
    """Where a change comes from."""

    INTENDED = "intended"
    DRIFT = "drift"
    CUT_OFF = "cut off"
    NOT_COMPLETED = "not completed"


class Drift(str):
    """A reason of drift: what was applied is no longer so, and nobody declared that."""

    __slots__ = ()


class CutOff(str):
    """The reason that an earlier apply did not come to its end."""

    __slots__ = ()


class NotCompleted(str):
    """The reason that the last apply did not complete a change, as SAs with it did not come up."""

    __slots__ = ()


DECLARED: Final = "declared in the topology"
NO_LONGER: Final = "no longer in the topology"
ALTERED: Final = "the topology or what it refers to has changed"
CUT_OFF: Final = CutOff("an earlier apply was cut off here")
BY_HAND: Final = Drift("altered on the gateway by hand since the last apply")
NOT_THERE: Final = Drift("it was applied and is no longer there")
UNDECLARED: Final = Drift("it bears our mark, and was not applied: made by hand")


def cause_of(reasons: Iterable[str]) -> Cause:
    """Return the cause that reasons come to: drift is never hidden behind what is intended as well."""
    kinds = {type(reason) for reason in reasons}
    if Drift in kinds:
        return Cause.DRIFT
    if CutOff in kinds:
        return Cause.CUT_OFF
    return Cause.NOT_COMPLETED if NotCompleted in kinds else Cause.INTENDED

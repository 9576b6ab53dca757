"""The check of the gateways themselves: the firewall as applied, and forwarding."""

from __future__ import annotations

import asyncio

import pytest

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Guard
from ipsecctl.probe import GUARD, Outcome
from ipsecctl.probe.guard import GuardSeen, guard_checks, look_at_guards

HOLDS, FAILS, COULD_NOT_RUN = Outcome.HOLDS, Outcome.FAILS, Outcome.COULD_NOT_RUN
WELL = GuardSeen(Guard.LOADED, True)


def test_each_managed_end_has_a_check_of_its_own(world):
    checks = guard_checks(world.tunnel, {"gw-north": WELL, "gw-south": WELL})
    assert [(c.check, c.direction, c.outcome) for c in checks] == [
        (GUARD, "at gw-north", HOLDS),
        (GUARD, "at gw-south", HOLDS),
    ]
    document = checks[0].as_json()
    assert (document["expected"], document["measured"]) == ("loaded, forwards", "loaded, forwards")
    assert document["flow"] is document["family"] is document["source"] is None


def test_a_gateway_of_somebody_else_is_not_judged(foreign_world):
    checks = guard_checks(foreign_world.tunnel, {"gw-north": WELL})
    assert [c.direction for c in checks] == ["at gw-north"]


@pytest.mark.parametrize(
    ("guard", "forwarding", "outcome", "measured", "seen"),
    [
        (Guard.MISSING, True, FAILS, "missing, forwards", "table inet ipsecctl is missing"),
        (Guard.ALTERED, True, FAILS, "altered, forwards", "is not as it was applied"),
        (Guard.LOADED, False, FAILS, "loaded, does not forward", "the kernel does not forward"),
        (Guard.MISSING, None, FAILS, "missing, forwarding not known", "is missing"),
        (Guard.UNKNOWN, False, FAILS, "not known, does not forward", "does not forward"),
        (Guard.UNKNOWN, True, COULD_NOT_RUN, None, "could not be held against what was applied"),
        (Guard.LOADED, None, COULD_NOT_RUN, None, "whether the kernel forwards could not be seen"),
        (Guard.UNKNOWN, None, COULD_NOT_RUN, None, "could not be seen"),
    ],
)
def test_anything_else_than_loaded_and_forwarding(world, guard, forwarding, outcome, measured, seen):
    north, south = guard_checks(world.tunnel, {"gw-north": GuardSeen(guard, forwarding), "gw-south": WELL})
    assert (north.outcome, north.measured) == (outcome, measured)
    assert seen in north.evidence
    assert south.outcome is HOLDS


def test_a_gateway_that_was_not_looked_at_could_not_be_judged(world):
    assert {c.outcome for c in guard_checks(world.tunnel, {})} == {COULD_NOT_RUN}


class Gone:
    """A gateway that cannot be reached."""

    name = "gw-north"

    async def run(self, *_: object, **__: object) -> None:
        raise GatewayUnreachable(self.name, "it is away")


def test_a_gateway_that_is_away_is_no_error():
    assert asyncio.run(look_at_guards({"gw-north": Gone()})) == {"gw-north": GuardSeen()}

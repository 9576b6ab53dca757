"""The table of proofs: a row holds only when all that stands behind it does."""

from __future__ import annotations

from typing import Any

import pytest

from ipsecctl.cli._demo import (
    proof_of_routes,
    proofs_of_apply,
    proofs_of_outage,
    proofs_of_probe,
    proofs_of_status,
)
from ipsecctl.probe import LeakReport, Outcome


def check(**more: Any) -> dict[str, Any]:
    return {
        "check": "mtu",
        "claim": "largest packet",
        "direction": "a -> b",
        "outcome": "holds",
        "expected": 1400,
        "measured": 1400,
        "evidence": "1400 passes",
    } | more


def test_a_row_has_what_was_computed_and_what_was_measured():
    (row,) = proofs_of_probe({"tunnels": [{"name": "t", "checks": [check(), check()]}]})
    assert (row.claim, row.expected, row.measured, row.holds) == ("t: largest packet", "1400", "1400", True)


@pytest.mark.parametrize("outcome", ["fails", "could not run"])
def test_one_check_that_does_not_hold_spoils_its_row_and_says_why(outcome):
    bad = check(outcome=outcome, measured=1392, evidence="1393 does not pass")
    (row,) = proofs_of_probe({"tunnels": [{"name": "t", "checks": [check(), bad]}]})
    assert not row.holds
    assert row.measured == "1400; a -> b: 1393 does not pass"


def test_a_tunnel_without_checks_is_no_proof():
    (row,) = proofs_of_probe({"tunnels": [{"name": "t", "checks": []}]})
    assert not row.holds


@pytest.mark.parametrize(
    ("verdicts", "holds"), [(["up", "up"], True), (["up", "degraded"], False), ([], False)]
)
def test_all_tunnels_are_up(verdicts, holds):
    (row,) = proofs_of_status({"tunnels": [{"verdict": verdict} for verdict in verdicts]})
    assert row.holds is holds


def test_a_second_apply_that_does_something_is_no_proof():
    gateways = [{"changes": 0}, {"changes": 2}]
    (row,) = proofs_of_apply({"nothing_to_do": False, "gateways": gateways})
    assert (row.measured, row.holds) == ("2 changes", False)


def leak(outcome: Outcome, leaked: int) -> LeakReport:
    return LeakReport("t", outcome, 200, 90, leaked, 800, 300, "as the test says")


@pytest.mark.parametrize(
    ("outcome", "leaked", "dropped", "hold"),
    [
        (Outcome.HOLDS, 0, 57, [True, True]),
        (Outcome.HOLDS, 0, 0, [True, False]),  # nothing came as far as the firewall: it is not proven
        (Outcome.FAILS, 3, 57, [False, True]),
        (Outcome.COULD_NOT_RUN, 0, 57, [False, True]),
    ],
)
def test_the_firewall_is_proven_only_by_what_it_dropped_and_by_a_clean_wan(outcome, leaked, dropped, hold):
    rows = list(proofs_of_outage("t", "gw", leak(outcome, leaked), dropped))
    assert [row.holds for row in rows] == hold
    assert [row.measured for row in rows] == [
        f"{leaked} of 200 sent, 800 WAN packets looked at",
        str(dropped),
    ]


@pytest.mark.parametrize(("after", "holds"), [({"a", "b", "c"}, True), ({"a", "c"}, False), (set(), False)])
def test_every_route_that_was_there_must_be_back(after, holds):
    assert proof_of_routes("gw", frozenset({"a", "b"}), frozenset(after)).holds is holds

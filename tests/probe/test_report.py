"""What many checks come to, and the JSON of it."""

import json

import pytest

from ipsecctl.probe import Check, NotApplicable, Outcome, TunnelReport, exit_status, report_json
from ipsecctl.probe.report import together

HOLDS, FAILS, COULD_NOT_RUN = Outcome.HOLDS, Outcome.FAILS, Outcome.COULD_NOT_RUN


def report(*outcomes):
    checks = tuple(
        Check("mtu", "largest packet", "all", "a -> b", 4, outcome, 1400, 1392, "seen", "a-lan", "b-lan")
        for outcome in outcomes
    )
    return TunnelReport(
        "t", checks, (NotApplicable("mss-syn", "all", "a -> b", 4, "the flow carries no TCP"),)
    )


@pytest.mark.parametrize(
    ("outcomes", "amounts_to", "status"),
    [
        ((HOLDS, HOLDS), HOLDS, 0),
        ((HOLDS, FAILS, COULD_NOT_RUN), FAILS, 1),
        ((HOLDS, COULD_NOT_RUN), COULD_NOT_RUN, 3),
        ((), COULD_NOT_RUN, 3),
    ],
)
def test_the_worst_counts_and_nothing_proves_nothing(outcomes, amounts_to, status):
    assert together(outcomes) is amounts_to
    assert exit_status([report(*outcomes)]) == status


def test_no_tunnel_at_all_is_not_fine():
    assert exit_status([]) == 3


def test_the_document():
    document = report_json([report(FAILS)])
    assert json.loads(json.dumps(document)) == {
        "schema": "ipsecctl/probe-tunnel/1",
        "tunnels": [
            {
                "name": "t",
                "outcome": "fails",
                "checks": [
                    {
                        "check": "mtu",
                        "claim": "largest packet",
                        "flow": "all",
                        "direction": "a -> b",
                        "family": "ipv4",
                        "outcome": "fails",
                        "expected": 1400,
                        "measured": 1392,
                        "evidence": "seen",
                        "source": "a-lan",
                        "destination": "b-lan",
                    }
                ],
                "not_applicable": [
                    {
                        "check": "mss-syn",
                        "flow": "all",
                        "direction": "a -> b",
                        "family": "ipv4",
                        "why": "the flow carries no TCP",
                    }
                ],
            }
        ],
    }

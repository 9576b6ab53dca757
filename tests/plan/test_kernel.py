"""A plan for gateways whose kernel lost what charon believes in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipsecctl.gateway import NotInKernel, Observed, Record, Seen
from ipsecctl.plan import Disruption, Kind, Part, Wanted, plan_gateway
from ipsecctl.topology import DataPath

MESSAGE = {"version": "2", "children": {"t": {"mode": "tunnel", "start_action": "trap"}}}
WANTED = Wanted("gw", "top", connections={"t": MESSAGE})
SAS = NotInKernel("t", "t", "c0ffee01", sas=("inbound c0ffee01",))
POLICIES = NotInKernel("t", "t", "c0ffee01", policies=("out x to y",), dead=False)
ROUTES = NotInKernel("t", "t", "c0ffee01", routes=("10.2.0.0/24",))


def observed(*missing, message=MESSAGE):
    record = Record(b"k" * 32, topology="top")
    record = replace(
        record,
        connections={"t": record.digest("connection", message)},
        messages={"t": message},
        seen=Seen("6.1.0", {"t": record.digest("seen", {})}, ""),
    )
    seen = Observed("gw", "6.1.0", DataPath.KERNEL, {"t": {}}, not_in_kernel=missing)
    return replace(seen, facts=replace(seen.facts, record=record))


def test_nothing_is_lost_nothing_is_to_be_done():
    assert plan_gateway(WANTED, observed()).changes == ()
    assert plan_gateway(WANTED, observed(replace(SAS, tunnel="somebody's"))).changes == ()


@pytest.mark.parametrize(
    ("missing", "reasons"),
    [
        ((SAS,), ["the kernel does not have its SAs, which charon believes in: they are made anew"]),
        ((POLICIES,), ["the kernel does not have the IPsec policies of its SAs: they are made anew"]),
        (
            (ROUTES,),
            ["charon's routes through ipsec0 are not there: its SAs are made anew, and the routes with them"],
        ),
        (
            (SAS, POLICIES),
            ["the kernel does not have its SAs, which charon believes in: they are made anew"],
        ),
    ],
)
def test_what_is_lost_is_made_anew(missing, reasons):
    plan = plan_gateway(WANTED, observed(*missing))
    (change,) = plan.changes
    assert (change.part, change.name, change.kind) == (Part.CONNECTION, "t", Kind.CHANGE)
    assert list(change.reasons) == reasons
    assert plan.disturbed == {"t": Disruption.CHILD_RESTART}


def test_a_change_that_breaks_nothing_makes_lost_sas_anew_too():
    old = {**MESSAGE, "dpd_delay": "15s"}
    assert plan_gateway(WANTED, observed(message=old)).disturbed == {"t": Disruption.REKEY}
    assert plan_gateway(WANTED, observed(SAS, message=old)).disturbed == {"t": Disruption.CHILD_RESTART}

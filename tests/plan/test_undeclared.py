"""Traps and CHILD_SAs that are not declared: which are named, which are ended, and whose are left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.gateway import Facts, Observed, Record
from ipsecctl.plan import Disruption, Kind, Wanted, plan_gateway, traps_of, undeclared_sas
from ipsecctl.topology import DataPath

NAMES = frozenset("abcdef")


def connection(*names, start="trap", local="10.1.0.0/24"):
    body = {"local_ts": [local], "remote_ts": ["10.2.0.0/24"], "start_action": start}
    return {"children": dict.fromkeys(names, body)}


def seen(*applied, traps=None, sas=(), begun=False, loaded=True):
    """Return a gateway on which connection ``t`` was applied with some children."""
    record, message = Record(b"k" * 32, topology="top"), connection(*applied)
    digest = "" if begun else record.digest("connection", message)
    record = replace(record, connections={"t": digest}, messages={"t": message})
    children = {f"{n}-{i}": {"name": n, "uniqueid": str(i), "state": "INSTALLED"} for i, n in enumerate(sas)}
    return Observed(
        "gw",
        "6.1.0",
        DataPath.KERNEL,
        {"t": {}} if loaded else {},
        facts=Facts(record=record),
        sas=({"t": {"state": "ESTABLISHED", "child-sas": children}},) if sas else (),
        traps=traps,
    )


def wanted(*names, **more):
    return Wanted("gw", "top", connections={"t": connection(*names, **more)} if names else {})


def reasons(target, observed):
    return [reason for change in plan_gateway(target, observed).changes for reason in change.reasons]


def test_a_trap_of_no_declared_child_is_drift_that_disturbs_nothing():
    observed = seen("a", traps={"t": frozenset("ab"), "others": frozenset("x")})
    (change,) = plan_gateway(wanted("a"), observed).changes
    assert (change.kind, change.cause, change.disruption) == (Kind.CHANGE, "drift", Disruption.NONE)
    assert change.reasons == ("charon has a trap for b, which is not declared: it would call",)


def test_a_declared_trap_that_is_missing_is_drift():
    (change,) = plan_gateway(wanted("a"), seen("a", traps={})).changes
    assert (change.cause, change.disruption) == ("drift", Disruption.NONE)
    assert change.reasons == ("the trap of a is not there: no packet would call for it",)


@pytest.mark.parametrize("traps", [None, {"t": frozenset("a")}, {"t": frozenset("a"), "x": frozenset("b")}])
def test_what_is_as_declared_unknown_or_anothers_is_no_change(traps):
    assert plan_gateway(wanted("a"), seen("a", traps=traps)).changes == ()


def test_the_end_that_is_called_has_no_trap():
    found = traps_of(wanted("a", start="none"), seen("a"), "t", frozenset("a"))
    assert (found.missing, found.stray) == ((), ("a",))


def test_what_a_change_itself_takes_away_or_adds_is_no_drift():
    (change,) = plan_gateway(wanted("b"), seen("a", traps={"t": frozenset("a")})).changes
    assert change.cause == "intended"
    (change,) = plan_gateway(wanted("b"), seen("a", traps={"t": frozenset("ac")})).changes
    assert change.cause == "drift"
    assert "charon has a trap for c, which is not declared: it would call" in change.reasons


def test_of_a_connection_that_is_gone_a_trap_may_be_left():
    (change,) = plan_gateway(wanted(), seen("a", traps={"t": frozenset("a")}, loaded=False)).changes
    assert (change.kind, change.disruption) == (Kind.REMOVE, Disruption.NONE)
    assert "still has a trap of it" in change.reasons[0]


def test_a_child_sa_that_no_apply_has_asked_for_is_ended_first():
    observed = seen("a", sas=("a", "b"))
    assert undeclared_sas(wanted("a", "b"), observed, "t") == (("b", "1"),)
    assert "its CHILD_SA b is of no declared child: it is ended first" in reasons(wanted("b"), observed)


def test_after_an_apply_that_was_cut_off_what_is_now_declared_may_be_its_own():
    observed = seen("a", sas=("a", "b", "c"), begun=True)
    assert undeclared_sas(wanted("b"), observed, "t") == (("c", "2"),)


@given(st.sets(st.sampled_from(sorted(NAMES)), min_size=1), st.sets(st.sampled_from(sorted(NAMES))))
def test_what_is_installed_and_uninstalled_leaves_just_what_is_declared(declared, there):
    found = traps_of(wanted(*declared), seen("a"), "t", frozenset(there))
    assert (there | {*found.missing}) - {*found.stray} == declared
    assert not {*found.missing} & there
    assert {*found.stray} <= there

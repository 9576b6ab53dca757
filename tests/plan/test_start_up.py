"""What charon reads only when it starts: the plan says so until it is restarted."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ipsecctl.cli._plan import print_plan
from ipsecctl.desired import Daemon, GatewayState
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Facts, NewFile, Observed, Record, StartUp
from ipsecctl.plan import Disruption, Part, Wanted, plan_gateway, plan_json, start_up
from ipsecctl.plan.start_up import plugin_options
from ipsecctl.render import STRONGSWAN_FILE, render_files
from ipsecctl.topology import DataPath

LIBIPSEC = {"kernel-libipsec.load": "yes", "kernel-libipsec.raw_esp": "yes"}


def strongswan_conf(data_path, mtu):
    state = GatewayState("gw", "site", data_path, (), (), (), (), (), (), 0, Daemon(route_mtu=mtu))
    return next(file for file in render_files(state, {}, {}) if file.path == STRONGSWAN_FILE)


def wanted(data_path=DataPath.LIBIPSEC, mtu=0):
    file = strongswan_conf(data_path, mtu)
    files = {file.path: NewFile(file.path, file.content, file.mode)}
    return Wanted("gw", "top", files=files, data_path=data_path)


def seen(data_path=DataPath.LIBIPSEC, record=None, charon="first"):
    return Observed("gw", "6.1.0", data_path, {}, facts=Facts(record=record, charon=charon))


def after(target, observed):
    """Return what is observed after an apply, as far as the start of charon goes."""
    record = replace(observed.facts.record or Record.fresh(), start_up=start_up(target, observed))
    return replace(observed, facts=replace(observed.facts, record=Record.from_json(record.to_json())))


def restarted(observed):
    return replace(observed, facts=replace(observed.facts, charon="second"))


def test_the_options_are_those_that_we_render():
    assert plugin_options(strongswan_conf(DataPath.KERNEL, 0).content) == {}
    assert plugin_options(strongswan_conf(DataPath.LIBIPSEC, 0).content) == LIBIPSEC
    with_mtu = plugin_options(strongswan_conf(DataPath.LIBIPSEC, 1350).content)
    assert with_mtu == {**LIBIPSEC, "kernel-netlink.mtu": "1350"}


@pytest.mark.parametrize("path", [DataPath.KERNEL, DataPath.LIBIPSEC])
def test_a_first_apply_on_the_data_path_that_runs_needs_no_restart(path):
    made = plan_gateway(wanted(path), seen(path))
    assert made.restart_for == ()
    assert {change.disruption for change in made.changes} == {Disruption.NONE}


@pytest.mark.parametrize(
    ("target", "runs", "options"),
    [
        (wanted(mtu=1350), DataPath.LIBIPSEC, ("kernel-netlink.mtu = 1350",)),
        (wanted(), DataPath.KERNEL, ("kernel-libipsec.load = yes", "kernel-libipsec.raw_esp = yes")),
    ],
)
def test_a_first_apply_that_asks_for_more_says_so(target, runs, options):
    made = plan_gateway(target, seen(runs))
    assert made.restart_for == options
    (change,) = made.changes
    assert change.disruption is Disruption.IKE_RESTART
    assert change.reasons[-1] == f"charon must be restarted for it: {', '.join(options)}"
    assert plan_json([made], {})["gateways"][0]["restart_for"] == list(options)


def unused(observed, **changes):
    """A charon without SAs or connections, where it is known how to restart it."""
    facts = replace(observed.facts, restart_command=("systemctl", "restart", "strongswan"))
    return replace(observed, facts=facts, ike_sas=0, **changes)


def test_a_charon_that_nobody_uses_will_be_restarted():
    made = plan_gateway(wanted(mtu=1350), unused(seen()))
    (restart,) = made.of(Part.CHARON)
    assert restart.reasons == (
        "charon will be restarted: it holds no SA",
        "it reads kernel-netlink.mtu = 1350 only when it starts",
    )
    assert made.restart_for == ()
    assert {change.disruption for change in made.changes} == {Disruption.NONE}
    (file,) = made.of(Part.FILE)
    assert file.reasons[-1] == "charon is restarted for it"


def test_it_is_restarted_later_too_with_nothing_else_to_do():
    observed = after(wanted(mtu=1350), seen())
    made = plan_gateway(wanted(mtu=1350), unused(observed))
    assert len(made.of(Part.CHARON)) == 1
    assert plan_gateway(wanted(mtu=1350), unused(restarted(observed))).of(Part.CHARON) == ()


@pytest.mark.parametrize(
    "used",
    [
        {"ike_sas": 1},
        {"ike_sas": None},
        {"connections": {"theirs": {}}},
        {"facts": Facts(charon="first")},
    ],
    ids=["an SA", "nobody knows", "another's connection", "no way is known"],
)
def test_one_that_somebody_may_use_is_left_alone(used):
    made = plan_gateway(wanted(mtu=1350), replace(unused(seen()), **used))
    assert made.of(Part.CHARON) == ()
    assert made.restart_for == ("kernel-netlink.mtu = 1350",)


def test_our_own_connections_are_no_reason_not_to():
    record = replace(Record.fresh(), topology="top", connections={"t": ""})
    observed = unused(seen(record=record), connections={"t": {}})
    assert len(plan_gateway(wanted(mtu=1350), observed).of(Part.CHARON)) == 1


def test_nothing_is_restarted_for_nothing():
    assert plan_gateway(wanted(), unused(seen())).of(Part.CHARON) == ()


def test_it_is_pending_until_charon_was_restarted():
    target = wanted(mtu=1350)
    observed = after(target, seen())
    assert plan_gateway(target, observed).restart_for == ("kernel-netlink.mtu = 1350",)
    assert plan_gateway(target, after(target, observed)).restart_for == ("kernel-netlink.mtu = 1350",)
    assert plan_gateway(target, restarted(observed)).restart_for == ()
    # An apply after the restart writes that down, and what it changes is again pending.
    again = after(target, restarted(observed))
    assert plan_gateway(target, again).restart_for == ()
    assert plan_gateway(wanted(), again).restart_for == ("kernel-netlink.mtu = default",)


def test_what_an_earlier_version_told_the_kernels_data_path_is_no_reason_to_restart():
    kernel = wanted(DataPath.KERNEL)
    old = replace(Record.fresh(), start_up=StartUp("first", {}, {"kernel-netlink.mtu": "1430"}))
    for charon in ("first", "second"):
        assert plan_gateway(kernel, seen(DataPath.KERNEL, old, charon)).restart_for == ()


def test_what_is_taken_back_before_a_restart_needs_none():
    observed = after(wanted(mtu=1350), seen())
    assert plan_gateway(wanted(), observed).restart_for == ()


def test_a_record_from_before_counts_as_none():
    document = Record.fresh().to_json().replace(b'"start_up"', b'"unknown_to_us"')
    record = Record.from_json(document)
    assert record.start_up == StartUp()
    assert plan_gateway(wanted(), seen(record=record)).restart_for == ()


def test_the_screen_never_says_nothing_to_do_while_it_is_pending():
    out = io.StringIO()
    made = replace(plan_gateway(wanted(mtu=1350), seen()), changes=())
    print_plan([made], {}, out)
    assert out.getvalue() == (
        "gw (charon 6.1.0)\n"
        "  restart: charon on gw must be restarted for kernel-netlink.mtu = 1350\n"
        "      apply does not do that, as all tunnels of gw go down: restart charon there\n"
        "Nothing to apply: charon must be restarted on gw.\n"
    )


def test_a_charon_that_does_not_run_will_read_all_of_it():
    target = wanted(mtu=1350)
    applied = after(target, seen())
    down = replace(applied, charon_down=GatewayUnreachable("gw", "charon is not running", charon_down=True))
    assert plan_gateway(wanted(mtu=1300), down).restart_for == ()
    again = replace(after(wanted(mtu=1300), down), charon_down=None)
    assert plan_gateway(wanted(mtu=1300), again).restart_for == ()
    assert plan_gateway(wanted(), after(wanted(mtu=1300), again)).restart_for == (
        "kernel-netlink.mtu = default",
    )

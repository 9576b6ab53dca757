"""From batch to batch: what passes the gate, what goes back, what is not begun. The gateways are made up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

import ipsecctl.deploy.fleet as fleet
from ipsecctl.deploy.fleet import Rollout, Turn, roll_out
from ipsecctl.deploy.outcome import GatewayResult
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.deploy.tunnels import TunnelResult
from ipsecctl.deploy.undo import Net, Waiting
from ipsecctl.errors import ApplyFailed, GatewayUnreachable
from ipsecctl.gateway import UndoState, Way
from ipsecctl.health import TunnelHealth, Verdict
from ipsecctl.plan import Change, GatewayPlan, Kind, Part, Share
from ipsecctl.topology import load_text

TOPOLOGY = """
ipsecctl: 1
name: star
defaults: {control: lab, credential: {psk: "env:PSK"}}
sites:
  hub: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  s1: {networks: {lan: 10.2.1.0/24}, gateway: 203.0.113.1}
  s2: {networks: {lan: 10.2.2.0/24}, gateway: 203.0.113.2}
  s3: {networks: {lan: 10.2.3.0/24}, gateway: 203.0.113.3}
  s4: {networks: {lan: 10.2.4.0/24}, gateway: 203.0.113.4}
tunnels: {t: {hub: hub, spokes: ["s*"]}}
"""
ALL = ("hub", "s1", "s2", "s3", "s4")


def prepared(changed=ALL, failures=(), limit=None):
    loaded = load_text(TOPOLOGY, "star.yaml")
    plans = tuple(
        GatewayPlan(name, (Change(name, Part.FILE, "/x", Kind.CHANGE),) if name in changed else ())
        for name in ALL
        if name not in failures
    )
    lost = {name: GatewayUnreachable(name, "is off") for name in failures}
    handles = dict.fromkeys(ALL)
    return Prepared(loaded.topology, (), handles, {}, {}, plans, lost, limit=limit)


def tunnel(name, verdict=Verdict.UP, *causes):
    return TunnelResult(TunnelHealth(name, verdict, causes, (), (name,)), 0.1, acted=True)


class Work:
    """Stands for what changes gateways: ``fails`` do, and the tunnels of ``down`` do not come up."""

    def __init__(self, what, fails=(), down=(), open_=None):
        self.prepared = what
        self.fails = fails
        self.down = down
        self.open = open_ or {}
        self.batch = {}
        self.results = {}
        self.tunnels = {}
        self.turns = []
        self.well = []
        self.did = []
        self.report = SimpleNamespace(batch=lambda batch, count: self.well.append((batch.number, count)))

    def unplanned(self):
        for name, error in self.prepared.failures.items():
            self.say(GatewayResult(name, 0, 0.0, error))

    async def turn(self, gateways, *, last, passes, wait_for_all):
        self.turns.append((sorted(gateways), last, wait_for_all))
        for name in sorted(gateways):
            error = ApplyFailed(f"{name}: no") if name in self.fails else None
            self.say(GatewayResult(name, 1, 0.1, error, batch=self.batch.get(name, 0)))
        ends = {name for name in gateways if name != "hub"}
        results = {f"t-{n}": tunnel(f"t-{n}", Verdict.DOWN if n in self.down else Verdict.UP) for n in ends}
        self.tunnels |= results
        return passes(Turn({*self.fails} & {*gateways}, results))

    async def stragglers(self):
        self.did.append("stragglers")

    async def close(self):
        self.did.append("close")
        return self.open

    def drop(self, gateways):
        self.did.append(f"drop {' '.join(sorted(gateways))}")

    def say(self, result):
        self.results[result.name] = result

    async def strike_out(self):
        self.did.append("strike out")

    @property
    def outcomes(self):
        return {name: result.outcome for name, result in sorted(self.results.items())}


@pytest.fixture
def ended(monkeypatch):
    """Return how the nets ended: the gateways, their net, and whether with success."""
    told = []

    @asynccontextmanager
    async def armed(what, net, *, token):
        names = {plan.gateway: None for plan in what.plans}

        async def end(*, succeeded):
            told.append((sorted(names), net, succeeded))
            back = {n: UndoState(Way.BACK, said="back") for n in names}
            gone = None if succeeded or not net.on_failure else back
            waits = tuple(names) if succeeded and net.within_s else ()
            return Waiting(token, waits, net.within_s or 0, undone=gone)

        yield SimpleNamespace(handles=names, end=end, net=net)

    monkeypatch.setattr(fleet, "armed", armed)
    return told


def run(work, rollout, net=None):
    return asyncio.run(roll_out(work, rollout, net))


GATED = Net(on_failure=True)
BY_TWO = Rollout(canary=frozenset(("s1",)), size=Share(2))


def test_without_batches_all_are_changed_side_by_side(ended):
    work = Work(prepared(changed=("hub", "s1")))
    assert run(work, Rollout()) == ("", None)
    assert work.turns == [(list(ALL), True, False)]
    assert (ended, work.well) == ([], [])


def test_nothing_to_change_is_a_turn_all_the_same(ended):
    work = Work(prepared(changed=()))
    assert run(work, BY_TWO) == ("", None)
    assert work.turns == [(list(ALL), True, True)]


def test_batches_one_after_the_other_each_kept_when_it_is_well(ended):
    work = Work(prepared())
    assert run(work, BY_TWO)[0] == ""
    assert [turn[:2] for turn in work.turns] == [
        (["hub", "s1"], False),
        (["s2", "s3"], False),
        (["s4"], True),
    ]
    assert ended == [(["hub", "s1"], GATED, True), (["s2", "s3"], GATED, True), (["s4"], GATED, True)]
    assert work.well == [(1, 3), (2, 3), (3, 3)]
    assert {*work.outcomes.values()} == {"applied"}


@pytest.mark.parametrize("broken", [{"fails": ["s3"]}, {"down": ["s3"]}])
def test_a_batch_that_fails_goes_back_and_no_further_one_is_begun(ended, broken):
    work = Work(prepared(), open_={"hub": ("t-s2", "t-s3", "t-s4")}, **broken)
    stopped, waiting = run(work, BY_TWO)
    assert stopped.startswith("batch 2 of 3 failed: s3: ")
    assert [turn[0] for turn in work.turns] == [["hub", "s1"], ["s2", "s3"]]
    assert ended[1:] == [(["s2", "s3"], GATED, False)]
    assert work.outcomes == {
        "hub": "partly",
        "s1": "applied",
        "s2": "rolled back",
        "s3": "rolled back",
        "s4": "not begun",
    }
    assert "t-s2, t-s3, t-s4 still have to be completed" in work.results["hub"].error.summary
    assert work.results["s2"].error.summary.startswith("s2: batch 2 of 3 failed: s3: ")
    assert work.did == ["drop s2 s3", "stragglers", "close", "strike out"]
    assert {*waiting.undone} == {"s2", "s3"}


def test_a_canary_that_fails_takes_its_hub_back_with_it(ended):
    work = Work(prepared(), down=["s1"])
    stopped, _ = run(work, BY_TWO)
    assert stopped == "the canary failed: s1: tunnel t-s1: it is down"
    assert work.outcomes["hub"] == work.outcomes["s1"] == "rolled back"
    assert work.well == []


def test_undo_on_failure_takes_earlier_batches_back_too(ended):
    work = Work(prepared(), fails=["s3"])
    run(work, BY_TWO, Net(on_failure=True))
    assert [(names, good) for names, _, good in ended] == [(["s2", "s3"], False), (["hub", "s1"], False)]
    assert {*work.outcomes.values()} == {"rolled back", "not begun"}
    assert "drop hub s1" in work.did


def test_with_confirm_all_batches_wait_together_at_the_end(ended):
    work = Work(prepared())
    _, waiting = run(work, BY_TWO, Net(within_s=300))
    assert waiting.gateways == ALL
    assert work.did[-1] == "strike out"
    assert {net for _, net, _ in ended} == {Net(300, on_failure=True)}


def test_what_was_well_waits_for_its_confirmation_though_a_later_batch_failed(ended):
    work = Work(prepared(), fails=["s3"])
    _, waiting = run(work, BY_TWO, Net(within_s=300))
    assert (waiting.gateways, {*waiting.undone}) == (("hub", "s1"), {"s2", "s3"})


def test_max_fail_lets_so_many_fail_and_not_one_more(ended):
    work = Work(prepared(), fails=["s2"], down=["s4"])
    stopped, _ = run(work, Rollout(size=Share(1), max_fail=Share(1)))
    assert stopped.startswith("batch 4 of 4 failed: s4: tunnel t-s4")
    assert work.outcomes["s2"] == "failed"
    assert work.outcomes["s3"] == "applied"
    assert work.outcomes["s4"] == "rolled back"


def test_a_tunnel_that_is_let_pass_is_its_gateways_failure(ended):
    work = Work(prepared(), down=["s4"])
    assert run(work, Rollout(size=Share(1), max_fail=Share(20, of_all=True)))[0] == ""
    assert work.results["s4"].error.summary == "s4: tunnel t-s4: it is down"


def test_one_that_cannot_be_looked_at_holds_up_nobody(ended):
    work = Work(prepared(failures=["s1"]))
    assert run(work, BY_TWO)[0] == ""
    assert work.outcomes == dict.fromkeys(ALL, "applied") | {"s1": "failed"}


def test_it_counts_where_it_is_said_how_many_may_fail(ended):
    work = Work(prepared(failures=["s1", "s2"]))
    with pytest.raises(ApplyFailed, match=r"nothing was done: 2 gateways failed .* --max-fail 1 lets 1 fail"):
        run(work, Rollout(max_fail=Share(1)))
    assert (work.turns, work.results) == ([], {})
    assert run(work, Rollout(max_fail=Share(2)))[0] == ""


def test_one_that_is_not_in_the_limit_does_not_count(ended):
    work = Work(prepared(failures=["s1"], limit=frozenset(("hub", "s2"))))
    assert run(work, Rollout(max_fail=Share(0)))[0] == ""


def test_where_the_way_back_cannot_be_had_the_batch_is_not_begun(ended, monkeypatch):
    there = fleet.armed

    def full(what, net, *, token):
        if any(plan.gateway == "s2" for plan in what.plans):
            raise ApplyFailed("nothing was done: s2: disk full")
        return there(what, net, token=token)

    monkeypatch.setattr(fleet, "armed", full)
    work = Work(prepared())
    stopped, _ = run(work, BY_TWO)
    assert stopped == "batch 2 of 3 failed: s2: disk full"
    assert {n for n, outcome in work.outcomes.items() if outcome == "not begun"} == {"s2", "s3", "s4"}


@pytest.mark.parametrize(
    ("turn", "bad"),
    [
        (Turn((), {"t": tunnel("t")}), {}),
        (Turn((), {"t": tunnel("t", Verdict.UNKNOWN, "s3 is off")}), {"t": "it is unknown: s3 is off"}),
        (Turn((), {"t": tunnel("t", Verdict.DEGRADED, "left")}), {"t": "it is degraded: left"}),
        (Turn((), {"t": tunnel("t", Verdict.DEGRADED, "old")}, {"t": ("old",)}), {}),
        (
            Turn((), {"t": tunnel("t", Verdict.DEGRADED, "left", "old")}, {"t": ("old",)}),
            {"t": "it is degraded: left; old"},
        ),
        (Turn((), {}, dead=["u"]), {"u": "it carries nothing any more"}),
    ],
)
def test_what_keeps_the_gate_shut(turn, bad):
    assert turn.bad == bad

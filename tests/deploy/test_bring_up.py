"""Bringing tunnels up, as a script of what the ends show and what is sent to them."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
from netaddr import IPAddress

import ipsecctl.deploy.line as line
import ipsecctl.deploy.tunnels as tunnels
from ipsecctl.deploy.doubts import Obstacles
from ipsecctl.deploy.tunnels import bring_up
from ipsecctl.errors import GatewayUnreachable, ViciRefused
from ipsecctl.gateway import LiveView
from ipsecctl.health import Declared, Verdict
from ipsecctl.health.traffic import Traffic
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway


def gateway(name):
    control = Control(ControlKind.LAB)
    return Gateway(name, name, IPAddress("192.0.2.1"), False, None, 1500, control, DataPath.AUTO, name, True)


TUNNEL = Declared("t", gateway("a"), gateway("b"), ("t",))


def sa(spi_in, spi_out, unique_id="1", state="ESTABLISHED"):
    child = {"name": "t", "uniqueid": "1", "state": "INSTALLED", "spi-in": spi_in, "spi-out": spi_out}
    return {"t": {"uniqueid": unique_id, "state": state, "initiator": "yes", "child-sas": {"t-1": child}}}


def view(name, *sas, loaded=True):
    return LiveView(name, "6.1.0", sas, frozenset({"t"} if loaded else ()))


NOTHING = (view("a"), view("b"))
UP = (view("a", sa("1", "2", "7")), view("b", sa("2", "1")))
CALLING = (view("a", {"t": {"uniqueid": "7", "state": "CONNECTING", "initiator": "yes"}}), view("b"))


class Script:
    """A watch that shows one pair of views after the other, the last one for ever, and notes commands."""

    def __init__(self, *views, refuse="", busy=0):
        self.views = list(views)
        self.busy = busy
        self.sent = []
        self.refuse = refuse
        self.listening = set()

    async def look(self, gateways):
        assert set(gateways) == {"a", "b"}
        now = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        return dict(zip("ab", now, strict=True))

    async def left_out(self, gateways):
        """Say of so many looks in which something is missing that charon is busy with some of its SAs."""
        self.busy -= bool(gateways)
        return frozenset(gateways if self.busy >= 0 else ())

    async def sas(self, gateway, tunnels):
        (shown,) = [each for each in self.views[0] if each.gateway == gateway]
        return list(shown.sas)

    def client(self, gateway):
        async def command(name, message):
            ids = (message.get(key) for key in ("child", "ike-id", "child-id"))
            self.sent.append((gateway, name, next(filter(None, ids), None)))
            if self.refuse:
                raise ViciRefused(self.refuse)

        return SimpleNamespace(command=command)

    def listen(self, gateways):
        self.listening |= set(gateways)

    def complaint(self, gateway, tunnel):
        return f"{gateway} complains" if self.listening else ""


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Let times of a clock of the test's own pass, one a reading: how busy this machine is plays no part."""
    ticks = itertools.count()
    monkeypatch.setattr(tunnels, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 0.0005))
    monkeypatch.setattr(tunnels, "_POLL_S", 0.0)
    monkeypatch.setattr(tunnels, "_RETRY_S", 0.01)
    monkeypatch.setattr(tunnels, "_SETTLE_S", 0.01)
    monkeypatch.setattr(tunnels, "_BUSY_S", 0.02)
    monkeypatch.setattr(tunnels, "_PATIENCE_S", 0.03)
    monkeypatch.setattr(tunnels, "_OBSTRUCTED_S", 0.05)


def bring(script, *, wait_s=5.0, calling="a", renew=(), **more):
    async def main():
        return await bring_up(
            script,
            [TUNNEL],
            {"t": calling} if calling else {},
            {"t": frozenset(renew)},
            wait_s=wait_s,
            report=lambda result: None,
            **more,
        )

    (result,) = asyncio.run(main())
    return result


def test_a_tunnel_that_is_up_is_left_alone():
    script = Script(UP)
    result = bring(script)
    assert (result.up, result.acted, script.sent) == (True, False, [])


def test_the_calling_end_initiates_once_and_waits():
    script = Script(NOTHING, CALLING, CALLING, UP)
    result = bring(script)
    assert (result.up, result.acted) == (True, True)
    assert script.sent == [("a", "initiate", "t")]


@pytest.mark.parametrize("unseen", [(view("a"), UP[1]), (UP[0], view("b")), NOTHING])
def test_what_charon_is_busy_with_as_in_a_rekey_is_not_called_for(unseen):
    script = Script(unseen, unseen, UP, busy=2)
    result = bring(script)
    assert (result.up, result.acted, script.sent) == (True, False, [])


def test_an_old_sa_that_charon_is_busy_with_is_not_taken_for_gone():
    script = Script(NOTHING, UP, NOTHING, (view("a", sa("3", "4", "8")), view("b", sa("4", "3"))), busy=1)
    assert bring(script, renew={7}).up
    assert script.sent == [("a", "terminate", "7"), ("a", "initiate", "t")]


def test_a_charon_that_stays_busy_with_something_is_told_all_the_same():
    script = Script(*[NOTHING] * 100, UP, busy=1000)
    result = bring(script)
    assert (result.up, result.acted) == (True, True)
    assert script.sent[0] == ("a", "initiate", "t")


def test_it_tries_again_when_nothing_came_of_it():
    script = Script(*[NOTHING] * 300, UP)
    assert bring(script).up
    assert len(script.sent) >= 2


def test_old_sas_go_before_new_ones_are_made():
    script = Script(UP, NOTHING, (view("a", sa("3", "4", "8")), view("b", sa("4", "3"))))
    result = bring(script, renew={7})
    assert result.up
    assert script.sent == [("a", "terminate", "7"), ("a", "initiate", "t")]


def test_a_far_end_that_lost_its_sa_gets_a_new_one():
    stale = (view("a", sa("1", "2", "7")), view("b"))
    script = Script(*[stale] * 300, *[NOTHING] * 100, (view("a", sa("3", "4", "8")), view("b", sa("4", "3"))))
    assert bring(script).up
    assert [command for _, command, _ in script.sent][:2] == ["terminate", "initiate"]
    assert [command for _, command, _ in script.sent].count("terminate") == 1


def test_the_wait_is_bounded_and_the_reason_is_told():
    result = bring(Script(NOTHING, refuse="no such child"), wait_s=0.1)
    assert result.health.verdict is Verdict.DOWN
    assert result.health.causes == (
        "neither a nor b has an IKE_SA for it",
        "charon on a says: a complains",
        "charon on b says: b complains",
        "a: no such child",
    )


@pytest.mark.parametrize(
    ("views", "verdict"),
    [
        ((view("a"), GatewayUnreachable("b", "gone")), Verdict.UNKNOWN),
        ((view("a"), GatewayUnreachable("b", "charon is dead", charon_down=True)), Verdict.DOWN),
        ((view("a"), view("b", loaded=False)), Verdict.DOWN),
    ],
)
def test_nobody_waits_for_what_cannot_come(views, verdict):
    result = bring(Script(views), wait_s=60)
    assert result.health.verdict is verdict
    assert result.took_s < 5


def test_a_tunnel_that_only_the_far_end_can_bring_up_is_waited_for():
    script = Script(*[NOTHING] * 5, UP)
    result = bring(script, calling=None)
    assert (result.up, result.acted, script.sent) == (True, False, [])


def test_old_sas_are_not_reported_as_up_when_the_time_is_over(monkeypatch):
    monkeypatch.setattr(tunnels, "_GRACE_S", 0.02)
    script = Script(UP)
    result = bring(script, wait_s=0, renew={7})
    assert script.sent == [("a", "terminate", "7")]
    assert (result.health.verdict, result.renewed) == (Verdict.DEGRADED, False)
    assert result.health.causes == ("a still has an IKE_SA that was to be made anew",)


def test_a_renewal_that_was_begun_late_is_carried_to_its_call():
    script = Script(UP, NOTHING, (view("a", sa("3", "4", "8")), view("b", sa("4", "3"))))
    result = bring(script, wait_s=0, renew={7})
    assert [command for _, command, _ in script.sent] == ["terminate", "initiate"]
    assert (result.up, result.renewed) == (True, True)


def test_a_tunnel_that_is_left_as_it_runs_says_so_and_is_not_touched():
    script = Script(UP)

    async def main():
        return await bring_up(
            script, [TUNNEL], {"t": "a"}, {}, wait_s=1, left={"t": "b is older"}, report=lambda _: None
        )

    (result,) = asyncio.run(main())
    assert (result.health.verdict, result.health.causes) == (Verdict.UP, ("left as it runs: b is older",))
    assert (result.kept, result.up) == (True, False)
    assert script.sent == []


def test_where_new_sas_came_to_nothing_none_is_called_for_once_more():
    half = Declared("t", gateway("a"), gateway("b"), ("t", "u"))
    script = Script(UP)

    async def main():
        left = {"t": "b refused"}
        return await bring_up(
            script, [half], {"t": "a"}, {}, wait_s=1, left=left, in_vain=left, report=lambda _: None
        )

    (result,) = asyncio.run(main())
    assert (result.up, script.sent) == (False, [])
    gone = Script(NOTHING, UP)
    bring(gone, left={"t": "b refused"}, in_vain={"t"})
    assert gone.sent == [("a", "initiate", "t")], "nothing carries any more"


@pytest.mark.parametrize("in_vain", [(), ("t",)])
def test_an_attempt_that_failed_costs_the_old_sa_nothing(in_vain):
    empty = {"t": {"uniqueid": "8", "state": "ESTABLISHED", "initiator": "yes", "initiator-spi": "new"}}
    failed = (view("a", sa("1", "2", "7"), empty), view("b", sa("2", "1"), empty))
    script = Script(*[failed] * 300, UP)
    result = bring(script, left={"t": "b is older"}, in_vain=in_vain)
    assert script.sent == [("a", "terminate", "8")], "the empty one alone, and once"
    assert (result.health.verdict, result.health.causes) == (Verdict.UP, ("left as it runs: b is older",))


def test_what_only_the_far_end_has_is_ended_there():
    odd = sa("6", "5", "9")
    odd["t"]["initiator-spi"] = "odd"
    script = Script(*[(view("a", sa("1", "2", "7")), view("b", sa("2", "1"), odd))] * 300, UP)
    assert bring(script).up
    assert {*script.sent} == {("b", "terminate", "9")}


# --------------------------------------------------------------------------------------- selectors too narrow

ONE, TWO = "10.1.0.0/24", "10.1.8.0/24"
FAR = "10.2.0.0/24"
WIDE = replace(
    TUNNEL,
    traffic={("a", "t"): Traffic((ONE, TWO), (FAR,), ()), ("b", "t"): Traffic((FAR,), (ONE, TWO), ())},
)


def carrying(*pairs):
    """Return both ends with CHILD_SAs of (unique id at both, SPIs, the networks of a)."""

    def end(name, turned):
        children = {}
        for unique_id, spis, networks in pairs:
            spi_in, spi_out = reversed(spis) if turned else spis
            local, remote = ([FAR], networks) if turned else (networks, [FAR])
            children[f"t-{unique_id}"] = {
                "name": "t",
                "uniqueid": unique_id,
                "state": "INSTALLED",
                "spi-in": spi_in,
                "spi-out": spi_out,
                "local-ts": local,
                "remote-ts": remote,
            }
        spis = {"initiator-spi": "i1", "responder-spi": "r1"}
        sa = {"uniqueid": "7", "state": "ESTABLISHED", "initiator": "yes", **spis, "child-sas": children}
        return view(name, {"t": sa})

    return end("a", turned=False), end("b", turned=True)


NARROW = carrying(("1", ("s1", "s2"), [ONE]))
BESIDE = carrying(("1", ("s1", "s2"), [ONE]), ("2", ("s3", "s4"), [ONE, TWO]))
WHOLE = carrying(("2", ("s3", "s4"), [ONE, TWO]))


class Ends(Script):
    """Ends that show the next pair of views each time that a command was sent to one of them."""

    async def look(self, gateways):
        return dict(zip("ab", self._now(), strict=True))

    async def sas(self, name, tunnels=()):
        return self._now()["ab".index(name)].sas

    def _now(self):
        return self.views[min(len(self.sent), len(self.views) - 1)]

    def client(self, gateway):
        async def command(name, message):
            which = message.get("child") or f"{message.get('child-id')}"
            self.sent.append((gateway, name, which))

        return SimpleNamespace(command=command)


def widen(script, **more):
    async def main():
        return await bring_up(
            script,
            [more.pop("tunnel", WIDE)],
            {"t": "a"},
            {},
            wait_s=60,
            report=lambda result: None,
            **more,
        )

    (result,) = asyncio.run(main())
    return result


def test_a_narrow_sa_is_made_anew_beside_the_old_one_by_the_end_that_was_called():
    script = Ends(NARROW, BESIDE, WHOLE)
    result = widen(script)
    assert (result.up, result.acted) == (True, True)
    assert script.sent == [("b", "initiate", "t"), ("a", "terminate", "1")]


def test_what_stays_narrow_is_made_anew_once_and_not_waited_for():
    both = carrying(("1", ("s1", "s2"), [ONE]), ("2", ("s3", "s4"), [ONE]))
    script = Ends(NARROW, both, carrying(("2", ("s3", "s4"), [ONE])))
    result = widen(script)
    assert result.health.verdict is Verdict.DEGRADED
    assert f"its local selectors are {ONE}, declared are {ONE} {TWO}" in result.health.causes[0]
    assert [command for _, command, _ in script.sent] == ["initiate", "terminate"]
    assert result.took_s < 30


def test_nothing_is_made_anew_where_the_far_end_could_not_be_changed():
    script = Ends(NARROW)
    result = widen(script, left={"t": "b could not be changed"})
    assert (result.health.verdict, script.sent) == (Verdict.DEGRADED, [])
    assert result.took_s < 30


def test_a_partner_may_narrow_and_nobody_waits_for_it_to_change_its_mind():
    theirs = replace(WIDE, right=replace(WIDE.right, managed=False))
    script = Ends(NARROW)
    result = widen(script, tunnel=theirs)
    assert (result.health.verdict, script.sent) == (Verdict.DEGRADED, [])
    assert result.took_s < 30


CUT_OFF = {"t": Obstacles(cut_off=("a has no route",))}
BARRED = {"t": Obstacles(barred=("a: IPv6 is off",))}


@pytest.mark.parametrize("obstacles", [CUT_OFF, BARRED])
def test_what_cannot_come_up_is_named_and_not_waited_for(obstacles):
    result = bring(Script(NOTHING), wait_s=600.0, obstacles=obstacles)
    assert result.health.verdict is Verdict.DOWN
    assert result.health.causes[0] == obstacles["t"].causes[0]
    assert result.took_s < 600.0


def test_an_obstacle_that_is_gone_meanwhile_does_no_harm():
    assert bring(Script(NOTHING, CALLING, UP), obstacles=BARRED).up


ASTRAY = Obstacles(astray=("a sends to b by lan",))


def test_a_way_by_another_interface_is_named_only_where_nothing_comes_up():
    assert not ASTRAY.causes, "it may be meant: the tunnel is waited for all the same"
    health = bring(Script(NOTHING), wait_s=0.2, obstacles={"t": ASTRAY}).health
    assert (health.verdict, health.causes[0]) == (Verdict.DOWN, "a sends to b by lan")
    health = bring(Script(UP), obstacles={"t": ASTRAY}).health
    assert (health.verdict, health.causes) == (Verdict.UP, ())
    half = Script((UP[0], view("b")))
    health = bring(half, wait_s=0.2, obstacles={"t": ASTRAY}, calling="b").health
    assert (health.verdict, "a sends to b by lan" in health.causes) == (Verdict.DOWN, False)


def test_sas_through_which_nothing_is_sent_are_not_up():
    health = bring(Script(UP), obstacles=CUT_OFF).health
    assert (health.verdict, health.causes) == (Verdict.DOWN, ("a has no route",))


class Hub:
    """A gateway that calls for many tunnels, and partners that are seen; ``answers`` says who answers."""

    async def left_out(self, gateways):
        return frozenset()

    def __init__(self, answers):
        self.answers = answers
        self.called = []
        self.most = self.looked = 0

    async def look(self, gateways):
        self.most, self.looked = max(self.most, len(self.called) - self.looked), len(self.called)
        up, calling = [], []
        for number, name in enumerate(self.called):
            numbers = {"uniqueid": str(number + 1), "initiator": "yes"}
            child = {"name": name, "uniqueid": str(number + 1), "state": "INSTALLED"}
            if name in self.answers:
                spis = {"spi-in": f"a{number}", "spi-out": f"b{number}"}
                far = {"spi-in": f"b{number}", "spi-out": f"a{number}"}
                sas = {"state": "ESTABLISHED", **numbers}
                up.append(
                    (
                        {name: {**sas, "child-sas": {"c": {**child, **spis}}}},
                        {name: {**sas, "child-sas": {"c": {**child, **far}}}},
                    )
                )
            else:
                calling.append({name: {"state": "CONNECTING", **numbers}})
        loaded = frozenset(t.name for t in MANY)
        return {
            "a": LiveView("a", "6.1.0", (*(near for near, _ in up), *calling), loaded),
            "b": LiveView("b", "6.1.0", tuple(far for _, far in up), loaded),
        }

    def client(self, gateway):
        async def command(name, message):
            assert (gateway, name) == ("a", "initiate")
            self.called.append(message["child"])

        return SimpleNamespace(command=command)

    def listen(self, gateways):
        pass

    def complaint(self, gateway, tunnel):
        return ""


MANY = [Declared(f"t{n:03d}", gateway("a"), gateway("b"), (f"t{n:03d}",)) for n in range(300)]


def bring_many(hub, wait_s):
    async def main():
        calling = {tunnel.name: "a" for tunnel in MANY}
        return await bring_up(hub, MANY, calling, {}, wait_s=wait_s, report=lambda result: None)

    return asyncio.run(main())


def test_a_gateway_is_told_of_the_next_tunnels_as_the_ones_before_come_up():
    hub = Hub({tunnel.name for tunnel in MANY})
    results = bring_many(hub, 60.0)
    assert all(result.up for result in results)
    assert hub.called == [tunnel.name for tunnel in MANY]
    assert hub.most == line.AT_ONCE < len(MANY)


@pytest.mark.slow
def test_partners_that_do_not_answer_hold_up_nobody_for_long(monkeypatch):
    """Their calls stop counting; the wait of those behind them begins when they are called."""
    monkeypatch.setattr(tunnels, "Line", lambda: line.Line(room_s=0.02))
    silent = {tunnel.name for tunnel in MANY[:200]}
    hub = Hub({tunnel.name for tunnel in MANY} - silent)
    results = bring_many(hub, 0.01)
    assert {result.name for result in results if result.up} == hub.answers
    assert {*hub.called} == {tunnel.name for tunnel in MANY}
    assert hub.most <= line.AT_ONCE

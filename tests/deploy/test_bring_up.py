"""Bringing tunnels up, as a script of what the ends show and what is sent to them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from netaddr import IPAddress

import ipsecctl.deploy.tunnels as tunnels
from ipsecctl.deploy.doubts import Obstacles
from ipsecctl.deploy.tunnels import bring_up
from ipsecctl.errors import GatewayUnreachable, ViciRefused
from ipsecctl.gateway import LiveView
from ipsecctl.health import Declared, Verdict
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

    def __init__(self, *views, refuse=""):
        self.views = list(views)
        self.sent = []
        self.refuse = refuse
        self.listening = set()

    async def look(self, gateways):
        assert set(gateways) == {"a", "b"}
        now = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        return dict(zip("ab", now, strict=True))

    def client(self, gateway):
        async def command(name, message):
            self.sent.append((gateway, name, message.get("child") or message.get("ike-id")))
            if self.refuse:
                raise ViciRefused(self.refuse)

        return SimpleNamespace(command=command)

    def listen(self, gateways):
        self.listening |= set(gateways)

    def complaint(self, gateway, tunnel):
        return f"{gateway} complains" if self.listening else ""


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(tunnels, "_POLL_S", 0.0)
    monkeypatch.setattr(tunnels, "_RETRY_S", 0.01)
    monkeypatch.setattr(tunnels, "_SETTLE_S", 0.01)
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
            script, [TUNNEL], {"t": "a"}, {}, wait_s=1, left={"t": "left as it runs"}, report=lambda _: None
        )

    (result,) = asyncio.run(main())
    assert (result.health.verdict, result.health.causes) == (Verdict.DEGRADED, ("left as it runs",))
    assert script.sent == []


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


def test_sas_through_which_nothing_is_sent_are_not_up():
    health = bring(Script(UP), obstacles=CUT_OFF).health
    assert (health.verdict, health.causes) == (Verdict.DOWN, ("a has no route",))

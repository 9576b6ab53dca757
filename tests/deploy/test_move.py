"""Moving SAs, as a script of what the ends show and what is sent to them."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest
from netaddr import IPAddress

import ipsecctl.deploy.move as moving
from ipsecctl.deploy.move import Moving, move_all
from ipsecctl.errors import ViciRefused
from ipsecctl.health import Declared
from ipsecctl.plan import End, Move, Step
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway


def gateway(name):
    control = Control(ControlKind.LAB)
    return Gateway(name, name, IPAddress("192.0.2.1"), False, None, 1500, control, DataPath.AUTO, name, True)


TUNNEL = Declared("t", gateway("a"), gateway("b"), ("t",))


def ike(unique_id, *children, spi="i1", state="ESTABLISHED"):
    """An IKE_SA with CHILD_SAs of (unique id, inbound SPI, outbound SPI)."""
    return {
        "t": {
            "uniqueid": unique_id,
            "state": state,
            "initiator-spi": spi,
            "responder-spi": f"{spi}r",
            "child-sas": {
                f"t-{child}": {
                    "name": "t",
                    "uniqueid": child,
                    "state": "INSTALLED",
                    "spi-in": spi_in,
                    "spi-out": spi_out,
                }
                for child, spi_in, spi_out in children
            },
        }
    }


OLD = ([ike("7", ("1", "s1", "s2"))], [ike("3", ("9", "s2", "s1"))])
BOTH = (
    [ike("7", ("1", "s1", "s2"), ("2", "s3", "s4"))],
    [ike("3", ("9", "s2", "s1"), ("10", "s4", "s3"))],
)
NEW = ([ike("7", ("2", "s3", "s4"))], [ike("3", ("10", "s4", "s3"))])
HALF = (BOTH[0], OLD[1])
BOTH_IKE = (
    [ike("7", ("1", "s1", "s2")), ike("8", ("2", "s3", "s4"), spi="i2")],
    [ike("3", ("9", "s2", "s1")), ike("4", ("10", "s4", "s3"), spi="i2")],
)
NEW_IKE = ([ike("8", ("2", "s3", "s4"), spi="i2")], [ike("4", ("10", "s4", "s3"), spi="i2")])


class Script:
    """A watch that shows one pair of lists after the other, the last one for ever, and notes commands."""

    def __init__(self, *views, refuse="", says=""):
        self.views = list(views)
        self.looked_at = set()
        self.sent = []
        self.loaded = []
        self.refuse = refuse
        self.says = says
        self.listening = False

    async def sas(self, name, tunnels=()):
        if name in self.looked_at:  # a new look, whichever end it begins with
            self.looked_at = set()
            if len(self.views) > 1:
                self.views.pop(0)
        self.looked_at.add(name)
        return self.views[0]["ab".index(name)]

    def client(self, name):
        async def command(what, message):
            self.sent.append(
                (name, what, *(message.get(k) for k in ("child", "ike-id", "child-id") if k in message))
            )
            if self.refuse:
                raise ViciRefused(self.refuse)

        return SimpleNamespace(command=command)

    def listen(self, gateways):
        self.listening = True

    def complaint(self, name, tunnel):
        return self.says if self.listening and name == "a" else ""


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Let times of a clock of the test's own pass, one a reading: how busy this machine is plays no part."""
    ticks = itertools.count()
    monkeypatch.setattr(moving, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 0.0005))
    monkeypatch.setattr(moving, "_POLL_S", 0.0)
    monkeypatch.setattr(moving, "_LISTEN_S", 0.01)
    monkeypatch.setattr(moving, "_TRY_AGAIN_S", 0.01)


def move(script, *steps, ender="a", longest_s=5.0, end=()):
    async def load(name, tunnel):
        script.loaded.append((name, tunnel))
        return ""

    entry = Moving(
        TUNNEL, "a", ender, Move(steps or (Step.INITIATE,), ("t",), end), {"a": End({}, {}), "b": End({}, {})}
    )
    return asyncio.run(move_all(script, [entry], load, longest_s=longest_s))["t"]


def test_an_old_child_sa_is_ended_when_both_ends_have_the_new_one():
    script = Script(OLD, OLD, HALF, BOTH, BOTH, NEW)
    assert move(script) == ""
    assert script.loaded == [("a", "t")]
    assert script.sent == [("a", "initiate", "t"), ("a", "terminate", "1")]


def test_new_sas_are_rekeyed_for_their_routes_when_the_old_ones_are_gone():
    rekeyed = ([ike("7", ("5", "s5", "s6"))], [ike("3", ("11", "s6", "s5"))])
    script = Script(OLD, BOTH, BOTH, NEW, NEW, rekeyed)
    assert move(script, Step.INITIATE, Step.REROUTE) == ""
    assert script.sent == [("a", "initiate", "t"), ("a", "terminate", "1"), ("a", "rekey", "2")]


def test_one_that_is_not_rekeyed_for_its_routes_has_moved_all_the_same():
    script = Script(OLD, BOTH, BOTH, NEW)
    assert move(script, Step.INITIATE, Step.REROUTE, longest_s=0.1) == ""
    assert script.sent[-1] == ("a", "rekey", "2"), "once"


def test_an_old_ike_sa_is_ended_when_the_new_child_sa_is_in_another():
    script = Script(OLD, BOTH_IKE, BOTH_IKE, NEW_IKE)
    assert move(script) == ""
    assert script.sent == [("a", "initiate", "t"), ("a", "terminate", "7")]


def test_the_end_that_would_call_again_ends_the_old_ones_itself():
    script = Script(OLD, BOTH_IKE, BOTH_IKE, NEW_IKE)
    assert move(script, ender="b") == ""
    assert script.sent == [("a", "initiate", "t"), ("b", "terminate", "3")]
    script = Script(OLD, BOTH, NEW)
    assert move(script, ender="b") == ""
    assert script.sent == [("a", "initiate", "t"), ("b", "terminate", "9")]


def test_charon_itself_ends_what_it_has_authenticated_anew():
    script = Script(OLD, BOTH_IKE, NEW_IKE)
    assert move(script, Step.REAUTH) == ""
    assert script.sent == [("a", "rekey", "7")]


def test_a_second_step_begins_with_what_the_first_has_made():
    later = ([ike("8", ("5", "s5", "s6"), spi="i2")], [ike("4", ("11", "s6", "s5"), spi="i2")])
    both = (
        [ike("8", ("2", "s3", "s4"), ("5", "s5", "s6"), spi="i2")],
        [ike("4", ("10", "s4", "s3"), ("11", "s6", "s5"), spi="i2")],
    )
    script = Script(OLD, BOTH_IKE, BOTH_IKE, NEW_IKE, NEW_IKE, both, both, later)
    assert move(script, Step.REAUTH, Step.INITIATE) == ""
    assert script.sent == [("a", "rekey", "7"), ("a", "initiate", "t"), ("a", "terminate", "2")]
    assert script.loaded == [("a", "t")]


def test_where_no_new_sa_comes_up_the_old_one_stays_and_charon_is_quoted():
    script = Script(OLD, says="received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built")
    assert "charon on a says: received NO_PROPOSAL_CHOSEN" in move(script)
    assert {command for _, command, *_ in script.sent} == {"initiate"}


def test_a_refused_command_ends_nothing():
    script = Script(OLD, refuse="no such child")
    assert "no such child" in move(script)
    assert script.sent == [("a", "initiate", "t")]


def test_sas_that_are_new_already_are_left_alone():
    script = Script(NEW, says="not establishing CHILD_SA t{3} due to existing duplicate {2}")
    assert move(script) == ""
    assert {command for _, command, *_ in script.sent} == {"initiate"}


def test_of_two_that_a_cut_off_move_has_left_the_earlier_one_goes():
    script = Script(*[BOTH] * 200, NEW, says="not establishing CHILD_SA t{3} due to existing duplicate {2}")
    assert move(script) == ""
    assert ("a", "terminate", "1") in script.sent
    assert ("a", "terminate", "2") not in script.sent


def test_a_tunnel_without_sas_is_only_loaded():
    script = Script(([], []))
    assert (move(script), script.loaded, script.sent) == ("", [("a", "t")], [])


def test_new_sas_that_a_partner_has_narrowed_do_not_take_the_place_of_what_carries_more():
    def sas(*children):
        return [
            ike("7")
            | {
                "t": ike("7")["t"]
                | {
                    "child-sas": {
                        f"{name}-{unique_id}": {
                            "name": name,
                            "uniqueid": unique_id,
                            "state": "INSTALLED",
                            "spi-in": f"a{unique_id}",
                            "spi-out": f"b{unique_id}",
                            "local-ts": [local],
                            "remote-ts": ["10.8.0.0/24"],
                        }
                        for unique_id, name, local in children
                    }
                }
            }
        ]

    old = [("1", "one", "10.1.0.0/24"), ("2", "two", "10.2.0.0/24")]
    wanted = {"children": {"all": {"local_ts": ["10.1.0.0/24", "10.2.0.0/24"], "remote_ts": ["10.8.0.0/24"]}}}

    def moved(*views):
        script = Script(*[(view, []) for view in views])

        async def load(name, tunnel):
            return ""

        steps = Move((Step.INITIATE,), ("all",), ("one", "two"))
        tunnel = Declared("t", gateway("a"), gateway("b"), ("all",))
        entry = Moving(tunnel, "a", "a", steps, {"a": End({}, wanted)})
        return asyncio.run(move_all(script, [entry], load, longest_s=5.0))["t"], script.sent

    told, sent = moved(sas(*old), sas(*old, ("3", "all", "10.1.0.0/24")))
    assert "10.2.0.0/24 === 10.8.0.0/24 would have no tunnel any more" in told
    assert sent == [("a", "initiate", "all"), ("a", "terminate", "3")]

    whole = ("3", "all", "10.0.0.0/8")
    told, sent = moved(sas(*old), sas(*old, whole), sas(*old, whole), sas(whole))
    assert told == ""
    assert sent == [("a", "initiate", "all"), ("a", "terminate", "1"), ("a", "terminate", "2")]


def test_a_busy_ike_sa_is_waited_for():
    busy = ([ike("7", ("1", "s1", "s2"), state="REKEYING")], OLD[1])
    script = Script(busy, busy, OLD, BOTH, NEW)
    assert move(script) == ""
    assert script.sent[0] == ("a", "initiate", "t")
    late = Script(busy)
    assert "busy" in move(late, longest_s=0.02)
    assert late.sent == []

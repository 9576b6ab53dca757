"""How a tunnel gets from one configuration to the next: what is widened, what moves, and what must break."""

from __future__ import annotations

import pytest

from ipsecctl.plan import Disruption, End, Move, Step, loses_routes, move_of, widened
from ipsecctl.plan.stages import Way, disruption, way

CHILD = {
    "mode": "tunnel",
    "local_ts": ["10.1.0.0/24"],
    "remote_ts": ["10.2.0.0/24"],
    "esp_proposals": ["aes256gcm16-x25519"],
    "rekey_time": "3600s",
    "start_action": "trap",
    "close_action": "start",
}
OLD = {
    "local_addrs": ["192.0.2.1"],
    "remote_addrs": ["192.0.2.2"],
    "proposals": ["aes256gcm16-prfsha384-x25519"],
    "dpd_delay": "15s",
    "local": {"auth": "pubkey", "id": "a", "certs": [b"mine"]},
    "remote": {"auth": "pubkey", "id": "b", "cacerts": [b"old ca"]},
    "children": {"t": CHILD},
}


def changed(**keys):
    return {**OLD, **keys}


def child(**keys):
    return {**OLD, "children": {"t": {**CHILD, **keys}}}


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (OLD, Way.NONE),
        (child(esp_proposals=["aes256gcm16-ecp384"]), Way.CHILD),
        (child(local_ts=["10.1.0.0/24", "10.3.0.0/24"]), Way.CHILD),
        (child(rekey_time="1800s"), Way.CHILD),
        (child(close_action="none"), Way.CHILD),
        (child(replay_window="128"), Way.CHILD),
        (child(mode="transport"), Way.BREAK_CHILD),
        (child(if_id_in="7"), Way.BREAK_CHILD),
        (changed(proposals=["aes256gcm16-prfsha384-ecp384"]), Way.IKE),
        (changed(dpd_delay="30s"), Way.IKE),
        (changed(local={**OLD["local"], "certs": [b"another"]}), Way.IKE),
        (changed(remote={**OLD["remote"], "cacerts": [b"new ca"]}), Way.IKE),
        (changed(local={**OLD["local"], "id": "c"}), Way.BREAK_IKE),
        (changed(remote={**OLD["remote"], "auth": "psk"}), Way.BREAK_IKE),
        (changed(remote_addrs=["192.0.2.3"]), Way.BREAK_IKE),
        (changed(children={"t": CHILD, "u": CHILD}), Way.NONE),
        (changed(children={}), Way.CHILD),
    ],
)
def test_the_way_of_a_change(new, expected):
    assert way(OLD, new) is expected
    assert (move_of(End(OLD, new), None) is None) is expected.breaks


def test_a_child_that_charon_itself_starts_again_cannot_move():
    old = child(start_action="start")
    new = {**old, "dpd_delay": "30s"}
    assert way(old, new) is Way.BREAK_CHILD
    assert disruption(old, new) is Disruption.CHILD_RESTART


def test_what_is_widened_accepts_both_and_prefers_the_new():
    new = {
        **changed(proposals=["new"], dpd_delay="30s", remote={**OLD["remote"], "cacerts": [b"new ca"]}),
        "children": {
            "t": {**CHILD, "esp_proposals": ["new"], "local_ts": ["10.9.0.0/24", "10.1.0.0/24"]},
            "u": CHILD,
        },
    }
    old = {**OLD, "children": {"t": CHILD, "gone": CHILD}}
    wide = widened(old, new)
    assert wide["proposals"] == ["new", *OLD["proposals"]]
    assert wide["remote"]["cacerts"] == [b"new ca", b"old ca"]
    assert wide["dpd_delay"] == "30s"
    assert wide["children"].keys() == {"t", "u", "gone"}
    assert wide["children"]["t"]["esp_proposals"] == ["new", *CHILD["esp_proposals"]]
    assert wide["children"]["t"]["local_ts"] == ["10.9.0.0/24", "10.1.0.0/24"]
    assert wide["children"]["gone"] == wide["children"]["u"] == CHILD
    assert new["proposals"] == ["new"], "what was given is as it was"


def test_new_children_come_before_those_that_go():
    old = {**OLD, "children": {"t": CHILD, "u": CHILD}}
    new = {**OLD, "children": {"v": CHILD, "u": CHILD}}
    assert [*widened(old, new)["children"]] == ["v", "u", "t"], "charon takes the first that matches"


@pytest.mark.parametrize(
    ("new", "loses"),
    [
        (OLD, False),
        (child(esp_proposals=["aes256gcm16-ecp384"]), False),
        (child(local_ts=["10.1.0.0/24", "10.3.0.0/24"]), False),
        (child(remote_ts=["10.4.0.0/24"]), False),
        (child(local_ts=["10.1.0.0/25"]), True),
        (child(local_ts=["10.3.0.0/24"]), True),
        (child(local_ts=["10.1.0.0/24[tcp/80]"], remote_ts=["10.2.0.0/24[tcp]"]), True),
        (changed(children={"u": CHILD}), False),
        (changed(children={}), False),
    ],
)
def test_routes_go_with_the_policies_of_before(new, loses):
    assert loses_routes(OLD, new) is loses


def test_a_blob_of_a_record_is_sent_as_bytes():
    old = changed(remote={**OLD["remote"], "cacerts": [{"bytes": b"old ca".hex()}]})
    new = changed(remote={**OLD["remote"], "cacerts": [b"new ca"]})
    assert widened(old, new)["remote"]["cacerts"] == [b"new ca", b"old ca"]
    assert way(old, OLD) is Way.NONE


NARROW = {**CHILD, "local_ts": ["10.1.0.0/25"]}
DPD, ESP = changed(dpd_delay="30s"), child(esp_proposals=["new"])
REAUTH, INITIATE = Step.REAUTH, Step.INITIATE


@pytest.mark.parametrize(
    ("calls", "called", "move"),
    [
        (End(OLD, OLD), End(OLD, OLD), Move(())),
        (End(OLD, ESP), End(OLD, ESP), Move((INITIATE,), ("t",))),
        (End(OLD, DPD), End(OLD, DPD), Move((INITIATE,), ("t",))),
        # charon at the calling end makes no second SA where nothing is new to it.
        (End(OLD, OLD), End(OLD, DPD), Move((REAUTH,))),
        (End(OLD, OLD), End(OLD, ESP), Move((REAUTH,))),
        # The IKE_SA of the called end has the old children as long as it is not made anew.
        (End(OLD, ESP), End(OLD, {**ESP, "dpd_delay": "30s"}), Move((REAUTH, INITIATE), ("t",))),
        (End(OLD, OLD, new_key=True), End(OLD, OLD, new_key=True), Move((REAUTH,))),
        (End(OLD, ESP, new_key=True), End(OLD, ESP, new_key=True), Move((REAUTH, INITIATE), ("t",))),
        # A new IKE_SA is authenticated with the new key anyway.
        (End(OLD, DPD, new_key=True), End(OLD, DPD, new_key=True), Move((INITIATE,), ("t",))),
        (End(OLD, OLD, unsure=True), End(OLD, OLD), Move((INITIATE,), ("t",))),
        (End(OLD, changed(children={"u": CHILD})), None, None),
        (End(OLD, changed(children={"u": NARROW})), None, Move((INITIATE,), ("u",), ("t",))),
        (End(OLD, changed(children={"t": CHILD, "u": CHILD})), None, Move(())),
        (End(OLD, ESP), End(OLD, changed(remote_addrs=["192.0.2.3"])), None),
    ],
)
def test_the_steps_of_a_move(calls, called, move):
    assert move_of(calls, called) == move

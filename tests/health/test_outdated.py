"""SAs that keep another configuration than their connection has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipsecctl.desired import compile_topology
from ipsecctl.health import outdated
from ipsecctl.topology import load_text

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:X"}}
sites:
  a: {networks: {lan: 10.1.0.0/24, voice: 10.3.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels: {t: {between: [a, b]}}
"""
STATE = compile_topology(load_text(TOPOLOGY, "x.yaml").topology)[0]
CONNECTION = STATE.connections[0]
CHILD = CONNECTION.children[0]


def sa(ike=(), child=(), name="t", children=1):
    """Return a ``list-sa`` message of an IKE_SA as declared, 100 seconds old, but for what is said."""
    running = {
        "name": CHILD.name,
        "uniqueid": "1",
        "state": "INSTALLED",
        "encr-alg": "AES_GCM_16",
        "encr-keysize": "256",
        "install-time": "100",
        "rekey-time": str(CHILD.rekey_time_s - 100 - CHILD.rand_time_s // 2),
        "life-time": str(CHILD.life_time_s - 100),
        "local-ts": [str(ts) for ts in CHILD.local_ts],
        "remote-ts": [str(ts) for ts in CHILD.remote_ts],
    } | dict(child)
    return {
        name: {
            "uniqueid": "1",
            "state": "ESTABLISHED",
            "established": "100",
            "rekey-time": str(CONNECTION.rekey_time_s - 100 - CONNECTION.rand_time_s // 2),
            "encr-alg": "AES_GCM_16",
            "encr-keysize": "256",
            "prf-alg": "PRF_HMAC_SHA2_384",
            "dh-group": "CURVE_25519",
            "child-sas": {f"{CHILD.name}-{n}": running for n in range(children)},
        }
        | dict(ike)
    }


def causes(*args, narrowing=(), **more):
    return outdated(STATE, [sa(*args, **more)], narrowing).get("t", ())


def test_as_declared():
    assert CHILD.rand_time_s and CONNECTION.rand_time_s
    assert outdated(STATE, [sa(), sa(name="somebody-elses", child={"encr-keysize": "128"})]) == {}


@pytest.mark.parametrize("spread", [0, 1])
def test_a_rekey_at_either_end_of_its_window_is_as_declared(spread: int):
    left = CHILD.rekey_time_s - 100 - spread * CHILD.rand_time_s
    ike = CONNECTION.rekey_time_s - 100 - spread * CONNECTION.rand_time_s
    assert causes({"rekey-time": str(ike - 1)}, {"rekey-time": str(left - 1)}) == ()


@pytest.mark.parametrize(
    ("ike", "child", "said"),
    [
        ({"encr-keysize": "128"}, {}, "its IKE_SA: it uses AES_GCM_16-128/"),
        (
            {"rekey-time": "100"},
            {},
            "its IKE_SA: it is rekeyed at an age of 200 s, declared is 12960 to 14400 s",
        ),
        ({}, {"encr-keysize": "128"}, "its CHILD_SA: it uses AES_GCM_16-128, declared is aes256gcm16"),
        (
            {},
            {"local-ts": ["10.1.0.0/24"]},
            "its CHILD_SA: its local selectors are 10.1.0.0/24, declared are",
        ),
        ({}, {"life-time": "1879"}, "its CHILD_SA: it lives for 1980 s, declared is 3960 s"),
        ({}, {"life-time": "3943"}, "its CHILD_SA: it lives for 4043 s, declared is 3960 s"),
        (
            {},
            {"life-time": "", "rekey-time": "20"},
            "its CHILD_SA: it is rekeyed at an age of 120 s, declared is",
        ),
        ({}, {"name": "gone"}, "its CHILD_SA gone: no such child is declared any more"),
    ],
)
def test_what_shows(ike, child, said):
    (cause,) = causes(ike, child)
    assert said in cause.replace(f" {CHILD.name}:", ":") if "gone" not in said else cause.endswith("any more")


@pytest.mark.parametrize(
    ("ike", "child"),
    [
        ({"state": "CONNECTING", "encr-keysize": "128"}, {"encr-keysize": "128"}),
        ({}, {"state": "DELETING", "encr-keysize": "128"}),
        ({}, {"state": "REKEYED", "life-time": "5"}),
        ({"established": ""}, {"install-time": ""}),
    ],
)
def test_what_does_not_run_or_is_not_told(ike, child):
    assert causes(ike, child) == ()


def test_an_answer_of_the_far_end_that_came_late_is_no_other_lifetime():
    for life in ("3785", "3855", "3863", "3930"):
        assert causes({}, {"life-time": life}) == ()


def test_a_partner_may_narrow_and_not_widen():
    narrow, wide = {"local-ts": ["10.1.0.0/25"]}, {"local-ts": ["10.0.0.0/8"]}
    assert causes({}, narrow) != () and causes({}, narrow, narrowing={"t"}) == ()
    assert causes({}, wide, narrowing={"t"}) != ()
    assert causes({}, narrow | {"encr-keysize": "128"}, narrowing={"t"}) != ()


def test_the_same_of_two_sas_is_said_once():
    assert len(causes({}, {"encr-keysize": "128"}, children=2)) == 1


def test_several_children_are_told_apart():
    two = replace(CONNECTION, children=(CHILD, replace(CHILD, name="other")))
    found = outdated(replace(STATE, connections=(two,)), [sa({}, {"encr-keysize": "128"})])
    assert found["t"][0].startswith(f"its CHILD_SA {CHILD.name}: it uses")


def test_an_sa_of_the_other_mode_has_another_if_id():
    """It carries nothing: no packets are led to policies of another if_id."""
    assert causes(child={"if-id-in": "0000002a", "if-id-out": "0000002a"}) == (
        "its CHILD_SA: its if_id is 0x2a, declared is none",
    )
    routed = compile_topology(
        load_text(TOPOLOGY.replace("{t: {", "{t: {mode: route, if_id: 42, "), "x.yaml").topology
    )
    old = outdated(routed[0], [sa()])["t"]
    assert "its CHILD_SA: its if_id is none, declared is 0x2a" in old
    new = sa(child={"if-id-in": "0000002a", "if-id-out": "0000002a"})
    assert not [why for why in outdated(routed[0], [new]).get("t", ()) if "if_id" in why]

"""What was negotiated against what is declared, in charon's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ipsecctl.crypto import parse_esp_proposal, parse_ike_proposal
from ipsecctl.health import Verdict, judge, narrower, parse_list_sas
from ipsecctl.health.traffic import Traffic

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LAN, FAR = ("10.1.0.0/24",), ("10.2.0.0/24",)


def verdict(made, *, local=LAN, proposal="aes256gcm16-x25519", loaded=("t",), **said):
    traffic = {("a", "t"): Traffic(tuple(local), FAR, (parse_esp_proposal(proposal),))}
    tunnel = replace(made.partner, traffic=traffic)
    view = made.view("a", made.ike(made.child(**said)), loaded=loaded)
    (health,) = judge([tunnel], {"a": view}, NOW)
    return health


@pytest.mark.parametrize(
    ("local", "said"),
    [
        (LAN, ["10.1.0.0/24"]),
        (["10.1.0.0/25", "10.1.0.128/25"], ["10.1.0.0/24"]),
        (["10.1.0.0/24[tcp/104-107]"], ["10.1.0.0/24[tcp/104-105]", "10.1.0.0/24[tcp/106-107]"]),
        (["10.1.0.0/24[tcp/104]"], ["10.1.0.0/24[tcp/acr-nema]"]),
        (["10.1.0.1/32", "fd00::/64"], ["fd00::/64", "10.1.0.1/32"]),
        (["10.1.0.0/24"], ["10.1.0.0..10.1.0.77"]),
        (["10.1.0.0/24[icmp]"], ["10.1.0.0/24[icmp]"]),
    ],
)
def test_the_same_selectors_in_other_words(made, local, said):
    assert verdict(made, local=local, **{"local-ts": said}).verdict is Verdict.UP


@pytest.mark.parametrize(
    ("local", "said"),
    [
        (LAN, ["10.1.0.0/25"]),
        (["10.1.0.0/24", "10.9.0.0/24"], ["10.1.0.0/24"]),
        (LAN, ["10.1.0.0/24[tcp]"]),
        (["10.1.0.0/24[tcp/104-107]"], ["10.1.0.0/24[tcp/104]"]),
    ],
)
def test_narrowed_selectors(made, local, said):
    health = verdict(made, local=local, **{"local-ts": said})
    assert health.verdict is Verdict.DEGRADED
    assert f"at a its local selectors are {' '.join(said)}" in health.causes[0]


@pytest.mark.parametrize(
    ("proposal", "said", "good"),
    [
        ("aes256gcm16-x25519", {}, True),
        ("aes256gcm16-x25519", {"dh-group": "CURVE_25519"}, True),
        ("aes256gcm16-x25519", {"dh-group": "ECP_384"}, False),
        ("aes256gcm16-x25519", {"dh-group": "SOMETHING_NEW"}, True),
        ("aes256gcm16-x25519", {"encr-keysize": "128"}, False),
        ("aes256gcm16-x25519", {"encr-alg": "SOMETHING_NEW"}, True),
        ("aes256-sha256", {"encr-alg": "AES_CBC", "integ-alg": "HMAC_SHA2_256_128"}, True),
        ("aes256-sha256", {"encr-alg": "AES_CBC", "integ-alg": "HMAC_SHA1_96"}, False),
        ("chacha20poly1305", {"encr-alg": "CHACHA20_POLY1305", "encr-keysize": "256"}, True),
        ("aes256gcm16-mlkem768", {"dh-group": "ML_KEM_768"}, True),
        # A CHILD_SA made together with its IKE_SA has no key exchange of its own.
        ("aes256gcm16-x25519-ke1_mlkem768", {}, True),
        ("aes256gcm16-x25519-ke1_mlkem768", {"dh-group": "CURVE_25519", "ake1": "ML_KEM_768"}, True),
        ("aes256gcm16-x25519-ke1_mlkem768", {"dh-group": "CURVE_25519"}, False),
        ("aes256gcm16-x25519-ke1_mlkem768", {"dh-group": "CURVE_25519", "ake1": "ML_KEM_512"}, False),
        ("aes256gcm16-x25519-ke1_mlkem768", {"dh-group": "CURVE_25519", "ake1": "NEW_THING"}, True),
        ("aes256gcm16-x25519-ke1_mlkem768-ke1_none", {"dh-group": "CURVE_25519"}, True),
        ("aes256gcm16-x25519", {"dh-group": "CURVE_25519", "ake1": "ML_KEM_768"}, False),
        ("aes256gcm16-x25519", {"esn": "1"}, False),
        ("aes256gcm16-x25519-esn", {"esn": "1"}, True),
        ("aes256gcm16-x25519-esn", {}, False),
        ("aes256gcm16-x25519-esn-noesn", {}, True),
    ],
)
def test_algorithms(made, proposal, said, good):
    health = verdict(made, proposal=proposal, **said)
    assert health.verdict is (Verdict.UP if good else Verdict.DEGRADED)
    assert good or "declared is" in health.causes[0]


def test_sas_whose_connection_is_no_longer_loaded(made):
    health = verdict(made, loaded=())
    assert health.verdict is Verdict.DEGRADED
    assert health.causes == ("charon on a does not have the connection: apply the topology",)


def test_of_two_ends_one_says_what_both_negotiated(made):
    proposals = (parse_esp_proposal("aes128gcm16"),)
    traffic = {("a", "t"): Traffic(LAN, FAR, proposals), ("b", "t"): Traffic(FAR, LAN, proposals)}
    views = {
        "a": made.view("a", made.ike(made.child())),
        "b": made.view("b", made.ike(made.child(flipped=True), initiator="no")),
    }
    (health,) = judge([replace(made.tunnel, traffic=traffic)], views, NOW)
    assert health.verdict is Verdict.DEGRADED
    assert health.causes == ("at a it uses AES_GCM_16-256, declared is aes128gcm16",)


@pytest.mark.parametrize(
    ("proposal", "said", "good"),
    [
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem768", {}, True),
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem768", {"ake1": None}, False),
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem1024", {}, False),
        ("aes256gcm16-prfsha384-x25519", {}, False),
        ("aes256gcm16-prfsha256-x25519-ke1_mlkem768", {}, False),
        ("aes256gcm16-prfsha256-x25519-ke1_mlkem768", {"state": "CONNECTING"}, True),
    ],
)
def test_the_ike_sa(made, proposal, said, good):
    tunnel = replace(made.partner, ike={"a": (parse_ike_proposal(proposal),)})
    view = made.view("a", made.ike(made.child(), **said))
    (health,) = judge([tunnel], {"a": view}, NOW)
    assert health.verdict is (Verdict.UP if good else Verdict.DEGRADED)
    assert good or health.causes[0].startswith("the IKE_SA at a: it uses AES_GCM_16-256/PRF_HMAC_SHA2_384")


def child_sa(local, remote):
    listed = {"name": "t", "uniqueid": "1", "state": "INSTALLED", "local-ts": local, "remote-ts": remote}
    sa = {"uniqueid": "1", "state": "ESTABLISHED", "child-sas": {"t-1": listed}}
    (ike,) = parse_list_sas([{"t": sa}])
    return ike.children[0]


@pytest.mark.parametrize(
    ("local", "remote", "narrow"),
    [
        (["10.1.0.0/24"], ["10.2.0.0/24"], True),
        (["10.1.0.0/24", "10.1.8.0/24"], ["10.2.0.0/25"], True),
        (["10.1.0.0/24", "10.1.8.0/24"], ["10.2.0.0/24"], False),
        (["10.1.8.0/24", "10.1.0.0/24"], ["10.2.0.0/24"], False),
        (["10.1.0.0/24"], ["10.2.0.0/24", "10.3.0.0/24"], False),
        (["10.1.0.0/24"], ["10.9.0.0/24"], False),
        ([], [], False),
    ],
    ids=["network gone", "half gone", "whole", "other order", "less and more", "another", "not told"],
)
def test_an_sa_that_carries_less_and_nothing_else(local, remote, narrow):
    declared = Traffic(("10.1.0.0/24", "10.1.8.0/24"), ("10.2.0.0/24",), ())
    assert narrower(declared, child_sa(local, remote)) is narrow

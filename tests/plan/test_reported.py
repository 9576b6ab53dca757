"""Which fields of a connection somebody has altered, from what charon 5.9.8 and 6.1.0 report."""

from __future__ import annotations

from copy import deepcopy

import pytest

from ipsecctl.plan.reported import departing

MESSAGE = {
    "version": "2",
    "local_addrs": ["198.51.100.51"],
    "remote_addrs": ["192.0.2.53"],
    "proposals": ["aes256gcm16-prfsha384-x25519-ecp384", "chacha20poly1305-prfsha384-x25519-ecp384"],
    "rekey_time": "14400s",
    "reauth_time": "0s",
    "dpd_delay": "15s",
    "unique": "no",
    "local": {"auth": "pubkey", "id": "a", "certs": [b"der"]},
    "remote": {"auth": "pubkey", "id": "b", "cacerts": [b"der"]},
    "children": {
        "t": {
            "mode": "tunnel",
            "local_ts": ["10.51.0.0/24", "fd00:51::/64"],
            "remote_ts": ["10.53.0.0/24", "fd00:53::/64"],
            "esp_proposals": ["aes256gcm16-x25519-ecp384"],
            "rekey_time": "3600s",
            "start_action": "trap",
            "close_action": "start",
            "dpd_action": "restart",
        }
    },
}
OLD = {
    "local_addrs": ["198.51.100.51"],
    "remote_addrs": ["192.0.2.53"],
    "version": "IKEv2",
    "reauth_time": "0",
    "rekey_time": "14400",
    "unique": "UNIQUE_NO",
    "dpd_delay": "15",
    "local-1": {"id": "a", "class": "public key", "groups": [], "certs": ["CN=a"], "cacerts": []},
    "remote-1": {"id": "b", "class": "public key", "groups": [], "certs": [], "cacerts": ["CN=CA"]},
    "children": {
        "t": {
            "mode": "TUNNEL",
            "rekey_time": "3600",
            "rekey_bytes": "0",
            "dpd_action": "start",
            "close_action": "start",
            "local-ts": ["10.51.0.0/24", "fd00:51::/64"],
            "remote-ts": ["10.53.0.0/24", "fd00:53::/64"],
        }
    },
}
NEW = deepcopy(OLD)
NEW["proposals"] = {
    "0": {"encr": ["AES_GCM_16_256"], "prf": ["PRF_HMAC_SHA2_384"], "ke": ["CURVE_25519", "ECP_384"]},
    "1": {"encr": ["CHACHA20_POLY1305"], "prf": ["PRF_HMAC_SHA2_384"], "ke": ["CURVE_25519", "ECP_384"]},
}
NEW["children"]["t"]["esp_proposals"] = {
    "0": {"encr": ["AES_GCM_16_256"], "ke": ["CURVE_25519", "ECP_384"], "sn": ["NO_EXT_SEQ"]}
}


def test_an_old_charon_that_reports_what_was_sent():
    assert departing(OLD, MESSAGE) == ({}, {})


def test_proposals_that_were_altered():
    altered = deepcopy(NEW)
    altered["children"]["t"]["esp_proposals"]["0"]["ke"] = ["ECP_256"]
    assert departing(altered, MESSAGE) == (
        {"children.t.esp_proposals": "AES_GCM_16_256-ECP_256"},
        {"children.t.esp_proposals": "aes256gcm16-x25519-ecp384"},
    )


def test_where_nothing_seems_to_differ_proposals_are_shown():
    before, after = departing(NEW, MESSAGE)
    assert before.keys() == after.keys() == {"proposals", "children.t.esp_proposals"}


@pytest.mark.parametrize(
    ("path", "value", "field", "shown", "sent"),
    [
        (("dpd_delay",), "77", "dpd_delay", "77s", "15s"),
        (("version",), "IKEv1", "version", "1", "2"),
        (("unique",), "UNIQUE_REPLACE", "unique", "replace", "no"),
        (("remote_addrs",), ["192.0.2.1"], "remote_addrs", "192.0.2.1", "192.0.2.53"),
        (("local-1", "id"), "c", "local.id", "c", "a"),
        (("remote-1", "class"), "pre-shared key", "remote.auth", "psk", "pubkey"),
        (("children", "t", "rekey_time"), "60", "children.t.rekey_time", "60s", "3600s"),
        (("children", "t", "dpd_action"), "none", "children.t.dpd_action", "none", "start"),
        (("children", "t", "mode"), "TRANSPORT", "children.t.mode", "transport", "tunnel"),
        (
            ("children", "t", "remote-ts"),
            ["10.0.0.0/8"],
            "children.t.remote_ts",
            "10.0.0.0/8",
            "10.53.0.0/24, fd00:53::/64",
        ),
    ],
)
@pytest.mark.parametrize("reported", [OLD, NEW], ids=["5.9.8", "6.1.0"])
def test_a_field_that_was_altered_is_the_only_one_named(reported, path, value, field, shown, sent):
    altered = deepcopy(reported)
    section = altered
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    assert departing(altered, MESSAGE) == ({field: shown}, {field: sent})


def test_children_that_came_and_went():
    altered = deepcopy(OLD)
    altered["children"]["other"] = altered["children"].pop("t")
    assert departing(altered, MESSAGE) == ({"children.other": "loaded"}, {"children.t": "declared"})

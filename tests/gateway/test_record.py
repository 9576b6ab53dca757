"""The record that an apply leaves behind."""

from __future__ import annotations

import json

import pytest

from ipsecctl.desired import Means
from ipsecctl.gateway import Answer, Has, Kernel, Record, Seen, StartUp, Trials, canonical
from ipsecctl.topology import DataPath


def test_a_record_survives_its_file():
    record = Record(
        key=b"k" * 32,
        topology="t",
        files={"/etc/x": "1"},
        connections={"c": "2"},
        shared={"ike-c": "3"},
        certificates={"x509/a.pem": "4"},
        keys={"private/a.pem": ("id", "5")},
        messages={"c": {"version": "2", "children": {"c": {"local_ts": ["10.0.0.0/8"]}}}},
        interfaces={"ix-c": "if_id=0x7 mtu=1400"},
        means={"g": Means(DataPath.KERNEL, True, (6, 1, 0)), "h": Means(DataPath.LIBIPSEC)},
        trials=Trials(
            "boot", Kernel("6.12", esp=Answer(Has.YES), suites=(("aes256gcm16", Answer(Has.NO, "no such")),))
        ),
        seen=Seen(version="6.1.0", connections={"c": "6"}, firewall="7"),
    )
    assert Record.from_json(record.to_json()) == record


def test_blobs_in_messages_compare_equal_after_a_round_trip():
    message = {"local": {"certs": [b"\x00\xff"]}}
    record = Record(key=b"", messages={"c": message})
    again = Record.from_json(record.to_json())
    assert canonical(again.messages["c"]) == canonical(message)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"schema": "other"}', b"\xff"])
def test_another_file_is_refused(content):
    with pytest.raises(ValueError, match="not a record"):
        Record.from_json(content)


def test_digests_depend_on_key_kind_and_value():
    one, other = Record.fresh(), Record.fresh()
    value = {"data": b"secret"}
    assert one.digest("shared", value) == one.digest("shared", dict(value))
    digests = {
        one.digest("shared", value),
        one.digest("key", value),
        one.digest("shared", {"data": b"secret2"}),
        other.digest("shared", value),
    }
    assert len(digests) == 4


def test_no_secret_is_in_the_file():
    record = Record.fresh()
    digest = record.digest("shared", {"data": b"hunter2hunter2"})
    assert b"hunter2" not in Record(key=record.key, shared={"ike-c": digest}).to_json()


def test_a_record_from_before_renewals_were_noted():
    made = Record(b"k", renew=("t",))
    assert Record.from_json(made.to_json()).renew == ("t",)
    document = json.loads(made.to_json())
    del document["renew"]
    assert Record.from_json(json.dumps(document).encode()).renew == ()


def test_a_record_from_before_changes_were_left_uncompleted():
    made = Record(b"k", kept={"t": "why"})
    assert Record.from_json(made.to_json()).kept == {"t": "why"}
    document = json.loads(made.to_json())
    del document["kept"]
    assert Record.from_json(json.dumps(document).encode()).kept == {}


def test_sas_of_an_earlier_configuration_end_with_their_charon():
    record = Record(b"k", renew=("t", "u"), kept={"t": "why"}, start_up=StartUp("1-1"))
    assert record.older("1-1") == record.older("") == {"t": "why", "u": ""}
    assert record.older("2-2") == {}


def test_a_record_from_before_ways_and_trials_were_noted():
    document = json.loads(Record(b"k").to_json())
    for name in ("interfaces", "means", "trials"):
        del document[name]
    assert Record.from_json(json.dumps(document).encode()) == Record(b"k")


def test_gateways_that_have_the_same_are_told_of_once():
    means = {f"clinic-{n}": Means(DataPath.KERNEL, True, (6, 1, 0)) for n in range(1000)}
    written = Record(b"k", means=means).to_json()
    assert written.count(b"kernel") == 1
    assert Record.from_json(written).means == means

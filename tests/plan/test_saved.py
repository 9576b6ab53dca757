"""Saved plans: what is in the file, what is refused, and what makes one stale."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import IpsecctlError
from ipsecctl.plan import (
    Change,
    GatewayPlan,
    Kind,
    Part,
    SavedGateway,
    SavedPlan,
    is_saved_plan,
    load_plan,
    plan_json,
    stale_because,
)


def change(name: str, kind: Kind = Kind.CHANGE, gateway: str = "a") -> Change:
    return Change(gateway, Part.CONNECTION, name, kind, (("x", "1"),), (("x", "2"),), ("because",))


def document(*changes: Change, failures=None):
    plans = [
        GatewayPlan(name, tuple(c for c in changes if c.gateway == name), version="6.1") for name in "ab"
    ]
    return plan_json(plans, failures or {})


SAVED = SavedPlan(
    made="2026-01-02T03:04:05+00:00",
    by="ann@desk",
    topology="top",
    file="/srv/top.yaml",
    text="text digest",
    lab="",
    take_over=False,
    allowed=("disturb",),
    limit=("a*",),
    certificates={"a/x509/a.pem": "one"},
    salt="00ff",
    secrets="secrets digest",
    gateways={name: SavedGateway(f"record of {name}", "12-34", "boot") for name in "ab"},
    document=document(change("t")),
)


def test_there_and_back():
    content = SAVED.to_json().encode()
    assert is_saved_plan(content)
    assert load_plan(content, "x.plan") == SAVED
    assert stale_because(SAVED, load_plan(content, "x.plan")) == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"schema": 1}', b'{"schema": "ipsecctl/plan/1"}', b"ipsecctl: 1\n", b"\xff"],
)
def test_what_is_no_saved_plan(content: bytes):
    assert not is_saved_plan(content)


def test_another_version_of_the_format_is_refused():
    content = SAVED.to_json().replace("saved-plan/1", "saved-plan/2").encode()
    assert is_saved_plan(content)
    with pytest.raises(
        IpsecctlError, match=r"x\.plan was saved by another version of ipsecctl \(.*saved-plan/2"
    ) as no:
        load_plan(content, "x.plan")
    assert "Plan again" in no.value.hint


@pytest.mark.parametrize("name", sorted({*json.loads(SAVED.to_json())} - {"schema"}))
@pytest.mark.parametrize("value", [..., None, 7, [3], {"a": 5}])
def test_a_damaged_one_is_refused(name: str, value):
    content = json.loads(SAVED.to_json())
    content.pop(name)
    if value is not ...:
        content[name] = value
    with pytest.raises(IpsecctlError, match="damaged plan"):
        load_plan(json.dumps(content).encode(), "x.plan")


@given(st.data())
def test_whatever_byte_is_damaged(data):
    """It is refused as a plan, is none at all, or is what was saved but for a value that is of its type."""
    content = bytearray(SAVED.to_json().encode())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    if is_saved_plan(bytes(content)):
        try:
            load_plan(bytes(content), "x.plan")
        except IpsecctlError as refused:
            assert "Plan again" in refused.hint


AFTER = {
    "/srv/top.yaml has other text": {"text": "other", "secrets": "other"},
    "a secret that the topology refers to is another one": {"secrets": "other"},
    "the certificate a/x509/a.pem is another one": {"certificates": {"a/x509/a.pem": "two"}},
    "the certificate b/x509/b.pem is another one": {
        "certificates": {**SAVED.certificates, "b/x509/b.pem": "new"}
    },
    "a: another apply was there (its record has changed)": {
        "gateways": {**SAVED.gateways, "a": SavedGateway("other", "12-34", "boot")}
    },
    "b: charon was started anew": {
        "gateways": {**SAVED.gateways, "b": SavedGateway("record of b", "9-9", "boot")}
    },
    "b: it was rebooted": {"gateways": {**SAVED.gateways, "b": SavedGateway("record of b", "9-9", "later")}},
    "a: what is there has changed: is to be changed as well: a/connection/u": {
        "document": document(change("t"), change("u"))
    },
    "b: what is there has changed: is to be changed as well: b/connection/t": {
        "document": document(change("t"), change("t", gateway="b"))
    },
    "a: what is there has changed: is not to be changed any more: a/connection/t": {"document": document()},
    "a: what is there has changed: is to be changed in another way: a/connection/t": {
        "document": document(change("t", Kind.CREATE))
    },
    "a: no answer": {"document": document(change("t"), failures={"a": "a: no answer"})},
    "b has no plan any more": {"gateways": {"a": SAVED.gateways["a"]}},
}


@pytest.mark.parametrize("why", AFTER)
def test_what_has_changed_is_named(why: str):
    assert stale_because(SAVED, replace(SAVED, **AFTER[why])) == (why,)


def test_who_saves_and_when_is_no_change():
    assert stale_because(SAVED, replace(SAVED, by="bob@lap", made="later")) == ()

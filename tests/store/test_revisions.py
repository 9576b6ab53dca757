"""Revisions: written when an apply begins, as gateways finish, and when it ends, however it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from ipsecctl.errors import ApplyFailed, IpsecctlError, StoreUnusable
from ipsecctl.store import (
    Claim,
    GatewayOutcome,
    GatewayRow,
    Location,
    NewRevision,
    Outcome,
    Store,
    history_json,
    revision_json,
)
from ipsecctl.store.database import Database

DC, CLINIC = Claim("ssh://198.51.100.10:22", "dc"), Claim("ssh://203.0.113.20:22", "clinic-a")
ROWS = (GatewayRow("clinic-a", changes=2), GatewayRow("dc", changes=1))
TEXT = "ipsecctl: 1\nname: clinics # Zürich\n"
PLAN = {"schema": "ipsecctl/plan/1", "changes": [{"name": "t", "after": {"é": "?%s"}}]}


FULL = GatewayRow("clinic-a", GatewayOutcome.FAILED, 2, 0.5, "clinic-a: no room", "make room")


def new(**other):
    values = {
        "topology": "clinics",
        "file": "/etc/clinics.yaml",
        "text": TEXT,
        "plan": PLAN,
        "gateways": ROWS,
    }
    return NewRevision(**{"gateways": ROWS} | values | other)


def applied(store, revision=None, outcome=Outcome.APPLIED):
    with store.session() as session:
        session.lock([DC, CLINIC], "clinics")
        number = session.begin(revision or new())
        session.gateway(GatewayRow("dc", GatewayOutcome.APPLIED, 1, 1.25))
        session.gateway(FULL)
        session.end(outcome, "failed: clinic-a", [{"name": "t", "verdict": "up", "causes": []}])
    assert session.trouble is None
    return number


def test_nothing_is_made_by_looking(store, place):
    assert store.revisions() == ()
    assert store.locks() == ()
    with pytest.raises(IpsecctlError, match="there is no revision 1 in ") as none:
        store.revision(1)
    assert none.value.hint == "'ipsecctl history' lists them."
    assert place.file is None or not place.file.exists()


def test_all_of_a_revision_comes_back(store):
    before = datetime.now(UTC) - timedelta(seconds=5)
    assert applied(store, new(message="why 100%?", lab="x")) == 1
    found = store.revision(1)
    assert before < found.began <= found.ended < datetime.now(UTC) + timedelta(seconds=5)
    assert (found.topology, found.file, found.message, found.lab) == (
        "clinics",
        "/etc/clinics.yaml",
        "why 100%?",
        "x",
    )
    assert (found.text, found.plan) == (TEXT, PLAN)
    assert found.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert (found.outcome, found.error) == (Outcome.APPLIED, "failed: clinic-a")
    assert found.gateways == (
        FULL,
        GatewayRow("dc", GatewayOutcome.APPLIED, 1, 1.25),
    )
    assert found.tunnels == ({"name": "t", "verdict": "up", "causes": []},)


def test_the_list_is_newest_first_and_can_be_narrowed(store):
    for name in ("clinics", "other", "clinics"):
        applied(store, new(topology=name))
    assert [r.number for r in store.revisions()] == [3, 2, 1]
    assert [r.number for r in store.revisions("clinics")] == [3, 1]
    assert [r.number for r in store.revisions("clinics", 1)] == [3]
    assert [r.number for r in store.revisions(limit=2)] == [3, 2]
    assert store.revisions("none") == ()
    assert {r.text for r in store.revisions()} == {""}
    assert store.revisions()[0].gateways == store.revision(3).gateways


def test_documents_are_json_in_utc(store, place):
    applied(store)
    document = json.loads(json.dumps(history_json(str(place), store.revisions(), store.locks())))
    assert document["schema"] == "ipsecctl/history/1"
    assert document["locks"] == []
    entry = document["revisions"][0]
    assert datetime.fromisoformat(entry["began"]).tzinfo == UTC
    assert entry["began"].endswith("Z")
    assert entry["outcome"] == "applied"
    assert [(g["name"], g["outcome"]) for g in entry["gateways"]] == [
        ("clinic-a", "failed"),
        ("dc", "applied"),
    ]
    whole = json.loads(json.dumps(revision_json(str(place), store.revision(1))))
    assert whole["schema"] == "ipsecctl/revision/1"
    assert (whole["text"], whole["plan"], entry | whole) == (TEXT, PLAN, whole | {"schema": whole["schema"]})


def test_what_no_database_takes_is_replaced(store):
    with store.session() as session:
        session.lock([DC], "clinics")
        session.begin(new(file="/etc/\udcff.yaml", plan={"x": "\0\udcff"}))
        session.gateway(GatewayRow("dc", GatewayOutcome.FAILED, 1, 1.25, "said \0\udcff"))
        session.end(Outcome.FAILED, "said \0")
    assert session.trouble is None
    found = store.revision(1)
    assert (found.file, found.error) == ("/etc/?.yaml", "said \ufffd")
    assert found.gateways[1].error == "said \ufffd?"
    assert found.plan == {"x": "\0\udcff"}


def test_under_way_is_seen_by_others_as_it_goes(store, place):
    with store.session() as session:
        session.lock([DC, CLINIC], "clinics")
        session.begin(new())
        with Store(place) as other:
            assert other.revision(1).outcome is Outcome.UNDER_WAY
            assert other.revision(1).ended is None
            assert {row.outcome for row in other.revision(1).gateways} == {GatewayOutcome.PENDING}
            assert [lock.claim for lock in other.locks()] == [CLINIC, DC]
            assert other.locks()[0].alive
    assert store.locks() == ()


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (ApplyFailed("another apply is at work on dc"), Outcome.REFUSED, "another apply is at work on dc"),
        (KeyboardInterrupt(), Outcome.INTERRUPTED, ""),
        (asyncio.CancelledError(), Outcome.INTERRUPTED, ""),
        (ValueError("a bug"), Outcome.FAILED, "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_apply_that_ends_otherwise_is_closed(store, error, outcome, said):
    with pytest.raises(type(error)), store.session() as session:
        session.lock([DC], "clinics")
        session.begin(new())
        raise error
    found = store.revision(1)
    assert (found.outcome, found.error) == (outcome, said)
    left = "interrupted" if outcome is Outcome.FAILED else str(outcome)
    assert {str(row.outcome) for row in found.gateways} == {left}, "none is pending for ever"
    assert store.locks() == ()


def test_what_is_not_begun_is_no_revision(store):
    with store.session() as session:
        session.lock([DC], "clinics")
        session.gateway(GatewayRow("dc"))
        session.end(Outcome.APPLIED)
    assert session.trouble is None
    assert store.revisions() == ()


def test_the_same_text_is_no_news_once_it_was_applied(store):
    def news(text=TEXT, lab=""):
        with store.session() as session:
            return session.is_news("clinics", text, lab)

    assert news()
    applied(store, outcome=Outcome.FAILED)
    assert news()
    applied(store)
    assert not news()
    assert news(TEXT + "\n")
    assert news(lab="x")


HOLDER = """
import sys, time
from pathlib import Path
from ipsecctl.store import Claim, GatewayOutcome, GatewayRow, Location, NewRevision, Store
file, url = sys.argv[1:]
with Store(Location(Path(file) if file else None, url)).session() as session:
    session.lock([Claim("ssh://198.51.100.10:22", "dc"), Claim("x", "clinic-a")], "clinics")
    rows = (GatewayRow("clinic-a", changes=2), GatewayRow("dc", changes=1))
    session.begin(NewRevision("clinics", "/f", "text", {}, rows))
    session.gateway(GatewayRow("dc", GatewayOutcome.APPLIED, 1, 0.1))
    while session._to_write:
        time.sleep(0.01)
    print("at work", flush=True)
    time.sleep(60)
"""


def holder(place):
    argv = [sys.executable, "-c", HOLDER, str(place.file or ""), place.url]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"at work\n"
    return process


def test_a_killed_apply_is_seen_as_cut_off_and_blocks_nobody(store, place):
    with holder(place) as process:
        assert store.revision(1).outcome is Outcome.UNDER_WAY
        process.send_signal(signal.SIGKILL)
    found = store.revision(1)
    assert found.outcome is Outcome.CUT_OFF
    assert [row.outcome for row in found.gateways] == [GatewayOutcome.CUT_OFF, GatewayOutcome.APPLIED]
    assert found.ended is not None and found.ended >= found.began
    assert not store.locks()[0].alive
    with store.session() as session:
        taken = session.lock([DC], "clinics")
        assert [lock.owner.pid for lock in taken.expired] == [process.pid]
        assert taken.broken == ()
    assert store.revision(1).outcome is Outcome.CUT_OFF
    assert store.revision(1).ended is not None
    assert store.locks() == ()


def broken_for(monkeypatch, times):
    """Let the database be out of reach for the next so many transactions."""
    whole, left = Database.transaction, [times]

    def failing(self, **how):
        if left[0] > 0:
            left[0] -= 1
            raise StoreUnusable("gone")
        return whole(self, **how)

    monkeypatch.setattr(Database, "transaction", failing)
    return left


@pytest.mark.slow
def test_a_store_that_is_away_for_a_while_gets_it_all_in_the_end(store, monkeypatch):
    with store.session() as session:
        session.lock([DC], "clinics")
        session.begin(new())
        left = broken_for(monkeypatch, 2)
        session.gateway(GatewayRow("dc", GatewayOutcome.APPLIED, 1, 0.1))
        session.gateway(GatewayRow("dc", GatewayOutcome.UNCHANGED, 0, 0.2))
        session.end(Outcome.APPLIED)
    assert left == [0]
    assert session.trouble is None
    assert store.revision(1).outcome is Outcome.APPLIED
    assert store.revision(1).gateways[1] == GatewayRow("dc", GatewayOutcome.UNCHANGED, 0, 0.2)


def test_a_store_that_stays_away_stops_no_apply_and_is_told(store, monkeypatch):
    monkeypatch.setattr("ipsecctl.store.session._LAST_TRY_S", 0.1)
    with store.session() as session:
        session.lock([DC], "clinics")
        session.begin(new())
        broken_for(monkeypatch, 10_000)
        session.gateway(GatewayRow("dc", GatewayOutcome.APPLIED, 1, 0.1))
        session.end(Outcome.APPLIED)
    assert session.trouble is not None
    assert session.trouble.summary == "gone"


@pytest.mark.postgres
@pytest.mark.xdist_group("postgres")
def test_a_server_that_is_restarted_in_the_middle_loses_nothing(server):
    database = server.database()
    with Store(Location(url=server.url(database))) as store:
        with store.session() as session:
            session.lock([DC], "clinics")
            session.begin(new())
            server.stop()
            server.start()
            session.gateway(GatewayRow("dc", GatewayOutcome.APPLIED, 1, 0.1))
            session.end(Outcome.APPLIED)
        assert session.trouble is None
        assert store.revision(1).outcome is Outcome.APPLIED
        assert store.revision(1).gateways[1].outcome is GatewayOutcome.APPLIED
        assert store.locks() == ()


def test_ctrl_c_between_the_lock_and_who_would_let_it_go_leaves_none(store, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), store.session() as session:
        patched.setattr("threading.Thread.start", interrupted)
        session.lock([Claim("ssh://192.0.2.1:22", "gw-1")], "clinics")
    assert session.trouble is None
    with store.session() as session:
        taken = session.lock([Claim("ssh://192.0.2.1:22", "gw-1")], "clinics")
    assert (taken.expired, taken.broken) == ((), ())

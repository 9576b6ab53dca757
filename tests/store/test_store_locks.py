"""Locks of gateways in the store: who comes second waits or is told whose; none outlives its owner."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipsecctl.errors import GatewaysBusy, LockLost
from ipsecctl.patience import PATIENCE
from ipsecctl.store import Claim, GatewayRow, NewRevision, Outcome, Owner, Store
from ipsecctl.store import locks as rules
from ipsecctl.store.database import Transaction, connect
from ipsecctl.store.schema import make_ready
from ipsecctl.store.session import Session

A, B, C = (Claim(f"ssh://192.0.2.{n}:22", f"gw-{n}") for n in (1, 2, 3))
ALICE = Owner("alice", "noc-1", 11)
BOB = Owner("bob", "noc-2", 22)


@pytest.fixture
def database(place):
    made = connect(place)
    make_ready(made)
    yield made
    made.close()


class Sessions:
    """Sessions of people elsewhere, at a time that only passes when told."""

    def __init__(self, database):
        self.database = database
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def acquire(self, owner, *claims, break_them=False, lasts_s=30.0):
        with self.database.transaction(alone=True) as transaction:
            return rules.acquire(
                transaction, owner.user, owner, claims, "clinics", break_them=break_them, lasts_s=lasts_s
            )

    def beat(self, owner):
        with self.database.transaction() as transaction:
            return rules.beat(transaction, owner.user)

    def leave(self, owner):
        with self.database.transaction(alone=True) as transaction:
            rules.leave(transaction, owner.user)

    def held(self):
        with self.database.transaction() as transaction:
            return {lock.claim: lock.owner.user for lock in rules.all_locks(transaction)}

    def later(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def sessions(database, monkeypatch):
    made = Sessions(database)
    monkeypatch.setattr(Transaction, "now", lambda self: made.now)
    return made


def test_the_second_is_told_who_is_at_work_on_what_and_since_when(sessions):
    sessions.acquire(ALICE, A, B)
    sessions.later(20)
    sessions.beat(ALICE)
    sessions.later(22)
    with pytest.raises(GatewaysBusy) as busy:
        sessions.acquire(BOB, C, B, A)
    assert busy.value.summary == "alice@noc-1 (pid 11) has been applying clinics to gw-1, gw-2 for 0:42"
    assert "Nothing was done" in busy.value.hint
    assert "--break-lock" in busy.value.hint
    assert sessions.held() == {A: "alice", B: "alice"}, "all or nothing"


def test_gateways_that_are_free_can_be_had(sessions):
    sessions.acquire(ALICE, A)
    sessions.acquire(BOB, B, C)
    assert sessions.held() == {A: "alice", B: "bob", C: "bob"}
    sessions.leave(ALICE)
    assert sessions.held() == {B: "bob", C: "bob"}


def test_a_gateway_is_the_same_under_another_name_and_another_under_the_same(sessions):
    sessions.acquire(ALICE, A)
    with pytest.raises(GatewaysBusy):
        sessions.acquire(BOB, Claim(A.address, "other-name"))
    sessions.acquire(BOB, Claim("ssh://192.0.2.99:22", A.name))


def test_who_is_not_heard_of_loses_the_lock(sessions):
    sessions.acquire(ALICE, A, B)
    sessions.later(29)
    with pytest.raises(GatewaysBusy):
        sessions.acquire(BOB, A)
    sessions.later(2)
    taken = sessions.acquire(BOB, A)
    assert [(lock.claim, lock.owner.user) for lock in taken.expired] == [(A, "alice")]
    assert taken.broken == ()
    assert sessions.held() == {A: "bob"}, "all that the dead one had is free"
    assert sessions.beat(ALICE) == ""
    assert sessions.beat(BOB) is None


def test_each_owner_says_how_long_to_believe_him(sessions):
    sessions.acquire(ALICE, A, lasts_s=300)
    sessions.later(299)
    with pytest.raises(GatewaysBusy):
        sessions.acquire(BOB, A)


def test_a_broken_lock_tells_its_owner_who_did_it(sessions):
    sessions.acquire(ALICE, A, B)
    taken = sessions.acquire(BOB, A, break_them=True)
    assert [lock.owner.user for lock in taken.broken] == ["alice"]
    assert taken.expired == ()
    assert sessions.beat(ALICE) == "bob@noc-2"
    assert sessions.held() == {A: "bob", B: "alice"}
    sessions.leave(ALICE)
    assert sessions.held() == {A: "bob"}


def test_an_owner_on_this_machine_whose_process_has_ended_is_seen_at_once(sessions):
    ours = rules.here()
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = Owner("carol", ours.host, ended.pid, ours.seat, 1)
    sessions.acquire(gone, A)
    assert [lock.owner.user for lock in sessions.acquire(BOB, A).expired] == ["carol"]
    reused = Owner("dave", ours.host, ours.pid, ours.seat, (ours.start or 0) - 1)
    sessions.acquire(reused, B)
    assert sessions.acquire(BOB, A, B).expired[0].owner.user == "dave", "its number is another process's"
    sessions.acquire(Owner("erin", ours.host, ours.pid, ours.seat, ours.start), C)
    with pytest.raises(GatewaysBusy, match="erin"):
        sessions.acquire(BOB, C)


WHO = st.sampled_from([ALICE, BOB, Owner("carol", "noc-3", 33)])
CLAIMS = st.sets(st.sampled_from([A, B, C]), min_size=1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), WHO, CLAIMS),
        st.tuples(st.just("break"), WHO, CLAIMS),
        st.tuples(st.just("beat"), WHO),
        st.tuples(st.just("leave"), WHO),
        st.tuples(st.just("later"), st.integers(1, 40)),
    ),
    max_size=12,
)


@settings(
    max_examples=3 * settings.default.max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_whatever_happens_a_gateway_has_one_owner_who_was_heard_of(sessions, steps):
    """Hold the store against a model that is a dictionary of locks and one of times."""
    for user in ("alice", "bob", "carol"):
        sessions.leave(Owner(user, "", 0))
    owners, heard, broken = {}, {}, {}

    def forget(user):
        for claim in [claim for claim, owner in owners.items() if owner == user]:
            del owners[claim]
        heard.pop(user, None)
        broken.pop(user, None)

    for kind, *what in steps:
        if kind == "later":
            sessions.later(what[0])
            continue
        owner = what[0]
        me = owner.user
        if kind == "leave":
            sessions.leave(owner)
            forget(me)
        elif kind == "beat":
            assert sessions.beat(owner) == (broken.get(me) if me in heard else "")
            if me in heard:
                heard[me] = sessions.now
        else:
            others = {owners[claim] for claim in what[1] if owners.get(claim, me) != me}
            living = {user for user in others if sessions.now - heard[user] <= timedelta(seconds=30)}
            if living and kind == "acquire":
                with pytest.raises(GatewaysBusy):
                    sessions.acquire(owner, *what[1])
            else:
                taken = sessions.acquire(owner, *what[1], break_them=kind == "break")
                assert {lock.owner.user for lock in taken.broken} == living
                assert {lock.owner.user for lock in taken.expired} == others - living
                for user in others - living:
                    forget(user)
                broken.update(dict.fromkeys(living, owner.person))
                forget(me)
                owners.update(dict.fromkeys(what[1], me))
                heard[me] = sessions.now
        assert sessions.held() == owners


# --------------------------------------------------------------------------------- sessions as they are


def revision():
    return NewRevision("clinics", "/f", "text", {}, (GatewayRow(A.name),))


def test_who_waits_gets_the_lock_when_it_is_let_go(store, place):
    told, order = [], []
    with Store(place) as other, other.session() as second:
        with store.session() as first:
            first.lock([A], "clinics")

            def wait():
                second.lock([A, B], "other", wait_s=60 * PATIENCE, waiting=told.append)
                order.append("second")

            waiting = threading.Thread(target=wait)
            waiting.start()
            while not told:
                time.sleep(0.01)
            order.append("first")
        waiting.join()
    assert order == ["first", "second"]
    assert [first.owner.person in busy.summary for busy in told] == [True], "told once"


def test_who_waits_in_vain_is_told_for_whom(store, place):
    with store.session() as first, Store(place) as other:
        first.lock([A], "clinics")
        with (
            pytest.raises(GatewaysBusy, match="has been applying clinics to gw-1"),
            other.session() as second,
        ):
            second.lock([A], "other", wait_s=0.2)
    assert store.locks() == ()


def quick(place, lasts_s=30.0):
    database = connect(place)
    make_ready(database)
    return Session(database, beat_s=0.05, lasts_s=lasts_s)


async def forever(started):
    started.set()
    await asyncio.Event().wait()


def test_an_apply_whose_lock_is_broken_is_stopped(store, place):
    started = threading.Event()

    def break_it():
        started.wait()
        with store.session() as second:
            assert second.lock([A], "other", break_them=True).broken[0].claim == A

    breaking = threading.Thread(target=break_it)
    breaking.start()
    with pytest.raises(LockLost) as lost, quick(place) as first:
        first.lock([A, B], "clinics")
        first.begin(revision())
        asyncio.run(first.guard(forever(started)))
    breaking.join()
    assert lost.value.summary == f"{first.owner.person} has broken the lock of this apply"
    found = store.revision(1)
    assert (found.outcome, found.error) == (Outcome.INTERRUPTED, lost.value.summary)
    assert store.locks() == ()


def test_a_lock_that_was_broken_before_the_work_began_stops_it_too(store, place):
    with pytest.raises(LockLost), quick(place) as first:
        first.lock([A], "clinics")
        with store.session() as second:
            second.lock([A], "other", break_them=True)
            while first._lost is None:
                time.sleep(0.01)
        with pytest.raises(LockLost):
            first.check()
        asyncio.run(first.guard(forever(threading.Event())))


def test_who_was_given_up_and_comes_back_goes_on_if_nobody_came(place, database):
    with quick(place) as first:
        first.lock([A], "clinics")
        first.begin(revision())
        with database.transaction(alone=True) as transaction:
            rules.leave(transaction, first._name)
        while not list_locks(database):
            time.sleep(0.01)
        first.check()
    assert first.trouble is None


def test_who_was_given_up_and_finds_another_there_is_stopped(place, database):
    with pytest.raises(LockLost, match="given up for dead, and then bob@noc-2"), quick(place) as first:
        first.lock([A], "clinics")
        with database.transaction(alone=True) as transaction:
            rules.leave(transaction, first._name)
            rules.acquire(transaction, "bob", BOB, [A], "other")
        while first._lost is None:
            time.sleep(0.01)
        first.check()
    assert [lock.owner for lock in list_locks(database)] == [BOB]


def list_locks(database):
    with database.transaction() as transaction:
        return rules.all_locks(transaction)


CONTENDER = """
import os, sys, time
from pathlib import Path
from ipsecctl.store import Claim, GatewayRow, Location, NewRevision, Outcome, Store
file, url, flag, rounds = sys.argv[1:]
claims = [Claim("ssh://a", "a"), Claim("ssh://b", "b")]
for n in range(int(rounds)):
    with Store(Location(Path(file) if file else None, url)) as store, store.session() as session:
        session.lock(claims[:1 + n % 2], "t", wait_s=120)
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))  # fails when two are in here
        number = session.begin(NewRevision("t", "/f", f"text {n % 3}", {}, (GatewayRow("a"),)))
        time.sleep(0.005)
        os.unlink(flag)
        session.end(Outcome.APPLIED)
    assert session.trouble is None, session.trouble
"""


@pytest.mark.slow
def test_processes_that_race_for_a_new_store_are_in_it_one_at_a_time(store, place, tmp_path):
    argv = [sys.executable, "-c", CONTENDER, str(place.file or ""), place.url, str(tmp_path / "flag"), "3"]
    racing = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        said = [process.communicate(timeout=120 * PATIENCE)[1] for process in racing]
    finally:
        for process in racing:
            process.send_signal(signal.SIGKILL)
    assert said == [""] * 4
    revisions = store.revisions()
    assert [r.number for r in revisions] == list(range(12, 0, -1))
    assert {r.outcome for r in revisions} == {Outcome.APPLIED}
    for later, earlier in itertools.pairwise(revisions):
        assert later.began >= earlier.began
    assert store.locks() == ()


def test_readers_wait_for_nobody(store, place):
    with store.session() as session:
        session.lock([A], "clinics")
        session.begin(revision())
        other = connect(place)
        with other.transaction(alone=True):
            assert store.revisions()[0].number == 1
            assert store.locks()[0].claim == A
        other.close()

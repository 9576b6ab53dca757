"""What real applies leave in the history, and how one that was killed or stopped gives way to the next."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ipsecctl.patience import PATIENCE
from ipsecctl.store import GatewayOutcome, Location, Outcome, Store

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("deploy-history")]


@pytest.fixture(scope="module")
def history(pair):
    with Store(Location(pair.directory / "history.db")) as store:
        yield store


def command(pair, store, *options, profile="modern"):
    words = ("apply", pair.topology(profile), "--store", str(store.location), "--yes", *options)
    return [sys.executable, "-m", "ipsecctl", *words]


def apply(pair, store, *options, profile="modern"):
    argv = command(pair, store, *options, profile=profile)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr


def under_way(pair, store, **how):
    """Start an apply and return it when its revision has begun."""
    process = subprocess.Popen(
        command(pair, store, **how), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60 * PATIENCE
    while not store.revisions(limit=1) or store.revisions(limit=1)[0].outcome is not Outcome.UNDER_WAY:
        assert process.poll() is None, "it has ended and was not seen under way"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_an_apply_is_recorded_and_one_with_nothing_to_do_is_not(pair, history):
    apply(pair, history, "-m", "the first")
    apply(pair, history)
    (found,) = history.revisions()
    assert (found.outcome, found.error, found.message) == (Outcome.APPLIED, "", "the first")
    assert [(row.name, row.outcome) for row in found.gateways] == [
        ("a", GatewayOutcome.APPLIED),
        ("b", GatewayOutcome.APPLIED),
    ]
    assert all(row.changes > 5 and row.took_s > 0 for row in found.gateways)
    whole = history.revision(1)
    assert len(whole.plan["changes"]) == sum(row.changes for row in found.gateways)
    assert [(tunnel["name"], tunnel["verdict"]) for tunnel in whole.tunnels] == [("t", "up")]
    psk = (pair.directory / "t.psk").read_text().strip()
    with closing(sqlite3.connect(history.location.file)) as database:
        dump = "\n".join(database.iterdump())
    assert "name: dev-deploy-" in dump
    assert psk not in dump


def test_the_next_one_differs_by_what_was_changed(pair, history):
    apply(pair, history, profile="nist-800-77")
    argv = [sys.executable, "-m", "ipsecctl", "diff", "1", "2", "--store", str(history.location), "--json"]
    document = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert "-defaults: {control: lab, profile: modern," in document["text"]
    assert {(c["gateway"], c["part"], c["name"]) for c in document["changes"]} == {
        ("a", "connection", "t"),
        ("b", "connection", "t"),
    }
    assert "ike_proposals" in document["changes"][0]["after"]


def test_a_controller_that_is_killed_is_cut_off_and_the_next_one_converges(pair, history):
    process = under_way(pair, history, profile="modern")
    process.kill()
    process.wait()
    assert history.revisions(limit=1)[0].outcome is Outcome.CUT_OFF
    assert "its lock was left by" in apply(pair, history, profile="modern")
    assert [r.outcome for r in history.revisions(limit=2)] == [Outcome.APPLIED, Outcome.CUT_OFF]
    assert history.locks() == ()


def test_one_that_hangs_gives_way_when_its_locks_are_broken(pair, history, tmp_path):
    """Also when it uses another store, and does not learn of it: the gateways' own locks are taken, too."""
    with Store(Location(tmp_path / "other.db")) as other:
        process = under_way(pair, other, profile="nist-800-77")
        try:
            process.send_signal(signal.SIGSTOP)
            apply(pair, history, "--break-lock", profile="nist-800-77")
        finally:
            process.kill()
            process.wait()
    assert history.revisions(limit=1)[0].outcome is Outcome.APPLIED

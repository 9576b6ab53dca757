"""``apply`` with its store, ``history`` and ``diff``, as a person sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipsecctl.cli import main
from ipsecctl.deploy import journal
from ipsecctl.patience import PATIENCE
from ipsecctl.store import Claim, GatewayOutcome, GatewayRow, NewRevision, Outcome, Store
from ipsecctl.store.locks import here
from ipsecctl.topology import load_text

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, credential: {psk: "env:IPSECCTL_TEST_PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels:
  t: {between: [a, b]}
"""
PSK = "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi"
GONE = "import sys; sys.stderr.write('Error response from daemon: No such container: c\\n'); sys.exit(1)"
# As long as whoever called it lives.
HANGS = """
import os, time
parent = os.getppid()
open(os.environ["STARTED"], "w").close()
while os.getppid() == parent != 1:
    time.sleep(0.1)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a topology, in which a command finds a docker that has no containers."""
    (tmp_path / "pair.yaml").write_text(TOPOLOGY)
    monkeypatch.setenv("IPSECCTL_TEST_PSK", PSK)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    docker(GONE)
    return tmp_path


def docker(script, folder="bin"):
    fake = Path(folder) / "docker"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!{sys.executable} -IS\n{script}\n")
    fake.chmod(0o700)


@pytest.fixture
def run(folder, capsys):
    def call(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*words])
        said = capsys.readouterr()
        assert PSK not in said.out + said.err
        return ended.value.code, said.out, said.err

    return call


def store_option(place):
    return ("--store", str(place.file or place.url))


@pytest.fixture
def filled(folder, place):
    """Two revisions: with another network and a renamed tunnel in the second."""
    later = TOPOLOGY.replace("10.2.0.0/24", "10.9.0.0/24").replace("  t: ", "  u: ")
    rows = (GatewayRow("a", changes=1), GatewayRow("b", changes=1))
    change = {
        "kind": "create",
        "gateway": "a",
        "part": "connection",
        "name": "t",
        "disruption": "none",
        "reasons": ["declared in the topology"],
    }
    with Store(place) as store:
        for text, message in ((TOPOLOGY, "first"), (later, "")):
            with store.session() as session:
                session.lock([Claim("a", "a")], "pair")
                session.begin(
                    NewRevision("pair", "/srv/pair.yaml", text, {"changes": [change]}, rows, message)
                )
                session.gateway(GatewayRow("a", GatewayOutcome.APPLIED, 1, 0.31))
                session.gateway(GatewayRow("b", GatewayOutcome.FAILED, 1, 0.2, "b: no room", "Make room."))
                session.end(Outcome.FAILED, "failed: b", [{"name": "t", "verdict": "up", "causes": []}])
    return store_option(place)


def test_history_is_a_table(run, filled):
    code, out, _ = run("history", *filled)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["N", "began", "who", "topology", "digest", "outcome", "gateways", "message"]
    shown = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "TIME  ", lines[2])
    assert re.sub(r"  [0-9a-f]{12}  ", "  DIGEST  ", shown) == (
        f"1  TIME  {here().person.ljust(3)}  pair      DIGEST  failed   1 applied, 1 failed  first"
    )
    assert [line[0] for line in lines[1:]] == ["2", "1"]
    assert "\x1b" not in out
    assert run("history", *filled, "--limit", "1")[1].splitlines() == lines[:2]
    assert run("history", *filled, "--topology", "none")[1].startswith(
        "No apply of a topology named none is recorded in "
    )


def test_history_says_who_is_at_work(run, filled, place):
    with Store(place) as store, store.session() as session:
        session.lock([Claim("a", "a")], "pair")
        out = run("history", *filled)[1]
    assert re.search(rf"^a is locked by {re.escape(str(here()))} for 0:0\d\.$", out, re.MULTILINE)


def test_times_are_local_in_text_and_utc_in_json(run, filled, monkeypatch):
    try:
        with monkeypatch.context() as there:
            there.setenv("TZ", "XXX-5:30")  # east of Greenwich
            time.tzset()
            shown = run("history", *filled)[1]
    finally:
        time.tzset()
    document = json.loads(run("history", *filled, "--json")[1])
    utc = document["revisions"][0]["began"]
    minutes = (int(utc[11:13]) * 60 + int(utc[14:16]) + 330) % 1440
    assert f" {minutes // 60:02}:{minutes % 60:02}:{utc[17:19]} " in shown.splitlines()[1]


def test_a_revision_is_shown_gateway_by_gateway(run, filled):
    code, out, _ = run("history", "show", "1", *filled)
    assert code == 0
    assert out.startswith("revision  1: failed (failed: b)\nwhen      ")
    assert f"\nwho       {here()}, ipsecctl " in out
    assert "\nmessage   first\n" in out
    assert "\na: applied, 1 change in 0.3 s\n  + connection t: declared in the topology\n" in out
    assert "\nb: failed, 1 change in 0.2 s: b: no room\n      Make room.\n" in out
    assert "\ntunnel t up\n" in out
    assert run("history", *filled, "show", "1")[1] == out, "options may stand before it, too"
    assert run("history", "show", "1", "--text", *filled)[1] == TOPOLOGY
    document = json.loads(run("history", "show", "1", "--json", *filled)[1])
    assert (document["schema"], document["text"], document["number"]) == ("ipsecctl/revision/1", TOPOLOGY, 1)
    assert run("history", "show", "1", "--json", "--text", *filled)[0] == 2


def test_an_apply_that_was_interrupted_leaves_nothing_pending(run, place):
    rows = (GatewayRow("a", changes=2), GatewayRow("b", changes=1))
    with Store(place) as store, pytest.raises(SystemExit), store.session() as session:
        session.lock([Claim("a", "a")], "pair")
        session.begin(NewRevision("pair", "/srv/pair.yaml", TOPOLOGY, {"changes": []}, rows))
        shown = run("history", "show", "1", *store_option(place))[1]
        assert "\na: pending, 2 changes planned; it has not said yet what became of it\n" in shown
        session.gateway(GatewayRow("b", GatewayOutcome.APPLIED, 1, 0.2))
        raise SystemExit(130)
    out = run("history", *store_option(place))[1]
    assert "  interrupted  1 applied, 1 interrupted\n" in out
    shown = run("history", "show", "1", *store_option(place))[1]
    assert shown.startswith("revision  1: interrupted\n")
    assert "\na: interrupted, 2 changes planned; how far it came was not heard: " in shown
    assert "pending" not in out + shown
    document = json.loads(run("history", "show", "1", "--json", *store_option(place))[1])
    assert [gateway["outcome"] for gateway in document["gateways"]] == ["interrupted", "applied"]


def test_a_revision_that_is_not_there(run, filled):
    for words in (("history", "show", "3"), ("diff", "1", "3")):
        code, out, err = run(*words, *filled)
        assert (code, out) == (1, "")
        assert "there is no revision 3 in " in err


def test_diff_shows_the_text_and_what_each_gateway_must_be(run, filled):
    code, out, _ = run("diff", "1", "2", *filled)
    assert code == 0
    assert "--- revision 1: /srv/pair.yaml\n+++ revision 2: /srv/pair.yaml\n" in out
    assert "\n-  t: {between: [a, b]}\n+  u: {between: [a, b]}\n" in out
    assert "\na\n" in out
    assert "\n  - connection t: only the earlier one declares it\n" in out
    assert "\n  + connection u: only the later one declares it\n" in out
    assert "  + route 10.9.0.0/24 holding u: only the later one declares it" in out
    assert PSK not in out
    document = json.loads(run("diff", "1", "2", "--json", *filled)[1])
    assert document["schema"] == "ipsecctl/diff/1"
    assert {change["gateway"] for change in document["changes"]} == {"a", "b"}
    assert run("diff", "1", "1", *filled)[1] == "Revisions 1 and 1 have the same topology.\n"


def diff_of(run, place, *texts):
    with Store(place) as store, store.session() as session:
        session.lock([Claim("a", "a")], "pair")
        for text in texts:
            session.begin(NewRevision("pair", "-", text, {}, ()))
    return run("diff", "1", "2", *store_option(place))


def test_diff_names_the_fields_that_differ(run, place):
    code, out, _ = diff_of(run, place, TOPOLOGY, TOPOLOGY.replace("10.2.0.0/24", "10.2.0.0/25"))
    assert code == 0
    assert "\n  ~ connection t: declared otherwise\n" in out
    assert re.search(r"\n      children\.\S+\.remote_ts: 10\.2\.0\.0/24 -> 10\.2\.0\.0/25\n", out)
    assert "local_ts: 10.1" not in out


def test_diff_of_a_comment_concerns_no_gateway(run, place):
    code, out, _ = diff_of(run, place, TOPOLOGY, TOPOLOGY + "# the end")
    assert code == 0
    assert "\n+# the end\n\\ No newline at end of file\n" in out
    assert out.endswith("No gateway has to be other than it was.\n")


def test_diff_with_a_topology_that_is_refused_now(run, place):
    code, out, err = diff_of(run, place, TOPOLOGY, "ipsecctl: 1\nname: pair\n")
    assert (code, out) == (3, "")
    assert "refuses the topology of revision 2: revision 2:" in err
    assert "'ipsecctl history show 2 --text' prints it" in err


def test_an_apply_is_recorded(run, place):
    assert run("apply", "pair.yaml", "--message", "CHG-1", *store_option(place))[0] == 1
    with Store(place) as store:
        found = store.revision(1)
        assert store.locks() == ()
    assert (found.outcome, found.error) == (Outcome.FAILED, "failed: a, b; not up: t")
    assert (found.topology, found.message) == ("pair", "CHG-1")
    assert found.file == str(Path("pair.yaml").absolute())
    assert found.text == TOPOLOGY
    assert found.plan["schema"] == "ipsecctl/plan/1"
    assert [row.outcome for row in found.gateways] == [GatewayOutcome.FAILED] * 2
    assert "does not exist" in found.gateways[0].error
    assert PSK not in json.dumps(found.plan)


def test_labs_are_not_in_the_history_of_what_was_done_to_gateways(run, folder):
    run("apply", "pair.yaml")
    run("apply", "pair.yaml", "--lab", "other")
    assert "No apply is recorded" in run("history")[1]
    assert len(run("history", "--lab", "pair")[1].splitlines()) == 2
    assert "pair (lab other)" in run("history", "--lab", "other")[1]
    assert {file.name for file in (folder / "state").rglob("*.db")} == {"pair.db", "other.db"}
    docker("pass")
    assert run("lab", "down", "other")[0] == 0
    assert {file.name for file in (folder / "state").rglob("*.db*")} == {"pair.db"}


def test_that_a_lab_does_not_use_the_store_of_the_environment_is_said(run, folder, monkeypatch):
    monkeypatch.setenv("IPSECCTL_STORE", str(folder / "team.db"))
    place = folder / "state/ipsecctl/labs/pair.db"
    note = f"note: the history of lab 'pair' is in {place}, not in IPSECCTL_STORE: --store names "
    assert note in run("apply", "pair.yaml")[2]
    assert place.exists() and not (folder / "team.db").exists()
    assert note in run("history", "--lab", "pair")[2]
    assert "note:" not in run("history")[2]
    assert "note:" not in run("apply", "pair.yaml", "--store", "said.db")[2]
    assert (folder / "said.db").exists()
    monkeypatch.delenv("IPSECCTL_STORE")
    assert "note:" not in run("history", "--lab", "pair")[2]


def test_a_store_that_cannot_be_used_stops_an_apply_before_anything(run, folder):
    docker(f"open({str(folder / 'touched')!r}, 'w')")
    (folder / "file").write_text("")
    code, out, err = run("apply", "pair.yaml", "--yes", "--store", "file/history.db", "--json")
    assert code == 1
    assert "nothing was done: the history in " in err
    assert "--store FILE" in err
    assert json.loads(out)["schema"] == "ipsecctl/diagnostics/1"
    assert not (folder / "touched").exists()
    assert run("history", "--store", "pair.yaml")[0] == 3
    assert run("diff", "1", "2", "--store", "pair.yaml")[0] == 3


def test_a_password_has_no_place_on_a_command_line(run, folder, monkeypatch):
    url = "postgresql://alice:s3cret@/h?host=/nonexistent"
    code, out, err = run("history", "--store", url)
    assert code == 1
    assert "can be read by everybody" in err
    monkeypatch.setenv("IPSECCTL_STORE", url)
    pytest.importorskip("psycopg")
    code, out2, err2 = run("history")
    assert code == 3
    assert "postgresql://alice@/h" in err2
    assert "s3cret" not in out + err + out2 + err2


# ---------------------------------------------------------------------------------- two applies at once


class Apply(subprocess.Popen):
    """An apply in a process of its own; on gateways that do not answer it goes on until it is stopped."""

    def __init__(self, place, user, *options, path):
        started = Path(os.environ["STARTED"])
        started.unlink(missing_ok=True)
        super().__init__(
            [sys.executable, "-m", "ipsecctl", "apply", "pair.yaml", *options, *store_option(place)],
            env={**os.environ, "PATH": path, "SUDO_USER": user, "IPSECCTL_PATIENCE": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started = started

    def until_at_work(self):
        while not self.started.exists():
            assert self.poll() is None, self.communicate()
            time.sleep(0.02)
        return self

    def ended(self):
        out, err = self.communicate(timeout=60 * PATIENCE)
        return self.returncode, out, err


@pytest.fixture
def applies(folder, place):
    running = []

    docker(HANGS, "hangs")

    def start(user, *options, hangs=True):
        path = f"{folder / ('hangs' if hangs else 'bin')}:/usr/bin:/bin"
        running.append(Apply(place, user, *options, path=path))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_two_applies_at_once_the_second_is_refused_with_the_owners_name(applies, run, place):
    applies("alice").until_at_work()
    code, _, err = run("apply", "pair.yaml", "--yes", *store_option(place))
    assert code == 1
    assert re.search(r"error: alice@\S+ \(pid \d+\) has been applying pair to a, b for 0:\d\d\n", err)
    assert "    Nothing was done." in err
    with Store(place) as store:
        assert store.revisions() == (), "neither came to do anything"


@pytest.mark.slow
def test_two_applies_at_once_the_second_can_wait(applies, run, place):
    first = applies("alice").until_at_work()
    second = applies("bob", "--lock-wait", "60", hangs=False)
    assert second.stderr.readline().startswith("Waiting: alice@")
    first.send_signal(signal.SIGTERM)
    assert first.ended()[0] == 128 + signal.SIGTERM
    second.ended()
    with Store(place) as store:
        assert [(r.owner.user, r.outcome) for r in store.revisions()] == [("bob", Outcome.FAILED)]


@pytest.mark.slow
def test_a_broken_lock_stops_the_first(applies, run, place):
    first = applies("alice").until_at_work()
    code, _, err = run("apply", "pair.yaml", "--yes", "--break-lock", *store_option(place))
    assert code == 1
    assert re.search(r"^a: broke the lock of alice@\S+, pid \d+, held since ", err, re.MULTILINE)
    code, out, err = first.ended()
    assert code == 1
    assert f"error: {here().person} has broken the lock of this apply\n" in err, out


@pytest.mark.slow
def test_a_killed_first_is_named_and_holds_up_nobody(applies, run, place):
    first = applies("alice").until_at_work()
    first.kill()
    first.wait()
    _, _, err = run("apply", "pair.yaml", *store_option(place))
    assert re.search(r"^a: its lock was left by alice@\S+, pid \d+, last heard of at ", err, re.MULTILINE)
    with Store(place) as store:
        assert store.revision(1).outcome is Outcome.FAILED
        assert store.locks() == ()


# ------------------------------------------------------------------------------------ whose lock it is


@pytest.mark.parametrize(
    ("control", "lab", "addresses"),
    [
        ("lab", None, ["lab://pair/a", "lab://pair/b"]),
        ("lab:other", None, ["lab://other/a", "lab://other/b"]),
        ("ssh://root@[2001:db8::1]:2222", "x", ["lab://x/a", "lab://x/b"]),
        ("ssh://root@GW.example", None, ["ssh://gw.example:22"] * 2),
        ("ssh://gw.example:2222", None, ["ssh://gw.example:2222"] * 2),
        ("ssh://[2001:db8::1]:2222", None, ["ssh://[2001:db8::1]:2222"] * 2),
    ],
)
def test_a_gateway_is_known_by_the_way_to_it(control, lab, addresses):
    topology = load_text(TOPOLOGY.replace("control: lab", f'control: "{control}"'), "f").topology
    assert [claim.address for claim in journal.claims(topology, lab)] == addresses
    assert [claim.name for claim in journal.claims(topology, lab)] == ["a", "b"]


def test_without_a_control_it_is_known_by_its_address():
    text = TOPOLOGY.replace("control: lab, ", "").replace("192.0.2.1", "2001:db8::1")
    topology = load_text(text.replace("192.0.2.2", "2001:db8::2"), "f").topology
    assert journal.claims(topology, None)[0] == Claim("ssh://[2001:db8::1]:22", "a")
    assert journal.lab_of(topology, None) is None
    assert journal.lab_of(topology, "x") == "x"

"""The fleet's options: what cannot be meant, what is completed, the table, the bar."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipsecctl.cli import _fleet, main
from ipsecctl.cli import apply as apply_command
from ipsecctl.cli._fleet import Fleet, batch_lines, fleet_of, result_rows, wants_table
from ipsecctl.deploy.outcome import Applied, GatewayResult
from ipsecctl.errors import ApplyFailed
from ipsecctl.plan import Batch, Share
from ipsecctl.store import GatewayOutcome, GatewayRow, NewRevision, Outcome, Store, location

TOPOLOGY = """
ipsecctl: 1
name: star
defaults: {control: "ssh://root@127.0.0.1:1", credential: {psk: "env:IPSECCTL_TEST_PSK"}}
sites:
  hub: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  north: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
  south: {networks: {lan: 10.3.0.0/24}, gateway: 192.0.2.3}
  other: {managed: false, networks: {lan: 10.4.0.0/24}, gateway: 192.0.2.4}
tunnels: {t: {hub: hub, spokes: [north, south, other]}}
"""


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPSECCTL_TEST_PSK", "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi")
    monkeypatch.setenv("IPSECCTL_STORE", str(tmp_path / "store.sqlite"))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "star.yaml"
    file.write_text(TOPOLOGY)
    return file


@pytest.fixture
def run(star, capsys):
    def call(line: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(line.split())
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("command", ["apply --yes", "plan"])
@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (
            "--limit sotuh",
            1,
            "--limit 'sotuh' fits no gateway and no site of star.yaml\n    Did you mean 'south'?",
        ),
        ("--limit other", 1, "other is somebody else's (managed: false)"),
        ("--canary hbu", 1, "--canary: there is no site 'hbu' in star.yaml\n    Did you mean 'hub'?"),
        ("--canary north --limit s*", 1, "--canary: north is not in --limit"),
        ("--batch 0%", 2, "--batch: '0%' is no number of gateways"),
        ("--batch some", 2, "--batch: 'some' is no number of gateways"),
        ("--batch 101%", 2, "from 1% to 100%"),
    ],
)
def test_what_cannot_be_meant_is_told_before_any_gateway_is_asked(run, command, options, status, said):
    code, out, err = run(f"{command} star.yaml {options}")
    assert (code, out) == (status, "")
    assert said in err


def test_the_same_as_json(run):
    code, out, _ = run("apply star.yaml --yes --limit sotuh --json")
    assert code == 1
    assert json.loads(out)["schema"] == "ipsecctl/diagnostics/1"


def test_max_fail_is_a_number_of_gateways(run):
    code, _, err = run("apply star.yaml --yes --max-fail -1%")
    assert code == 2
    assert "--max-fail: '-1%' is no number of gateways" in err
    code, out, err = run("apply star.yaml --yes --max-fail 2")
    assert (code, out) == (1, "")
    assert "nothing was done: 3 gateways failed before the first change, and --max-fail 2 lets 2 fail" in err


def test_only_those_in_the_limit_fail(run):
    code, out, _ = run("apply star.yaml --yes --limit north --wait 0 --json")
    document = json.loads(out)
    assert code == 1
    assert [gateway["name"] for gateway in document["gateways"]] == ["north"]
    assert [tunnel["name"] for tunnel in document["tunnels"]] == ["t-north"]


def test_those_that_failed_are_tried_again(run, star):
    code, _, err = run("apply star.yaml --yes --retry-failed")
    assert code == 1
    assert "the history has no apply of star" in err
    where = location(str(star.parent / "store.sqlite"), {}, root=False)
    rows = tuple(GatewayRow(name) for name in ("hub", "north", "south"))
    with Store(where) as store, store.session() as session:
        session.lock((), "star")
        session.begin(NewRevision("star", str(star), TOPOLOGY, {}, rows))
        session.gateway(GatewayRow("hub", GatewayOutcome.APPLIED, 1, 0.1))
        session.gateway(GatewayRow("north", GatewayOutcome.FAILED, 1, 0.1, "disk full"))
        session.gateway(GatewayRow("south", GatewayOutcome.UNCHANGED, 0, error="not begun"))
        session.end(Outcome.FAILED)
    code, out, err = run("apply star.yaml --yes --retry-failed --wait 0 --json")
    assert code == 1
    assert "Failed in revision 1: north." in err
    assert [gateway["name"] for gateway in json.loads(out)["gateways"]] == ["north"]


def test_a_revision_in_which_none_failed(run, star):
    where = location(str(star.parent / "store.sqlite"), {}, root=False)
    with Store(where) as store, store.session() as session:
        session.begin(
            NewRevision("star", str(star), TOPOLOGY, {}, (GatewayRow("hub", GatewayOutcome.APPLIED),))
        )
        session.end(Outcome.APPLIED)
    code, _, err = run("apply star.yaml --yes --retry-failed")
    assert code == 1
    assert "no gateway failed in revision 1, the last of star" in err


@pytest.mark.parametrize(
    ("complete", "incomplete", "names"),
    [
        (_fleet._gateways, "", ["hub", "north", "south"]),
        (_fleet._gateways, "s", ["south"]),
        (_fleet._sites, "n", ["north"]),
        (_fleet._sites, "o", []),
    ],
)
def test_names_are_completed(star, complete, incomplete, names):
    assert complete(SimpleNamespace(params={"file": star}), incomplete) == names


@pytest.mark.parametrize("file", [None, "nowhere.yaml", "."])
def test_nothing_is_completed_without_a_topology(star, file):
    assert _fleet._gateways(SimpleNamespace(params={"file": file}), "") == []


def test_batches_are_shown_in_their_order():
    shown = (Batch(1, ("hub", "north"), canary=True, along=("hub",)), Batch(2, ("south",)))
    assert list(batch_lines(shown)) == [
        "The canary: north; as the other end of their tunnels: hub.",
        "Batch 2: south.",
    ]


def stopped():
    return Applied(
        (
            GatewayResult(
                "hub", 5, 4.81, ApplyFailed("hub: t-south still has to be completed"), batch=1, partly=True
            ),
            GatewayResult("north", 2, 0.72, batch=1),
            GatewayResult("south", 2, 0.31, ApplyFailed("south: disk full"), batch=2, rolled_back=True),
            GatewayResult("west", 0, 0.0, batch=3, begun=False),
        ),
        (),
        7.5,
        stopped="batch 2 of 3 failed: south: disk full",
    )


def test_the_table_has_all_gateways_by_batch():
    assert list(result_rows(stopped().gateways)) == [
        "GATEWAY  BATCH  OUTCOME      SECONDS  CAUSE",
        "hub          1  partly           4.8  t-south still has to be completed",
        "north        1  applied          0.7",
        "south        2  rolled back      0.3  disk full",
        "west         3  not begun          -",
    ]


def test_without_batches_it_has_no_column_for_them():
    assert list(result_rows(stopped().gateways, batches=False))[:2] == [
        "GATEWAY  OUTCOME      SECONDS  CAUSE",
        "hub      partly           4.8  t-south still has to be completed",
    ]


def test_the_summary_of_one_that_was_stopped():
    assert apply_command._summary(stopped()) == (
        "Stopped: batch 2 of 3 failed: south: disk full. Done: north. Done in part: hub. Gone back: south. "
        "Not begun: west."
    )
    document = apply_command._document(stopped())
    assert [(g["batch"], g["outcome"]) for g in document["gateways"]] == [
        (1, "partly"),
        (1, "applied"),
        (2, "rolled back"),
        (3, "not begun"),
    ]
    assert document["stopped"] == "batch 2 of 3 failed: south: disk full"


def test_half_a_tunnel_is_named():
    done = Applied((GatewayResult("north", 2, 0.1),), (), 1.5, half={"t-north": ("hub",)})
    assert apply_command._summary(done) == (
        "Done after 1.5 s. Changed at one end only, as the other is not in --limit: t-north (hub)."
    )
    assert done.succeeded


@pytest.mark.parametrize(
    ("count", "fleet", "table"),
    [
        (2, Fleet(), False),
        (3, Fleet(), True),
        (1, fleet_of(limit=["a"]), True),
        (2, fleet_of(batch="1"), True),
    ],
)
def test_a_table_where_there_is_more_than_fits_a_look(count, fleet, table):
    done = Applied(tuple(GatewayResult(str(n), 1, 0.1) for n in range(count)), (), 1.0)
    assert wants_table(done, fleet) is table
    nothing = Applied(tuple(GatewayResult(str(n), 0, 0.1) for n in range(count)), (), 1.0)
    assert not wants_table(nothing, fleet)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_is_on_a_terminal_and_makes_room_for_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = apply_command._Screen(2, ["a", "b"], quiet=False)
    with screen:
        screen.gateway(GatewayResult("a", 1, 0.1))
    said = sys.stderr.getvalue()
    assert "gateways" in said
    assert "1/2" in said
    assert capsys.readouterr().out == "done    a: 1 change in 0.1 s\n"


@pytest.mark.parametrize("variable", ["NO_COLOR", None])
def test_elsewhere_there_is_none(monkeypatch, capsys, variable):
    if variable:
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv(variable, "1")
    screen = apply_command._Screen(2, ["a"], quiet=False)
    with screen:
        screen.gateway(GatewayResult("a", 1, 0.1))
    assert (sys.stderr.getvalue() if variable else capsys.readouterr().err) == ""


def test_who_interrupts_a_batch_is_told_that_it_goes_back():
    screen = apply_command._Screen(1, ["a", "b"], quiet=False, gated=True)
    assert screen.interrupted(Path("x.yaml")) == (
        "Interrupted while these were being changed: a, b. "
        "Gateways of the batch at work go back by themselves within 600 s."
    )


def test_shares_are_read():
    fleet = fleet_of(None, ["a"], "20%", "0")
    assert (fleet.size, fleet.max_fail) == (Share(20, of_all=True), Share(0))
    assert fleet.said
    assert not fleet_of().said


@pytest.mark.parametrize(
    ("message", "limit", "noted"),
    [
        ("CHG-1", None, "CHG-1"),
        ("", frozenset("ba"), "only a, b"),
        ("CHG-1", frozenset("abcdef"), "CHG-1 (only a, b, c, d, e, ...)"),
    ],
)
def test_the_history_says_where_not_all_were_meant(message, limit, noted):
    assert Fleet().noted(message, limit) == noted

"""The table of ``status`` at every width: names and verdicts are whole, what has no room is named."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ipsecctl.cli import _view
from ipsecctl.cli import status as command
from ipsecctl.cli._sas import sa_lines
from ipsecctl.deploy.survey import Survey
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.health import EndView, TunnelHealth, Verdict, parse_list_sas
from ipsecctl.health.tunnel import EndState

TITLES = ("tunnel", "verdict", "ends", "ESP", "left out", "left in", "age", "rekey in", "NAT-T")
LONG = "hospital-of-the-holy-spirit-at-the-river--radiology-practice-in-the-old-town"


def sas(name):
    child = {
        "name": name, "uniqueid": "1", "state": "INSTALLED", "spi-in": "11111111", "spi-out": "22222222",
        "encr-alg": "AES_GCM_16", "encr-keysize": "256", "bytes-in": "123456789", "packets-in": "123456",
        "bytes-out": "987654321", "packets-out": "987654", "install-time": "50000", "rekey-time": "3000",
        "local-ts": ["10.1.0.0/24"], "remote-ts": ["10.2.0.0/24"],
    }  # fmt: skip
    ike = {"uniqueid": "1", "state": "ESTABLISHED", "child-sas": {f"{name}-1": child}}
    return parse_list_sas([{name: ike}])


def tunnel(name, verdict=Verdict.UP, state=EndState.SEEN, causes=()):
    ends = (
        EndView("clinic-a", "clinic-a", EndState.SEEN, sas(name), loaded=True),
        EndView("dc", "dc", state, sas(name) if state is EndState.SEEN else (), loaded=True),
    )
    return TunnelHealth(name, verdict, causes, ends, (name,))


@pytest.fixture
def shown(monkeypatch, capsys):
    """Return a function that shows tunnels ``width`` columns wide (``None``: to no terminal)."""

    def show(width, *tunnels):
        monkeypatch.setattr(command, "terminal_width", lambda: width)
        command._print_survey(Survey(tunnels, {}, datetime(2026, 1, 1, tzinfo=UTC)))
        return capsys.readouterr().out.splitlines()

    return show


def two():
    return (
        tunnel("clinics-clinic-a", Verdict.DOWN, EndState.CHARON_DOWN, ("dc: charon is not running",)),
        tunnel("clinics-clinic-b"),
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_nothing_is_cut_and_no_line_is_too_long(shown, width):
    lines = shown(width, *two())
    table = lines[
        : next(n for n, line in enumerate(lines) if line.startswith(("no room", "clinics-clinic-a:")))
    ]
    assert max(map(len, table)) <= width
    assert "…" not in "".join(lines)
    assert [line.split()[:2] for line in table if line.startswith("clinics-")] == [
        ["clinics-clinic-a", "down"],
        ["clinics-clinic-b", "up"],
    ]
    assert "clinics-clinic-a: dc: charon is not running" in lines


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200, None])
def test_every_column_is_shown_or_named_as_left_out(shown, width):
    lines = shown(width, *two())
    head = lines[1]
    rest = " ".join(line.strip() for line in lines)
    said = re.search(r"no room for: (.*?) \(a wider", rest)
    left_out = said[1].split(", ") if said else []
    assert left_out == [title for title in TITLES if title not in head]
    assert (left_out == []) is (width in (None, 200))


def test_the_ends_go_before_all_that_can_be_left_out(shown):
    assert "ends" in shown(44, *two())[1]
    assert "left out" not in shown(60, *two())[1]


@pytest.mark.parametrize("width", [60, 80])
def test_a_name_wider_than_the_terminal_goes_on_in_the_next_line(shown, width):
    lines = shown(width, tunnel(LONG, Verdict.DEGRADED), tunnel("t"))
    begin = next(n for n, line in enumerate(lines) if line.startswith("hospital"))
    name = ""
    for line in lines[begin:]:
        if line.startswith("t "):
            break
        name += line.replace("degraded", "").strip()
    assert name == LONG
    assert lines[begin].rstrip().endswith("degraded")
    assert max(map(len, lines[:begin])) <= width


def test_in_a_file_there_is_room_for_everything(shown):
    lines = shown(None, tunnel(LONG, Verdict.DEGRADED))
    assert all(title in lines[1] for title in TITLES)
    assert lines[3].startswith(f"{LONG}  degraded  clinic-a - dc  AES_GCM_16-256  941.9 MiB / 987654 p")


@pytest.mark.parametrize(
    ("no_color", "term", "plain"), [("", "xterm", False), ("1", "xterm", True), ("", "dumb", True)]
)
def test_who_wants_no_colour_gets_no_bold_either(monkeypatch, capsys, shown, no_color, term, plain):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(_view.sys.stdout, "isatty", lambda: True, raising=False)
    assert ("\x1b" in "".join(shown(80, *two()))) is not plain


# ------------------------------------------------------------------------------------------------- --verbose


def mirrored(name, spi_in="22222222"):
    """Return a tunnel whose ends have each other's SPIs, but for what the second end has as ``in``."""
    (near,) = sas(name)
    (child,) = near.children
    far = replace(
        child, spi_in=spi_in, spi_out="11111111", local_ts=child.remote_ts, remote_ts=child.local_ts
    )
    ends = (
        EndView("clinic-a", "clinic-a", EndState.SEEN, (near,), loaded=True),
        EndView("dc", "dc", EndState.SEEN, (replace(near, children=(far,)),), loaded=True),
    )
    return TunnelHealth(name, Verdict.UP, (), ends, (name,))


def test_every_sa_is_told_in_full():
    assert list(sa_lines(mirrored("t")))[:13] == [
        "t: up",
        "  clinic-a:",
        "    IKE_SA #1: ESTABLISHED, responder, age -, rekey in -",
        "      algorithms  -",
        "      local       :0",
        "      remote      :0",
        "      SPIs        initiator -, responder -",
        "      NAT         none found",
        "    CHILD_SA t #1: INSTALLED, age 13:53:20, rekey in 50:00",
        "      algorithms  AES_GCM_16-256, ESP",
        "      selectors   local 10.1.0.0/24",
        "                  remote 10.2.0.0/24",
        "      out         941.9 MiB / 987654 p, SPI 22222222 (is in at dc)",
    ]


def test_an_spi_that_the_other_end_does_not_have_is_said():
    lines = list(sa_lines(mirrored("t", spi_in="33333333")))
    assert any(line.endswith("SPI 22222222 (NOT in at dc)") for line in lines)
    assert any(line.endswith("SPI 33333333 (NOT out at clinic-a)") for line in lines)
    assert any(line.endswith("SPI 11111111 (is out at dc)") for line in lines)


def test_of_an_end_that_nobody_sees_nothing_is_claimed():
    lines = list(sa_lines(tunnel("t", Verdict.DOWN, EndState.CHARON_DOWN)))
    assert "  dc: charon is not running" in lines
    assert any(line.endswith("SPI 22222222") for line in lines)


def test_what_mends_gateways_that_do_not_answer_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(command, "terminal_width", lambda: None)
    views = {
        "dc": GatewayUnreachable("dc", "its container does not exist", "Bring the lab up: ipsecctl lab up l"),
        "a": GatewayUnreachable("a", "its container does not exist", "Bring the lab up: ipsecctl lab up l"),
        "b": GatewayUnreachable("b", "it is not running", "Start it: ipsecctl lab reboot l b"),
        "c": GatewayUnreachable("c", "its turn did not come in time"),
    }
    command._print_survey(Survey((), views, datetime(2026, 1, 1, tzinfo=UTC)))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "a, dc: Bring the lab up: ipsecctl lab up l",
        "b: Start it: ipsecctl lab reboot l b",
    ]

"""The report of a probe on the screen: a table with room for it, lines without, nothing cut."""

from __future__ import annotations

import pytest

from ipsecctl.cli import _checks
from ipsecctl.probe import Check, NotApplicable, Outcome, TunnelReport


def check(outcome=Outcome.HOLDS, **more):
    values = {
        "check": "peers-and-spis", "claim": "ESP between the right peers", "flow": "all",
        "direction": "clinic-a -> dc", "family": 4, "outcome": outcome,
        "expected": "203.0.113.20 -> 198.51.100.10", "measured": "203.0.113.20 -> 198.51.100.10",
        "evidence": "SPI 5f075e8c (both ends); packets +48 out, +48 in; 24 of ours arrived",
        "source": "clinic-a-lan", "destination": "dc-servers",
    }  # fmt: skip
    return Check(**(values | more))


GUARD = check(
    check="guard", flow=None, family=None, direction="at clinic-a", expected="loaded, forwards",
    measured="loaded, forwards", evidence="table inet ipsecctl is loaded", source="", destination="",
)  # fmt: skip
REPORT = TunnelReport(
    "clinics-clinic-a",
    (check(), check(), check(Outcome.FAILS, measured="none", evidence="nothing was seen"), GUARD),
    (NotApplicable("mss-syn", "all", "clinic-a -> dc", 4, "the flow carries no TCP"),),
)


@pytest.fixture
def shown(monkeypatch, capsys):
    def show(width):
        monkeypatch.setattr(_checks, "terminal_width", lambda: width)
        _checks.print_reports([REPORT], 1.5)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [40, 60, 80, 109, 110, 120, 200, None])
def test_at_every_width_all_is_there(shown, width):
    text = shown(width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= (width or 140)
    assert "…" not in text
    words = " ".join(text.split())
    for word in ("peers-and-spis", "guard", "at clinic-a", "holds", "fails", "203.0.113.20", "5f075e8c"):
        assert word in words
    assert "4 checks in 1.5 s: 3 hold, 1 FAIL." in words


def test_what_holds_alike_is_one_line_and_what_fails_names_its_hosts(shown):
    lines = [line.strip() for line in shown(100).splitlines()]
    assert lines[:2] == ["clinics-clinic-a: fails", "peers-and-spis"]
    assert lines[2].startswith(
        "holds  clinic-a -> dc IPv4: 203.0.113.20 -> 198.51.100.10 expected; SPI 5f075e8c"
    )
    assert "(and 1 more alike)" in " ".join(lines)
    assert any(line.startswith("fails  clinic-a-lan -> dc-servers IPv4:") for line in lines)
    assert "holds  at clinic-a: loaded, forwards expected; table inet ipsecctl is loaded" in lines
    assert "mss-syn does not apply to all, clinic-a -> dc IPv4: the flow carries no TCP" in lines

"""Every wrong topology gives exactly the findings written beside it.

Each folder has ``topology.yaml``, ``expected.txt`` (what ``ipsecctl validate`` prints, and its exit status)
and, where secrets matter, ``setup.yaml``: files with their modes, and certificates to make.
``IPSECCTL_UPDATE=1`` writes ``expected.txt`` anew; read the difference before you keep it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ipsecctl.cli import app
from ipsecctl.errors import Severity

HERE = Path(__file__).parent
IPSECCTL = typer.main.get_command(app)  # made once: that takes as long as to check a small topology
CASES = sorted(path.parent for path in HERE.glob("*/topology.yaml"))


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_up: Callable[[Path, Path], None],
) -> Path:
    folder: Path = request.param
    (tmp_path / "topology.yaml").write_bytes((folder / "topology.yaml").read_bytes())
    if (folder / "setup.yaml").exists():
        set_up(folder / "setup.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def validate(case: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str]]:
    """Return what calls ``ipsecctl validate``: its exit status, and what it printed."""
    secrets = () if (case / "setup.yaml").exists() else ("--no-secrets",)

    def call(*options: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            IPSECCTL.main(["validate", "topology.yaml", *secrets, *options], prog_name="ipsecctl")
        return ended.value.code, capsys.readouterr().out

    return call


@pytest.mark.parametrize("case", CASES, ids=lambda folder: folder.name, indirect=True)
def test_findings_are_exactly_those_expected(case: Path, validate: Callable[..., tuple[object, str]]) -> None:
    status, printed = validate()
    seen = f"{printed}exit status {status}\n"
    if os.environ.get("IPSECCTL_UPDATE"):
        (case / "expected.txt").write_text(seen, encoding="utf-8")
    expected = (case / "expected.txt").read_text(encoding="utf-8")
    assert seen == expected
    assert_json_says_the_same(*validate("--json"), expected)


def assert_json_says_the_same(status: object, printed: str, expected: str) -> None:
    document = json.loads(printed)
    assert document["schema"] == "ipsecctl/diagnostics/1"
    lines = []
    for found in document["diagnostics"]:
        assert set(found) == {"severity", "code", "summary", "hint", "file", "line", "column"}
        assert found["summary"] and found["hint"]
        place = f"{found['file']}:{found['line']}:{found['column']}"
        lines += [f"{place}: {found['severity']} {found['code']}: {found['summary']}", f"    {found['hint']}"]
    assert lines == [line for line in expected.splitlines() if not line.startswith(("ok: ", "exit status "))]
    severities = [Severity[found["severity"].upper()] for found in document["diagnostics"]]
    assert severities == sorted(severities)
    assert status == (1 if Severity.ERROR in severities else 0)


def test_there_are_a_hundred_and_more() -> None:
    assert len(CASES) >= 100


def test_every_code_has_a_case() -> None:
    shown = {
        code
        for case in CASES
        for code in re.findall(r"\bIP\d{3}\b", (case / "expected.txt").read_text(encoding="utf-8"))
    }
    source = Path(__file__).parents[2] / "ipsecctl" / "topology"
    known = {
        code
        for path in source.glob("*.py")
        for code in re.findall(r'"(IP\d{3})"', path.read_text(encoding="utf-8"))
    }
    assert known
    assert known <= shown

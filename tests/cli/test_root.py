"""The root of the command line: what is there, what is meant, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ipsecctl.cli import COMMANDS, app, main


def test_no_arguments_show_the_commands_grouped_as_the_work_goes():
    shown = CliRunner().invoke(app, []).output
    stages = [line[:-1] for line in shown.splitlines() if line.endswith(":") and line != "Options:"]
    assert stages == ["Design", "Deploy", "Operate", "Prove", "Lab"]
    assert all(f"  {command.name} " in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_there_and_explains_itself(command):
    loaded = get_command(app).get_command(None, command.name)
    result = CliRunner().invoke(app, [command.name, "--help"])
    assert result.exit_code == 0
    assert loaded.help
    assert "Usage: " in result.output


def test_a_wrong_command_is_told_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["valdate"])
    assert ended.value.code == 2
    assert "Did you mean 'validate'?" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_line_and_a_hint(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["validate", "/nonexistent/topology.yaml"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "/nonexistent/topology.yaml" in said
    assert "Traceback" not in said


def test_help_imports_nothing_heavy():
    heavy = {
        "yaml",
        "pydantic",
        "jinja2",
        "netaddr",
        "scapy",
        "rich",
        "cryptography",
        "asyncio",
        "asyncssh",
        "vici",
        "sqlite3",
        "psycopg",
    }
    lines = (
        "import sys",
        "from ipsecctl.cli import main",
        "try: main(['--help'])",
        "except SystemExit: pass",
    )
    script = "\n".join((*lines, "print(*sys.modules)"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.splitlines()[-1].split())


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m ipsecctl crypto algorithms | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["typer", "yaml"])
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str):
    """A module that interrupts who imports it, from code whose exceptions Python ignores."""
    lines = (
        "import os, signal, time, weakref",
        "class Thing: pass",
        "thing = Thing()",
        "there = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01)))",
        "del thing",
        "raise KeyboardInterrupt",  # where the first one was ignored, one presses again
    )
    (tmp_path / f"{module}.py").write_text("\n".join(lines))
    (tmp_path / "t.yaml").write_text("ipsecctl: 1")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "ipsecctl", "validate", "t.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "Interrupted."
    if module == "typer":
        assert done.stderr == "Interrupted.\n"

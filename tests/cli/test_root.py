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


SIGNAL = "(os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01))"
INTERRUPTIONS = {
    "callback": (
        "class Thing: pass",
        "thing = Thing()",
        f"ref = weakref.ref(thing, lambda _: {SIGNAL})",
        "del thing",
    ),
    "destructor": ("class Thing:", f"    def __del__(self): {SIGNAL}", "Thing()"),
    "name": ("class Thing:", f"    def __set_name__(self, *_): {SIGNAL}", "class Other: thing = Thing()"),
    "plainly": (SIGNAL,),
}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["typer", "yaml"])
@pytest.mark.parametrize("code", INTERRUPTIONS)
def test_ctrl_c_while_modules_are_imported(tmp_path: Path, module: str, code: str):
    """A module that interrupts who imports it, from code whose exceptions Python ignores or wraps."""
    lines = ("import os, signal, time, weakref", *INTERRUPTIONS[code], "time.sleep(0.2)")
    (tmp_path / f"{module}.py").write_text("\n".join(lines))
    (tmp_path / "t.yaml").write_text("ipsecctl: 1")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "ipsecctl", "validate", "t.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


@pytest.mark.parametrize("how", ["return 7", "raise ValueError", "raise KeyboardInterrupt"])
def test_an_interruption_that_waits_when_the_work_is_done_is_heard_all_the_same(how: str):
    """And the alarm by which it waits does not end the program in its stead."""
    program = f"""\
import signal, sys, time, weakref
from ipsecctl.ctrl_c import interruptible
class Thing:
    def __del__(self): signal.raise_signal(signal.SIGINT)
def work():
    Thing()
    {how}
try:
    interruptible(work)
except KeyboardInterrupt:
    time.sleep(0.05)
    sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_name_that_is_fetched_when_it_is_asked_for(tmp_path: Path):
    """Amid ``from ... import`` an interruption waits: out of one that fails it would come as a TypeError."""
    (tmp_path / "lazy.py").write_text(
        "import signal\n"
        "def __getattr__(name):\n"
        "    if name != 'thing': raise AttributeError(name)\n"
        "    signal.raise_signal(2)\n"
        "    return print('whole')"
    )
    program = """\
import time
from ipsecctl.ctrl_c import interruptible
def work():
    from lazy import thing
    time.sleep(1)
try:
    interruptible(work)
except KeyboardInterrupt:
    print("heard")
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("whole\nheard\n", "")


def test_a_coroutine_that_no_loop_has_yet_is_passed_over():
    program = """\
import signal
from ipsecctl.ctrl_c import interruptible
async def idle(): pass
def work(): return (idle(), signal.raise_signal(signal.SIGINT))
try:
    interruptible(work)
except KeyboardInterrupt:
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_when_all_is_done_ctrl_c_changes_nothing(tmp_path: Path):
    """A module whose last trace goes when Python takes itself down, and that interrupts then."""
    lines = (
        "import sys, ipsecctl.__main__ as program",
        "class Last:",
        "    def __del__(self, raise_signal=__import__('signal').raise_signal): raise_signal(2)",
        "sys.last_of_all = Last()",
        "sys.argv = ['ipsecctl', '--version']",
        "program.main()",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ipsecctl ")


def test_a_shells_background_stays_deaf(tmp_path: Path):
    (tmp_path / "yaml.py").write_text(f"import os, signal, time\n{SIGNAL}\nraise SystemExit(7)")
    (tmp_path / "t.yaml").write_text("ipsecctl: 1")
    script = (
        f"trap '' INT; PYTHONPATH={tmp_path}:$PYTHONPATH exec {sys.executable} -m ipsecctl validate t.yaml"
    )
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")

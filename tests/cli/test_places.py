"""Every command and every place that cannot be what it is said to be: a clear error, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.cli import _files, main

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: local, credential: {psk: "env:IPSECCTL_TEST_PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {managed: false, networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels: {t: {between: [a, b]}}
"""
PLACES = {
    "nothing": "",
    "here": ".",
    "root": "/",
    "above": "..",
    "directory": "folder",
    "in a file": "plain/x",
    "in no directory": "none/x",
    "dangling": "dangling",
    "loop": "loop",
    "too long": "x" * 300,
    "too deep": "x/" * 3000,
    "full": "/dev/full",
    "not UTF-8": os.fsdecode(b"\xff\xfe.yaml"),
    "line end": "a\nb",
}
READING = (
    ("validate", "--json"),
    ("status", "--json"),
    ("plan", "--json"),
    ("apply", "--yes"),
    ("render", "--out", "out"),
    ("facts", "--all"),
    ("facts", "a"),
    ("probe", "tunnel", "--all"),
    ("secret", "generate"),
    ("lab", "graph"),
    ("lab", "up"),
    ("lab", "status"),
)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, str, str]]:
    """Return what runs a command in a directory with a topology and places of every kind."""
    monkeypatch.setenv("IPSECCTL_TEST_PSK", "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    place = tmp_path / "place"
    place.mkdir()
    (place / "pair.yaml").write_text(TOPOLOGY)
    (place / "plain").write_text("not a topology")
    (place / "folder").mkdir()
    (place / "folder" / "mine").write_text("mine")
    (place / "dangling").symlink_to("nowhere")
    (place / "loop").symlink_to("loop")
    monkeypatch.chdir(place)

    def call(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        sys.stdout.flush()
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_is_no_topology(run, words: tuple[str, ...], place: str) -> None:
    status, out, err = run(*words, PLACES[place])
    assert status in (1, 2, 3)
    assert err.strip() or out.strip()
    if words[-1] == "--json" and status != 2:
        assert json.loads(out)["schema"].startswith("ipsecctl/")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "words",
    [
        ("init",),
        ("init", "--force"),
        ("init", "--example", "clinic-dc", "--force"),
        ("render", "pair.yaml", "--out"),
        ("probe", "tunnel", "pair.yaml", "--all", "--lab", "clinic-dc", "--report"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_written(run, tmp_path: Path, words: tuple[str, ...], place: str) -> None:
    status, _, err = run(*words, PLACES[place])
    assert status in (0, 1, 2, 3)
    assert (status == 0) or err.strip()
    assert Path("/dev/full").is_char_device(), "what is no plain file is not replaced by one"
    assert (tmp_path / "place" / "folder" / "mine").read_text() == "mine"
    assert not list(tmp_path.rglob(".ipsecctl-[0-9]*")), "nothing half written stays"


@pytest.mark.parametrize("place", [".", "", "/", "folder"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_directory_is_no_file_to_write(run, place: str, force: tuple[str, ...]) -> None:
    status, _, err = run("init", *force, place)
    assert status == 1
    assert f"{place or '.'} is a directory" in err
    assert "name the file to write" in err


def test_what_a_link_leads_to_is_replaced_and_not_the_link(run) -> None:
    Path("link").symlink_to("plain")
    assert run("init", "--force", "link")[0] == 0
    assert Path("link").is_symlink()
    assert Path("plain").read_text().startswith("#")


@pytest.mark.parametrize(
    ("out", "said"),
    [("/", "/ is the root directory"), (".", "is the directory you are in"), ("..", "or one around it")],
)
def test_render_replaces_nothing_that_one_is_in(run, out: str, said: str) -> None:
    status, _, err = run("render", "pair.yaml", "--out", out)
    assert status == 1
    assert said in err
    assert "--out out" in err


# -------------------------------------------------------------------------------- what is read without an end


@pytest.mark.parametrize("command", ["validate", "status", "plan"])
def test_a_file_without_an_end(run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(_files, "MAX_BYTES", 1 << 20)
    status, _, err = run(command, "/dev/zero")
    assert status == (3 if command == "status" else 1)
    assert "/dev/zero has more than 1 MiB" in err


def test_a_pipe_that_nobody_writes_to(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_WRITER_S", 0.01)
    os.mkfifo("pipe")
    status, _, err = run("validate", "pipe")
    assert status == 1
    assert "pipe is a pipe that nobody writes to" in err


def test_a_pipe_with_a_writer_is_read_to_its_end(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_WRITER_S", 0.01)
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # or the writer would wait for us
    with Path("pipe").open("w") as pipe:
        os.close(reading)
        later = threading.Timer(0.1, lambda: (pipe.write(TOPOLOGY), pipe.close()))
        later.start()
        status, out, _ = run("validate", "pipe")
        later.join()
    assert (status, out) == (0, "ok: 2 sites, 1 tunnel\n")


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in which ``$ipsecctl`` is the program."""
    ours = {"ipsecctl": f"{sys.executable} -m ipsecctl", "P": "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi"}
    environment = {**os.environ, **ours}
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_what_a_shell_makes_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY.replace("IPSECCTL_TEST_PSK", "P"))
    done = shell("$ipsecctl validate <(cat t.yaml) && $ipsecctl validate - <t.yaml", tmp_path)
    assert (done.returncode, done.stdout) == (0, "ok: 2 sites, 1 tunnel\n" * 2)
    done = shell("$ipsecctl validate <(true)", tmp_path)
    assert done.returncode == 1
    assert "the file is empty" in done.stdout


# ------------------------------------------------------------------------------------------- standard streams


WRITING = (
    "schema",
    "overhead --link-mtu 1500 --esp aes256gcm16",
    "validate t.yaml --json",
    "secret generate",
    "crypto algorithms",
)
# What is slow to import is imported once; each line of standard input is then run as a program of its own,
# with the streams that this one was started with, to the end of the interpreter.
EACH = """
import os, runpy, sys
from ipsecctl.cli import _load, crypto, overhead, schema, secret, validate
import ipsecctl.crypto, ipsecctl.secrets, ipsecctl.topology.schema
from ipsecctl.topology import load_bytes
load_bytes(b"ipsecctl: 1", "")
for line in sys.stdin.read().splitlines():
    if not os.fork():
        sys.argv = ["ipsecctl", *line.split()]
        runpy.run_module("ipsecctl", run_name="__main__")
        sys.exit()
    status = os.waitstatus_to_exitcode(os.wait()[1])
    sys.stderr.write(f"exit status {status}\\0")
    sys.stderr.flush()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "why"), [(">&-", "Bad file descriptor"), (">/dev/full", "No space left")])
def test_output_that_cannot_be_written_is_an_error(tmp_path: Path, where: str, why: str) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY.replace("IPSECCTL_TEST_PSK", "P"))
    (tmp_path / "each.py").write_text(EACH)
    (tmp_path / "commands").write_text("\n".join(WRITING))
    done = shell(f"{sys.executable} each.py <commands {where}", tmp_path)
    assert done.returncode == 0
    said = done.stderr.split("\0")
    assert said.pop() == ""
    for command, err in zip(WRITING, said, strict=True):
        assert err.endswith("exit status 1"), command
        assert f"cannot write to standard output: {why}" in err, command
        assert "Traceback" not in err and "Exception ignored" not in err, command


@pytest.mark.slow
def test_closed_streams_that_are_not_needed_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(TOPOLOGY.replace("IPSECCTL_TEST_PSK", "P"))
    done = shell("$ipsecctl init new.yaml <&- >&- 2>&-; echo $?; cat new.yaml", tmp_path)
    assert done.stdout.startswith("0\n#")
    done = shell("$ipsecctl validate - <&-; echo $?; $ipsecctl validate t.yaml 2>&-; echo $?", tmp_path)
    assert "the file is empty" in done.stdout
    assert done.stdout.endswith("\n1\nok: 2 sites, 1 tunnel\n0\n")


def test_a_file_name_that_is_no_text_can_be_named(tmp_path: Path) -> None:
    script = r"export LC_ALL=C.UTF-8; echo 'x: [' >$'\xff.yaml'; $ipsecctl validate $'\xff.yaml'"
    done = shell(script, tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("\\udcff.yaml:")
    assert "Traceback" not in done.stderr

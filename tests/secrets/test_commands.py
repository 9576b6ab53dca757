"""Secrets that a command prints: run without a shell, bounded, its output in no message."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import generate_psk, read, read_all
from ipsecctl.secrets.commands import TIMEOUT_VARIABLE, output_of
from ipsecctl.topology import SecretKind, SecretRef, load_text

PSK = generate_psk()


def ref(words: str) -> SecretRef:
    return SecretRef(SecretKind.COMMAND, words)


def script(directory: Path, body: str) -> str:
    path = directory / "give.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return "./give.sh"


def test_a_command_runs_where_the_topology_lies_and_loses_its_line_end(tmp_path: Path) -> None:
    words = script(tmp_path, f"echo {PSK}")
    assert bytes(read(ref(words), tmp_path)) == PSK.encode()


def test_no_shell_reads_the_words(tmp_path: Path) -> None:
    words = "printf %s '$(id)-`id`-$HOME;id|id-0123456789abcdefghijklmn'"
    assert bytes(read(ref(words), tmp_path)) == b"$(id)-`id`-$HOME;id|id-0123456789abcdefghijklmn"


def test_placeholders_are_filled_in_word_by_word() -> None:
    text = """\
ipsecctl: 1
name: t
defaults: {credential: {psk: {command: [pass, show, "a b/{tunnel}", "$x"]}}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 203.0.113.2}
tunnels:
  ab: {between: [a, b]}
"""
    topology = load_text(text, "t.yaml").topology
    assert topology is not None
    assert str(topology.tunnels[0].left.credential.psk) == "command:pass show 'a b/ab' '$x'"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo sesame-never-shown; echo 'no such entry' >&2; exit 3", "exit status 3): no such entry"),
        ("echo sesame-never-shown; kill -9 $$", "ended by signal 9"),
        ("printf 'sesame-never-shown\\nsesame-never-shown\\n'", "control characters"),
        ("true", "empty"),
        ("echo abc12", "can be guessed"),
        ("head -c 1100000 /dev/zero | tr '\\0' s", "too large"),
        ("printf 'red \\033[31m end' >&2; exit 1", ": red  [31m end"),
    ],
)
def test_what_is_wrong_is_said_without_the_output(tmp_path: Path, body: str, said: str) -> None:
    words = script(tmp_path, body)
    with pytest.raises(SecretUnavailable) as refused:
        read_all([ref(words)], tmp_path)
    assert said in refused.value.summary
    assert "sesame" not in f"{refused.value.summary} {refused.value.hint}"
    assert "\033" not in refused.value.summary


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SecretUnavailable, match="cannot be run: command:no-such-program-at-all") as refused:
        read(ref("no-such-program-at-all"), tmp_path)
    assert "PATH" in refused.value.hint


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    words = script(tmp_path, "echo $$ > pid; echo waiting for a card >&2; exec sleep 100")
    with pytest.raises(SecretUnavailable, match=r"not done after 0\.5 s.*waiting for a card"):
        output_of(words, tmp_path, timeout_s=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    words = script(tmp_path, f"echo {PSK}; sleep 100 & echo $! > pid")
    try:
        assert output_of(words, tmp_path, timeout_s=20) == f"{PSK}\n".encode()
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 15)


@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "1e9"])
def test_a_wrong_time_limit_is_refused(tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    with pytest.raises(SecretUnavailable, match="not a time limit"):
        output_of("true", tmp_path)


def test_many_run_side_by_side_and_each_once(tmp_path: Path) -> None:
    """Each waits until all eight run: one after another none would end."""
    fifo = tmp_path / "together"
    fifo.mkdir()
    code = (
        "import pathlib,sys,time\n"
        "d=pathlib.Path('together'); (d/(sys.argv[1]+'-'+str(time.monotonic_ns()))).touch()\n"
        "while len(list(d.iterdir()))<8: time.sleep(0.01)\n"
        "print('a-secret-of-some-length-'+sys.argv[1]+'-Kq7xZp2Lw9')\n"
    )
    (tmp_path / "wait.py").write_text(code)
    refs = [ref(f"{sys.executable} wait.py {number}") for number in range(8)]
    found = read_all([*refs, *refs], tmp_path)
    assert len(found) == 8
    assert len(list(fifo.iterdir())) == 8
    assert threading.active_count() < 8

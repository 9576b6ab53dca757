"""The program that lies on a gateway, below a directory of the test's; `ip`, `nft` and charon only note."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ipsecctl.gateway._undo_script import ARM, UNDO
from ipsecctl.gateway.undo import UndoState, Way, _parse_state, parse_pending

TOKEN = "0123456789abcdef"
FAKE = '#!/bin/sh\necho "{name} $*" >>"{log}"\n{does}\n'


class Gateway:
    """A root directory with an undo that waits for one changed file, one new file, and a record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.undo = root / "var/lib/ipsecctl/undo"
        self.log = root / "log"
        (self.undo / "files").mkdir(parents=True)
        (root / "run").mkdir()
        (root / "bin").mkdir()
        for name, does in {"ip": ":", "nft": ":", "logger": ":"}.items():
            self.program(name, does)
        self.put("undo/undo", UNDO)
        self.put("undo/waiting", f"token {TOKEN}\nowner alice@noc (pid 7)\nmembers gw\nwithin 60\n")
        self.put("undo/files/0", "old\n")
        self.put("undo/names", "0 640 /etc/ipsecctl/kept\n")
        self.put("undo/removed", "/etc/ipsecctl/new\n")
        self.put("undo/record", "record before\n")
        self.put("undo/begun", "record begun\n")
        self.put("undo/values", f"{root}/setting 0\n")
        self.put("undo/routes", "")
        self.put("undo/load", "requests to load")
        self.put("undo/drop", "requests to drop")
        self.charon("echo sysname; cat >/dev/null")
        self.left(60)
        self.put("undo/mark", self.run("mark").stdout)
        self.put("applied.json", "record after\n")
        self.etc("kept", "changed\n")
        self.etc("new", "new\n")
        (root / "setting").write_text("1\n")

    def put(self, name: str, text: str) -> None:
        (self.undo.parent / name).write_text(text)

    def etc(self, name: str, text: str) -> None:
        (self.root / "etc/ipsecctl").mkdir(parents=True, exist_ok=True)
        (self.root / "etc/ipsecctl" / name).write_text(text)

    def program(self, name: str, does: str) -> None:
        file = self.root / "bin" / name
        file.write_text(FAKE.format(name=name, log=self.log, does=does))
        file.chmod(0o755)

    def charon(self, does: str) -> None:
        self.put("undo/bridge", does)

    def left(self, seconds: int) -> None:
        up = float(Path("/proc/uptime").read_text().split()[0])
        self.put("undo/deadline", f"{int(up) + seconds}\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.undo / "undo"), *words],
            env={"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "IPSECCTL_UNDO_TRIES": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def record(self) -> str:
        return (self.undo.parent / "applied.json").read_text()

    @property
    def undone(self) -> str:
        return (self.undo.parent / "undone").read_text().split(maxsplit=2)[2].strip()

    def is_back(self) -> bool:
        etc = self.root / "etc/ipsecctl"
        kept = (etc / "kept").read_text() == "old\n" and (etc / "kept").stat().st_mode & 0o777 == 0o640
        return kept and not (etc / "new").exists() and not self.undo.exists()


@pytest.fixture
def gateway(tmp_path):
    return Gateway(tmp_path)


def test_it_goes_back_when_the_time_is_over(gateway):
    gateway.left(0)
    gateway.run("due")
    assert gateway.is_back()
    assert (gateway.record, gateway.undone) == ("record before\n", "back")
    assert (gateway.root / "setting").read_text() == "0\n"


def test_after_a_first_apply_there_is_no_record(gateway):
    (gateway.undo / "record").unlink()
    (gateway.undo / "begun").unlink()
    gateway.run("now")
    assert gateway.is_back()
    assert not (gateway.undo.parent / "applied.json").exists()


def test_where_nothing_had_been_changed_charon_is_left_alone(gateway):
    gateway.put("applied.json", "record before\n")
    gateway.etc("kept", "old\n")
    (gateway.root / "etc/ipsecctl/new").unlink()
    gateway.charon(f"echo asked >>{gateway.log}")
    gateway.run("now")
    assert gateway.undone == "back: nothing had been changed"
    assert not gateway.log.exists() or "asked" not in gateway.log.read_text()


@pytest.mark.parametrize(
    ("charon", "said"),
    [
        ("exit 1", "back, but not wholly: charon does not answer"),
        (
            "printf 'errmsg\\0\\6no key\\1sysname'; cat >/dev/null",
            "but not wholly: charon refused: no key",
        ),
    ],
)
def test_what_charon_does_not_take_stays_begun_in_the_record(gateway, charon, said):
    gateway.charon(charon)
    gateway.run("now")
    assert said in gateway.undone
    assert gateway.record == "record begun\n"
    assert gateway.is_back()  # the rest is


def test_a_charon_that_does_not_run_reads_the_files_when_it_starts(gateway):
    gateway.charon("echo 'Connection refused' >&2; exit 1")
    gateway.run("now")
    assert (gateway.record, gateway.undone) == ("record before\n", "back")


def test_a_file_that_cannot_be_put_back_is_told_and_the_rest_is_done(gateway):
    (gateway.root / "etc/ipsecctl/kept").unlink()
    (gateway.root / "etc/ipsecctl/kept").mkdir()
    (gateway.root / "etc/ipsecctl/kept/in").touch()
    (gateway.undo / "files/0").unlink()
    gateway.run("now")
    assert "/etc/ipsecctl/kept cannot be put back" in gateway.undone
    assert not (gateway.root / "etc/ipsecctl/new").exists()
    assert gateway.record == "record begun\n"


def test_confirmed_it_stays_and_nothing_is_left(gateway):
    assert gateway.run("confirm", "f" * 16).stdout.startswith(f"waiting {TOKEN}")  # another apply's
    assert gateway.run("confirm", TOKEN).stdout == "confirmed\n"
    assert (gateway.record, gateway.undo.exists()) == ("record after\n", False)


def test_what_goes_back_cannot_be_confirmed(gateway):
    gateway.put("undo/going", "")
    assert gateway.run("confirm", TOKEN).stdout.startswith(f"going {TOKEN}")
    assert gateway.undo.exists()


def test_cut_off_in_the_middle_it_is_begun_again(gateway):
    gateway.put("undo/going", "")
    gateway.put("applied.json", "record begun\n")
    gateway.etc("kept", "old\n")
    gateway.put("undo/mark", "another start\n")
    done = gateway.run("boot")
    assert done.returncode == 10
    assert gateway.is_back()
    assert gateway.record == "record before\n"


def test_a_boot_counts_as_not_confirmed_and_the_same_start_does_not(gateway):
    assert gateway.run("boot").returncode == 0
    assert gateway.record == "record after\n"
    gateway.put("undo/mark", "another start\n")
    assert gateway.run("boot").returncode == 10
    assert gateway.is_back()


def test_it_waits_as_long_as_is_heard_of_the_apply(gateway):
    gateway.left(1)
    pending = parse_pending(gateway.run("extend", TOKEN, "500").stdout)
    assert pending is not None
    assert 490 <= pending.left_s <= 500
    assert (pending.owner, pending.going) == ("alice@noc (pid 7)", False)


def test_the_timer_of_an_earlier_apply_does_nothing(gateway):
    gateway.left(-5)
    assert gateway.run("due", "f" * 16).returncode == 0
    assert gateway.record == "record after\n"


@pytest.mark.slow
def test_a_holder_of_the_lock_that_does_not_let_go_is_ended(gateway):
    lock = gateway.root / "run/ipsecctl.lock"
    script = f'exec 9>>"{lock}"; flock 9; printf "since\\nshell $$\\n" >"{lock}"; echo; cat >/dev/null 9>&-'
    holder = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        gateway.run("now")
        assert gateway.is_back()
        assert holder.wait(10) != 0
    finally:
        holder.kill()
        holder.communicate()


def test_routes_and_rules_that_are_new_are_removed(gateway):
    gateway.put("undo/routes", "-4 unreachable 10.1.0.0/24 metric 9\n")
    gateway.etc("routes", "rule -4 217 from all to 10.1.0.0/24 unreachable proto 213\n")
    gateway.program(
        "ip",
        "case \"$*\" in '-o -4 route show'*) echo 'unreachable 10.1.0.0/24 metric 9 '; "
        "echo 'unreachable 10.2.0.0/24 metric 9 ' ;; '-N -4 rule show') "
        "printf '216:\\tfrom all to 10.2.0.0/24 lookup 254 suppress_prefixlength 7 proto 213\\n'; "
        "for net in 1 2; do printf '217:\\tfrom all to 10.%s.0.0/24 7 proto 213\\n' $net; done; "
        "printf '300:\\tfrom all to 10.2.0.0/24 lookup 9\\n' ;; esac",
    )
    gateway.run("now")
    used = gateway.log.read_text()
    assert "ip -4 route delete unreachable 10.2.0.0/24 metric 9\n" in used
    assert "delete unreachable 10.1" not in used
    assert [line for line in used.splitlines() if "rule delete" in line] == [
        "ip -4 rule delete pref 217 from all to 10.2.0.0/24 unreachable proto 213",
        "ip -4 rule delete pref 216 from all to 10.2.0.0/24 lookup 254 suppress_prefixlength 7 proto 213",
    ]


@pytest.mark.parametrize("script", [ARM, UNDO])
def test_the_scripts_are_of_the_shell(script):
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("none\n", UndoState(Way.NONE)),
        (
            f"waiting {TOKEN} 42 alice@noc (pid 7)\nmembers a b\n",
            UndoState(Way.WAITING, TOKEN, 42, "alice@noc (pid 7)", ("a", "b")),
        ),
        (f"going {TOKEN} 0 x\n", UndoState(Way.GOING, TOKEN, 0, "x")),
        (f"none\nundone {TOKEN} 99 back\n", UndoState(Way.BACK, TOKEN, said="back", when=99)),
        ("", UndoState(Way.NONE)),
    ],
)
def test_how_it_stands(text, state):
    assert _parse_state(text) == state

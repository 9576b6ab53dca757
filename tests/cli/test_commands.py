"""Every command where something is wrong: a clear message, the right status, JSON for who asked for it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from ipsecctl.cli import COMMANDS, _interrupt, _view, app, main
from ipsecctl.cli import apply as apply_command
from ipsecctl.deploy.apply import Applied, GatewayResult
from ipsecctl.deploy.tunnels import TunnelResult
from ipsecctl.health import EndState, EndView, TunnelHealth, Verdict
from ipsecctl.interrupt import complete as complete_work
from ipsecctl.lab.compose import LABEL_PARTS
from ipsecctl.plan import Change, Conflict, GatewayPlan, Kind, Part

PAIR = """
ipsecctl: 1
name: pair
defaults: {{control: {control}, credential: {{psk: "env:IPSECCTL_TEST_PSK"}}}}
sites:
  a: {{networks: {{lan: 10.1.0.0/24}}, gateway: 192.0.2.1}}
  b: {{networks: {{lan: 10.2.0.0/24}}, gateway: 192.0.2.2}}
tunnels: {{t: {{between: [a, b]}}}}
"""
NO_DOCKER = f"unix:///nonexistent/docker-{os.getpid()}.sock"
"""Of this worker alone: while a lab of one engine is brought up or down, nobody else can."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs a command, without a Docker, and returns status, output, complaints."""
    monkeypatch.setenv("IPSECCTL_TEST_PSK", "kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi")
    monkeypatch.setenv("DOCKER_HOST", NO_DOCKER)
    (tmp_path / "pair.yaml").write_text(PAIR.format(control="lab"))
    (tmp_path / "ssh.yaml").write_text(PAIR.format(control="ssh://root@127.0.0.1:1"))
    (tmp_path / "wrong.yaml").write_text(PAIR.format(control="lab").replace("10.2.0.0/24", "10.2.0.1/24"))
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(line.split())
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, said.out, said.err

    return call


def leaves(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return every command, as the words that one types."""
    found = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        found.append((*path, name))
        if hasattr(command, "list_commands"):
            found += leaves(command, (*path, name))
    return found


EVERY = leaves(get_command(app))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_help_has_examples_that_name_the_command(run, words):
    code, out, _ = run(f"{' '.join(words)} --help")
    assert code == 0
    examples = out.partition("Examples:")[2]
    assert f"ipsecctl {' '.join(words)}" in examples
    assert "completion" not in out, "it is an option of ipsecctl itself"


def asked(*words: str) -> dict[str, str]:
    """Return the environment in which bash calls a program to complete the last of its words."""
    cursor = str(len(words) - 1)
    return {"_IPSECCTL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": cursor}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ipsecctl", "st"), ["status"]),
        (("ipsecctl", ""), [command.name for command in COMMANDS]),
        (("ipsecctl", "lab", "gr"), ["graph"]),
        (("ipsecctl", "status", "--ti"), ["--timeout"]),
        (("ipsecctl", "lab", "up", "cli"), ["clinic-dc"]),
        (("ipsecctl", "render", "x.yaml", "--datapath", "lib"), ["libipsec"]),
    ],
)
def test_completion(run, monkeypatch, words, offered):
    for name, value in asked(*words).items():
        monkeypatch.setenv(name, value)
    code, out, _ = run("")
    assert (code, out.split()) == (0, offered)


def test_completion_needs_nothing_of_the_environment():
    command = [sys.executable, "-c", "from ipsecctl.cli import main; main([])"]
    done = subprocess.run(command, env=asked("ipsecctl", "st"), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["status"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_a_shell_can_be_shown(run, shell, monkeypatch):
    # Typer asks which shell it was called from; a test may be called from anything.
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    code, out, _ = run("--show-completion")
    assert code == 0
    assert "_IPSECCTL_COMPLETE" in out


READING = ("plan", "apply --yes", "probe tunnel --all", "render --out out")
NO_TOPOLOGY = pytest.mark.parametrize(
    ("file", "said"),
    [
        ("nowhere.yaml", "cannot read nowhere.yaml: No such file or directory"),
        (".", ". is a directory"),
        ("/dev/null", "IP004: the file is empty"),
        ("wrong.yaml", "wrong.yaml:7:"),
    ],
)


@pytest.mark.parametrize("command", READING)
@NO_TOPOLOGY
def test_a_file_that_is_no_topology(run, command, file, said):
    code, out, err = run(f"{command} {file}")
    assert (code, out) == (1, "")
    assert said in err
    code, out, err = run(f"{command} {file} --json")
    assert code == 1
    document = json.loads(out)
    assert document["schema"] == "ipsecctl/diagnostics/1"
    (finding,) = document["diagnostics"]
    assert finding["file"] == file
    assert finding["severity"] == "error"
    assert finding["summary"] in err


@NO_TOPOLOGY
def test_status_of_what_is_no_topology_is_a_status(run, file, said):
    code, out, err = run(f"status {file}")
    assert (code, out) == (3, "")
    assert said in err
    code, out, err = run(f"status {file} --json")
    assert code == 3
    assert said in err
    document = json.loads(out)
    assert (document["schema"], document["tunnels"], document["gateways"]) == ("ipsecctl/status/1", [], [])
    assert document["headline"].startswith("not known: ")
    (finding,) = document["diagnostics"]
    assert (finding["file"], finding["severity"]) == (file, "error")


def test_status_of_whatever_goes_wrong_is_a_status(run, monkeypatch):
    def no_more(*_: Any, **__: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("ipsecctl.deploy.survey.survey", no_more)
    code, out, err = run("status pair.yaml --json")
    assert code == 3
    assert json.loads(out)["schema"] == "ipsecctl/status/1"
    assert "Too many open files" in err


@pytest.mark.parametrize(
    ("line", "schema"),
    [
        ("status pair.yaml", "status/1"),
        ("facts a pair.yaml", "facts/1"),
        ("facts --all pair.yaml", "facts-all/1"),
        ("probe tunnel pair.yaml t --lab clinic-dc", "diagnostics/1"),  # that the lab is not up
    ],
)
@pytest.mark.parametrize("psk", ["env:IPSECCTL_NOT_SET", "file:nowhere.psk", "file:open.psk", "age:x.age"])
def test_who_only_looks_needs_no_secret(run, tmp_path, monkeypatch, line, schema, psk):
    (tmp_path / "open.psk").write_text("kV3xv8mZ0Wq2c4Jt7nRb1yLs5dHf9aGe6uPi\n")
    (tmp_path / "open.psk").chmod(0o644)
    (tmp_path / "x.age").write_text("no age at all")
    monkeypatch.setenv("IPSECCTL_AGE_IDENTITY", str(tmp_path / "nobody"))
    text = (tmp_path / "pair.yaml").read_text().replace("env:IPSECCTL_TEST_PSK", psk)
    (tmp_path / "pair.yaml").write_text(text)
    code, out, err = run(f"{line} --json")
    assert code == 3
    assert json.loads(out)["schema"] == f"ipsecctl/{schema}"
    assert "IP30" not in out + err
    assert run("plan pair.yaml")[0] == 1, "it is wrong, for those who need it"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("status pair.yaml", 3),
        ("plan pair.yaml", 3),
        ("plan pair.yaml --detailed-exitcode", 3),
        ("apply pair.yaml --yes", 1),
        ("probe tunnel pair.yaml --all --lab clinic-dc", 3),
        ("lab list", 3),
        ("lab status", 3),
        ("lab status clinic-dc", 3),
        ("lab up clinic-dc", 1),
        ("lab down clinic-dc", 1),
        ("lab down --all", 1),
        ("lab exec clinic-dc dc -- true", 1),
    ],
)
def test_without_docker(run, line, status):
    code, out, err = run(line)
    assert code == status
    assert "Docker" in out + err or "docker" in out + err
    command = line.partition(" -- ")[0].split()
    if command[0] in ("status", "plan", "apply", "probe") or command[1] in ("list", "status"):
        code, out, _ = run(f"{line} --json")
        assert code == status
        assert json.loads(out)["schema"].startswith("ipsecctl/")


def test_a_docker_elsewhere_that_is_not_there_is_named(run):
    err = run("lab up clinic-dc")[2]
    assert f"Docker does not answer at {NO_DOCKER}" in err
    assert "DOCKER_HOST" in err


@pytest.mark.parametrize("line", ["plan ssh.yaml", "plan ssh.yaml --json", "status ssh.yaml"])
def test_what_cannot_be_reached_could_not_be_told(run, line):
    code, out, _ = run(line)
    assert code == 3
    assert "127.0.0.1 port 1 refuses connections" in out


def test_apply_says_which_gateways_failed_and_claims_no_others(run):
    code, out, _ = run("apply ssh.yaml --yes")
    assert code == 1
    assert out.splitlines()[-1].endswith("Failed: a, b.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("probe tunnel pair.yaml x", "there is no tunnel 'x' in pair.yaml. There are: t."),
        ("probe tunnel pair.yaml", "name one tunnel, or say --all"),
        ("probe tunnel pair.yaml t --all", "'t' and --all: say one of the two"),
        ("probe tunnel pair.yaml t --report none/r.json", "there is no directory none"),
        ("probe tunnel pair.yaml t --report .", ". is a directory"),
        ("render pair.yaml --out out --gateway dc", "there is no gateway 'dc'"),
        ("render pair.yaml", "--out"),
        ("status pair.yaml --timeout 0", "--timeout"),
        ("plan pair.yaml --detailed", "No such option"),
        ("lab down", "name a lab, or say --all"),
        ("lab graph", "NAME"),
    ],
)
def test_wrong_usage(run, line, said):
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("command", ["up", "graph", "demo"])
def test_a_lab_that_is_not_there(run, command):
    code, _, err = run(f"lab {command} clinic-d")
    assert code == 1
    assert "there is no lab 'clinic-d'" in err
    assert "Did you mean 'clinic-dc'?" in err


def test_a_topology_is_no_lab(run):
    code, _, err = run("lab graph ./pair.yaml")
    assert code == 1
    assert "pair.yaml is a topology, not a lab" in err


def test_a_probe_of_what_is_in_no_lab_could_not_be_told(run):
    code, out, err = run("probe tunnel ssh.yaml t --json")
    assert code == 3
    assert json.loads(out)["diagnostics"][0]["hint"] == "Use --lab NAME, or 'control: lab' in the topology."
    assert "in no lab" in err


# ------------------------------------------------------------------------------- a push needs somebody's yes


def prepared(conflict: bool = False, changes: int = 1) -> Any:
    change = Change("a", Part.FIREWALL, "inet ipsecctl", Kind.CREATE, reasons=("declared",))
    conflicts = (Conflict("table inet ipsecctl is somebody else's", "move it"),) if conflict else ()
    plans = (GatewayPlan("a", (change,) * changes, conflicts),)
    return SimpleNamespace(plans=plans, shown=plans, stops=())


class Ended(Exception):
    """The command ended with a usage error."""


class Context:
    def fail(self, message: str) -> None:
        raise Ended(message)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_changes_need_yes(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Ended, match=r"nothing was done: there is no terminal to ask on\. Say --yes"):
        apply_command._confirm(prepared(), Context(), yes=False)
    assert "firewall inet ipsecctl: declared" in capsys.readouterr().err, "the plan is shown"
    apply_command._confirm(prepared(), Context(), yes=True)
    apply_command._confirm(prepared(changes=0), Context(), yes=False)
    assert capsys.readouterr().err == ""


def test_a_conflict_is_shown_and_not_asked_about(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    apply_command._confirm(prepared(conflict=True), Context(), yes=False)
    assert "somebody else's" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_one_is_asked(monkeypatch, capsys, answer, goes_on):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    try:
        apply_command._confirm(prepared(), Context(), yes=False)
    except apply_command.typer.Abort:
        went_on = False
    else:
        went_on = True
    assert went_on is goes_on
    assert "Do it?" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ words at the end


def applied(verdict: Verdict, changes: int = 0, *, kept: bool = False) -> Applied:
    ends = (EndView("a", "a", EndState.SEEN), EndView("b", "b", EndState.SEEN))
    health = TunnelHealth("t", verdict, (), ends, ("t",))
    gateways = tuple(GatewayResult(name, changes, 0.1) for name in ("a", "b"))
    return Applied(gateways, (TunnelResult(health, 0.1, acted=False, kept=kept),), 1.5)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (applied(Verdict.UP), "Nothing to do: 2 gateways are as the topology says, 1 of 1 tunnel up."),
        (applied(Verdict.DOWN), "0 of 1 tunnel up, though 2 gateways are as the topology says."),
        (applied(Verdict.UP, changes=3), "1 of 1 tunnel up after 1.5 s."),
        (
            applied(Verdict.UP, changes=3, kept=True),
            "1 of 1 tunnel up after 1.5 s. Not changed, up on the SAs of before: t.",
        ),
    ],
)
def test_a_tunnel_that_is_down_is_not_nothing_to_do(outcome, said):
    assert apply_command._summary(outcome) == said


def test_a_tunnel_that_was_not_changed_is_up_and_the_apply_has_failed(capsys):
    outcome = applied(Verdict.UP, changes=3, kept=True)
    result = replace(outcome.tunnels[0], health=replace(outcome.tunnels[0].health, causes=("b refused",)))
    apply_command._Screen(1, [], quiet=False).tunnel(result)
    assert "kept    t: up, but b refused" in capsys.readouterr().out
    assert not outcome.succeeded


def test_what_is_empty_has_no_colour():
    assert _view.paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert _view.paint("", "red", Terminal()) == ""


@pytest.mark.parametrize(
    ("line", "heads"),
    [("crypto algorithms", ["KEYWORD"]), ("lab list", ["LAB"])],
)
def test_tables_fit_a_terminal(run, monkeypatch, line, heads):
    whole = run(line)[1]
    assert max(map(len, whole.splitlines())) > 60
    monkeypatch.setattr(_view, "terminal_width", lambda: 60)
    narrow = run(line)[1]
    assert max(map(len, narrow.splitlines())) <= 60
    assert sorted(narrow.replace(":", "").split()) == sorted(whole.replace(":", "").split())
    assert any(row.startswith(heads[0]) for row in narrow.splitlines())


# ------------------------------------------------------------------------------------------------ interrupted


async def interrupts_itself(cleaned: list[str], number: int = signal.SIGINT) -> None:
    try:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.01)
        cleaned.append("up")


def test_an_interruption_is_told_once_and_work_cleans_up(capsys):
    cleaned: list[str] = []
    with pytest.raises(_interrupt.typer.Exit) as ended:
        _interrupt.run(interrupts_itself(cleaned), lambda: "Interrupted while testing.")
    assert ended.value.exit_code == 130
    assert cleaned == ["up"]
    assert capsys.readouterr().err == "Interrupted while testing.\n"


def test_a_terminal_that_hangs_up_hears_nothing_and_work_cleans_up():
    def hung_up() -> None:
        raise OSError("Input/output error")

    cleaned: list[str] = []
    with pytest.raises(SystemExit) as ended:
        complete_work(interrupts_itself(cleaned, signal.SIGHUP), hung_up)
    assert ended.value.code == 129
    assert cleaned == ["up"]


@pytest.mark.parametrize(
    ("line", "target", "said"),
    [
        ("apply pair.yaml", "ipsecctl.cli._load.load_with_text", "Interrupted before anything was changed."),
        (
            "status pair.yaml",
            "ipsecctl.cli._load.load_topology",
            "Interrupted while the gateways were looked at",
        ),
        ("probe tunnel pair.yaml --all", "ipsecctl.cli._scene.lab_of", "Interrupted"),
        ("lab up clinic-dc", "ipsecctl.lab.load", "Interrupted before anything of the lab was made."),
        ("lab graph clinic-dc", "ipsecctl.lab.draw", "Interrupted."),
        ("validate pair.yaml", "ipsecctl.cli._load.check_file", "Interrupted."),
    ],
)
def test_ctrl_c_is_never_silent(run, monkeypatch, line, target, said):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupted)
    status, out, err = run(line)
    assert (status, out) == (130, "")
    assert said in err
    assert err.count("Interrupted") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["apply pair.yaml --yes", "status pair.yaml", "plan pair.yaml", "lab up clinic-dc"]
)
def test_ctrl_c_while_docker_is_asked(run, monkeypatch, tmp_path, line):
    """A docker that interrupts who asks it, and then takes its time."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\nkill -INT {os.getpid()}\nexec sleep 5\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    status, out, err = run(line)
    assert (status, out) == (130, "")
    assert err.count("Interrupted") == 1


def test_apply_says_how_far_it_was(capsys):
    screen = apply_command._Screen(1, ["a", "b"], quiet=False)
    assert screen.interrupted(Path("x.yaml")) == (
        "Interrupted while these were being changed: a, b. "
        "The next 'ipsecctl apply x.yaml' does what is left."
    )
    screen.gateway(GatewayResult("a", 1, 0.1))
    assert "being changed: b." in screen.interrupted(Path("x.yaml"))
    screen.gateway(GatewayResult("b", 1, 0.1))
    assert "with every gateway done, while waiting for 1 tunnel." in screen.interrupted(Path("x.yaml"))


# ------------------------------------------------------------------------------ labs from one's own folders


@pytest.fixture
def own_lab(run, tmp_path, monkeypatch):
    """A lab in a folder that is neither the installation's nor beside the topology, and it is up."""
    folder = tmp_path / "elsewhere" / "f3hub"
    folder.mkdir(parents=True)
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: ../../pair.yaml\n")
    row = ["f3hub", "a", "gateway", "1", "running", "digest", *("" for _ in LABEL_PARTS), str(folder)]
    program = tmp_path / "docker"
    text = "\\t".join(row)
    program.write_text(f"#!/bin/sh\ncase \"$*\" in 'ps '*=f3hub*) printf '{text}\\n' ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "named.yaml").write_text(PAIR.format(control="lab:f3hub"))
    return folder


def test_a_lab_that_is_up_is_found_by_its_name(run, own_lab):
    status, out, _ = run("lab graph f3hub")
    assert status == 0
    assert out.startswith("lab f3hub: topology pair")
    status, _, err = run("lab graph f3hab")
    assert status == 1
    assert "there is no lab 'f3hab'" in err


def test_the_lab_of_a_topology_is_the_one_that_is_up(run, own_lab, monkeypatch):
    from ipsecctl.cli._load import load_topology
    from ipsecctl.cli._scene import lab_of
    from ipsecctl.errors import LabError

    topology = load_topology(Path("named.yaml"))
    assert Path(lab_of(topology, None).file).absolute() == own_lab / "lab.yaml"
    assert lab_of(topology, "f3hub").name == "f3hub"
    with pytest.raises(LabError, match="there is no lab 'f3hab'"):
        lab_of(topology, "f3hab")


def test_a_lab_is_named_by_the_folder_one_is_in(run, own_lab, monkeypatch):
    monkeypatch.chdir(own_lab)
    assert run("lab graph .")[1].startswith("lab f3hub:")
    assert run("lab graph ../f3hub/")[1].startswith("lab f3hub:")
    assert "lab f3hub" in run("lab down .")[2]
    assert run("lab status .")[1].startswith("lab f3hub:")
    from ipsecctl.cli._load import lab_called

    assert [lab_called(said) for said in (None, "x-1", ".", "../f3hub")] == [None, "x-1", "f3hub", "f3hub"]


def test_a_wrong_choice_is_told_in_our_words(run):
    status, _, err = run("render pair.yaml --out there --datapath foo")
    assert status == 2
    assert "Invalid value for '--datapath': 'foo' is not one of 'kernel', 'libipsec'." in err


def test_a_second_interruption_amid_the_end_of_the_first_is_not_told_again(capsys):
    def twice():
        with _interrupt.telling(lambda: "Interrupted by the second."):
            try:
                _interrupt.run(interrupts_itself([]), lambda: "Interrupted by the first.")
            finally:
                raise KeyboardInterrupt

    with pytest.raises(_interrupt.typer.Exit) as ended:
        twice()
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "Interrupted by the first.\n"


def test_an_apply_that_waits_for_nothing_any_more_does_not_say_so(capsys):
    screen = apply_command._Screen(1, ["a"], quiet=False)
    assert screen.interrupted(Path("t.yaml")).startswith("Interrupted while these were being changed: a.")
    outcome = applied(Verdict.UP, changes=1)
    screen.gateway(outcome.gateways[0])
    assert "with every gateway done, while waiting for 1 tunnel." in screen.interrupted(Path("t.yaml"))
    screen.tunnel(outcome.tunnels[0])
    assert "with every gateway and every tunnel done" in screen.interrupted(Path("t.yaml"))
    capsys.readouterr()

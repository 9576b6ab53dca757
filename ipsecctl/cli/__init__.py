"""The command line: options in, one service call, a view out.

Commands live in modules of their own, imported only when they are called: ``COMMANDS`` is the list of them,
in the order in which the work goes. Each module has a Typer ``app`` (one command, or a group of them).
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from functools import cache
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ipsecctl import __version__
from ipsecctl.ctrl_c import interruptible
from ipsecctl.errors import IpsecctlError, TopologyRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["COMMANDS", "app", "main"]


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    stage: str
    summary: str


COMMANDS = (
    _Command("init", "Design", "Write a commented starter topology."),
    _Command("validate", "Design", "Check a topology; every finding with its line and how to mend it."),
    _Command("schema", "Design", "Print the JSON Schema of topology files, for editors."),
    _Command("secret", "Design", "Make strong pre-shared keys."),
    _Command("pki", "Design", "Keep a small CA: issue, renew and revoke the gateways' certificates."),
    _Command("crypto", "Design", "Show algorithms and profiles."),
    _Command("overhead", "Design", "Say what ESP costs on a link: inner MTU and MSS."),
    _Command("render", "Deploy", "Write the files of each gateway."),
    _Command("facts", "Deploy", "Show what a gateway is and can do, and what it lacks."),
    _Command("plan", "Deploy", "Show what would change on each gateway."),
    _Command("apply", "Deploy", "Make the gateways what the topology says, and wait for the tunnels."),
    _Command("confirm", "Deploy", "Keep what was applied with --confirm."),
    _Command("rollback", "Deploy", "Apply an earlier revision again."),
    _Command("status", "Operate", "Show every declared tunnel as both of its ends see it."),
    _Command("history", "Operate", "Show who applied what, when, and what happened on each gateway."),
    _Command("diff", "Operate", "Show what changed between two revisions."),
    _Command("probe", "Prove", "Measure on real packets what a tunnel claims."),
    _Command("lab", "Lab", "Run a topology against real strongSwan in containers."),
)


# What a write fails with; who writes to a file names it.
_UNWRITABLE = (errno.EBADF, errno.EFBIG, errno.EIO, errno.ENOSPC)
_INTERRUPTED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


_PYDANTICS = "Value error, "
"""What pydantic, by which typer reads values, puts before what is wrong with one."""


def _telling(work: Callable[[], Any]) -> Any:
    """Do work, and say of an interruption that a command says nothing about; typer would end without a word.

    SIGINT is an exception in the work alone: around it there is nobody who could say what it came of.
    """
    try:
        return interruptible(work)
    except typer.BadParameter as wrong:
        wrong.message = wrong.message.removeprefix(_PYDANTICS)
        raise
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except SystemExit as stop:
        if stop.code not in _INTERRUPTED:
            raise
        status = int(stop.code)
    print("Interrupted.", file=sys.stderr, flush=True)
    raise typer.Exit(status)


@cache
def _loaded(name: str) -> Any:
    """Return a command, or None where there is none of that name; it is made once, as that takes long."""
    if not any(command.name == name for command in COMMANDS):
        return None
    loaded = typer.main.get_command(importlib.import_module(f"{__name__}.{name}").app)
    loaded.name = name
    return loaded


class _Commands(TyperGroup):
    """The root group: knows the names of all commands, imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class's signature
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return _loaded(cmd_name)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        outer = super().make_context
        return _telling(lambda: outer(*args, **kwargs))

    def invoke(self, ctx: Any) -> Any:
        outer = super().invoke
        return _telling(lambda: outer(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not any(command.name == args[0] for command in COMMANDS):
            import difflib

            near = difflib.get_close_matches(args[0], [command.name for command in COMMANDS], n=1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        for stage in dict.fromkeys(command.stage for command in COMMANDS):
            with formatter.section(stage):
                formatter.write_dl([(c.name, c.summary) for c in COMMANDS if c.stage == stage])


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ipsecctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """One topology file in, proven site-to-site IPsec tunnels out.

    Exit status: 0 fine, 1 a problem was found or the work failed, 2 wrong usage, 3 could not tell.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    _open_streams()
    try:
        try:
            app(args=list(argv) if argv is not None else None, prog_name="ipsecctl")
        finally:
            sys.stdout.flush()  # what cannot be written is an error, and none for Python to tell at exit
    except TopologyRefused as refused:
        from ipsecctl.cli._view import print_diagnostics

        print_diagnostics(refused.diagnostics)
        sys.exit(refused.exit_status)
    except IpsecctlError as error:
        from ipsecctl.cli._view import print_error

        print_error(error)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader (head, less) has gone: what it wanted it has. Python must not complain again at exit.
        _drop_output()
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        from ipsecctl.cli._view import print_error

        where = f"{error.filename}: " if error.filename else ""
        if not where and error.errno in _UNWRITABLE:
            where = "cannot write to standard output: "
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        print_error(IpsecctlError(f"{where}{error.strerror or error}"))
        sys.exit(1)


def _open_streams() -> None:
    """See to it that there are three standard streams, and that they take every file name.

    One that is closed (``>&-``) is opened again, so that no other file gets its number: input is empty, talk
    goes nowhere, and output, if there is any, is an error.
    """
    for number in (number for number in range(3) if not _is_open(number)):
        # Where output goes is opened for reading: to write there fails, as it does where nothing is open.
        os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _drop_output() -> None:
    """Let what is still to be written to standard output go nowhere: it cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

"""Ctrl-C, told in words: what was going on, and what is to be done about it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from ipsecctl.cli._view import say
from ipsecctl.interrupt import complete

__all__ = ["one_loop", "run", "telling"]

T = TypeVar("T")


@contextmanager
def telling(words: Callable[[], str]) -> Iterator[None]:
    """Say ``words()`` and end with status 130 when Ctrl-C ends the block, unless it was ending for one."""
    try:
        yield
    except KeyboardInterrupt as interrupted:
        if not _told_before(interrupted):
            say(words())
        raise typer.Exit(128 + signal.SIGINT) from None


def _told_before(error: BaseException) -> bool:
    """Whether an interruption came amid the end that an earlier one made, and ``run`` told of."""
    before = error.__context__
    while before is not None and not isinstance(before, typer.Exit):
        before = before.__context__
    return before is not None and before.exit_code > _BY_SIGNAL


_BY_SIGNAL = 128
_runner: asyncio.Runner | None = None


@contextmanager
def one_loop() -> Iterator[None]:
    """Have every ``run`` in the block share one event loop, and so what is open in it, as connections are."""
    global _runner  # noqa: PLW0603 - the loop of this process
    with asyncio.Runner() as _runner:
        try:
            yield
        finally:
            _runner = None


def run(work: Coroutine[Any, Any, T], words: Callable[[], str]) -> T:
    """Run work to its end, as ``asyncio.run`` does.

    The first SIGINT, SIGTERM or SIGHUP says ``words()`` and cancels the work; further ones do nothing while
    it cleans up. Then ``typer.Exit`` with 128 plus the signal's number is raised.
    """
    try:
        return complete(work, lambda: say(words()), _runner)
    except SystemExit as stop:
        raise typer.Exit(int(stop.code or 0)) from None

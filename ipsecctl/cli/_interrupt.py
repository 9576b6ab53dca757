"""Ctrl-C, told in words: what was going on, and what is to be done about it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from ipsecctl.cli._view import say

__all__ = ["one_loop", "run", "telling"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def telling(words: Callable[[], str]) -> Iterator[None]:
    """Say ``words()`` and end with status 130 when Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt:
        say(words())
        raise typer.Exit(128 + signal.SIGINT) from None


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

    The first SIGINT or SIGTERM says ``words()`` and cancels the work; further ones do nothing while it cleans
    up, so that no traceback comes of them. Then ``typer.Exit`` with 128 plus the signal's number is raised.
    """
    caught: list[int] = []

    async def watched() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def told(number: int) -> None:
            caught.append(number)
            if len(caught) == 1 and task is not None:
                say(words())
                task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, told, number)
        try:
            return await work
        finally:
            for number in _SIGNALS:  # the loop may live on, and must not keep Ctrl-C to itself
                loop.remove_signal_handler(number)

    try:
        return asyncio.run(watched()) if _runner is None else _runner.run(watched())
    except asyncio.CancelledError:
        if caught:
            raise typer.Exit(128 + caught[0]) from None
        raise

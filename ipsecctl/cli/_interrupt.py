"""Ctrl-C, told in words: what was going on, and what is to be done about it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

from ipsecctl.cli._view import say

__all__ = ["run", "telling"]

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
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if caught:
            raise typer.Exit(128 + caught[0]) from None
        raise

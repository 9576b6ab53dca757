"""Work that cleans up after itself when the person at the keyboard, or the machine, wants to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["complete"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def complete(
    work: Coroutine[Any, Any, T],
    tell: Callable[[], object] = lambda: None,
    runner: asyncio.Runner | None = None,
) -> T:
    """Run work to its end, in the event loop of ``runner`` if there is one.

    The first SIGINT, SIGTERM or SIGHUP cancels it and calls ``tell``; further ones do nothing, so that no
    traceback comes of them. When the work has cleaned up, ``SystemExit`` with 128 plus the signal's number is
    raised, as a shell would have it.
    """
    caught: list[int] = []
    stopped: list[int] = []
    working: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T] | None]] = []

    def stop() -> None:
        task = working[0][1] if working else None
        if stopped or task is None:
            return  # where nothing works yet it is stopped as it begins
        stopped.append(caught[0])
        task.cancel()
        with suppress(OSError):  # a terminal that has hung up hears nothing
            tell()

    def told(number: int, _: object) -> None:
        caught.append(number)
        if working:
            working[0][0].call_soon_threadsafe(stop)

    async def watched() -> T:
        working.append((asyncio.get_running_loop(), asyncio.current_task()))
        if caught:
            stop()
        try:
            return await work
        finally:
            working.clear()

    # Not the loop's own handlers of signals: these are there only while it runs, and what comes a moment
    # before or after would be an exception amid the loop's own work.
    before = _handlers()
    try:
        for number in before:
            signal.signal(number, told)
        return asyncio.run(watched()) if runner is None else runner.run(watched())
    except asyncio.CancelledError:
        if stopped:
            raise SystemExit(128 + stopped[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught and not stopped:  # it came when the work was done: for whoever comes next
            signal.raise_signal(caught[0])


def _handlers() -> dict[signal.Signals, Any]:
    """Return what the signals that are obeyed did before.

    nohup(1) has its own will; an ignored SIGINT is only what shells do to what they run in the background.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    if handlers[signal.SIGHUP] is signal.SIG_IGN:
        del handlers[signal.SIGHUP]
    return handlers

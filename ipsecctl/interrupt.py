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

    async def watched() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def told(number: int) -> None:
            caught.append(number)
            if len(caught) == 1 and task is not None:
                task.cancel()
                with suppress(OSError):  # a terminal that has hung up hears nothing
                    tell()

        # nohup(1) has its own will; an ignored SIGINT is only what shells do to what they run in the
        # background.
        signals = [
            number
            for number in _SIGNALS
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        ]
        for number in signals:
            loop.add_signal_handler(number, told, number)
        try:
            return await work
        finally:
            for number in signals:  # the loop may live on, and must not keep Ctrl-C to itself
                loop.remove_signal_handler(number)

    try:
        return asyncio.run(watched()) if runner is None else runner.run(watched())
    except asyncio.CancelledError:
        if caught:
            raise SystemExit(128 + caught[0]) from None
        raise

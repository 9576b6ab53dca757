"""Work that cleans up after itself when the person at the keyboard, or the machine, wants to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["complete"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end.

    The first SIGINT, SIGTERM or SIGHUP cancels it, further ones do nothing, and when it has cleaned up
    ``SystemExit`` with 128 plus the signal's number is raised, as a shell would have it.
    """
    caught: list[int] = []

    async def watched() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        def told(number: int) -> None:
            caught.append(number)
            if len(caught) == 1 and task is not None:
                task.cancel()

        for number in _SIGNALS:
            # nohup(1) has its own will; an ignored SIGINT is only what shells do to what they run in the
            # background.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, told, number)
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if caught:
            raise SystemExit(128 + caught[0]) from None
        raise

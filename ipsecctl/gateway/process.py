"""Child processes that are never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from ipsecctl.gateway.handle import Completed
from ipsecctl.patience import PATIENCE

__all__ = ["child", "first_line", "run"]

_PIPE = asyncio.subprocess.PIPE
_GRACE_S = 0.5 * PATIENCE


@asynccontextmanager
async def child(argv: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a child with all three streams as pipes; on leaving it and its own children are gone.

    It has a session of its own, so that Ctrl-C at the terminal reaches us alone and we end it in order.
    Raises ``OSError`` when it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=_PIPE, stdout=_PIPE, stderr=_PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        await _although_cancelled(_end(process))


async def first_line(process: asyncio.subprocess.Process, *, timeout_s: float) -> tuple[str, bytes]:
    """Return the first line a child writes, or "" and what it complained about when it ends without one.

    Raises ``TimeoutError`` after ``timeout_s`` seconds.
    """
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("a child has pipes")
    async with asyncio.timeout(timeout_s):
        line = await process.stdout.readline()
        return line.decode("utf-8", "replace").strip(), b"" if line else await process.stderr.read()


async def _although_cancelled(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` to its end, however often whoever waits for it is cancelled meanwhile; then cancel it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
    task.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let a child end by itself once nobody listens to it, then with force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    finally:
        # asyncio closes a pipe only at its end of file; one that nobody read to there would stay open.
        cast(Any, process)._transport.close()


async def run(argv: Sequence[str], stdin: bytes, *, timeout_s: float) -> Completed:
    """Run a command to its end.

    Raises ``TimeoutError`` when that takes longer than ``timeout_s`` seconds, ``OSError`` when it cannot
    start.
    """
    async with child(argv) as process:
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await process.communicate(stdin)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return Completed(process.returncode if process.returncode is not None else -1, stdout, stderr)

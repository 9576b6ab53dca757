"""Run ``ipsecctl`` and have it killed (SIGKILL) at its N-th operation on a gateway: before, or in its middle.

As a program: ``python killed.py N before|during FILE ARGS...``. The operations (commands, held commands,
connections to charon, requests to it) are written to FILE as they begin; with N = 0 none is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ipsecctl.cli import main
from ipsecctl.gateway.container import Container
from ipsecctl.gateway.ssh import SshHost
from ipsecctl.vici import Client

_STARTED_S = 0.03
"""Long enough for a command to be on its way, too short for it to be done."""


class Killer:
    def __init__(self, number: int, when: str, log: Path) -> None:
        self.number = number
        self.when = when
        self.log = log
        self.count = 0

    async def at(self, what: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do an operation, unless it is the one."""
        self.count += 1
        with self.log.open("a") as log:
            log.write(f"{what}\n")
        if self.count != self.number:
            return await work()
        if self.when == "during":
            await asyncio.wait([asyncio.ensure_future(work())], timeout=_STARTED_S)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def install(killer: Killer) -> None:
    """Have every operation on a gateway counted."""
    for kind in (Container, SshHost):
        _count_handle(kind, killer)
    command, stream = Client.command, Client.stream

    async def counted_command(self: Client, name: str, *args: Any, **more: Any) -> Any:
        return await killer.at(f"vici {name}", lambda: command(self, name, *args, **more))

    async def counted_stream(self: Client, name: str, *args: Any, **more: Any) -> Any:
        return await killer.at(f"vici {name}", lambda: stream(self, name, *args, **more))

    Client.command, Client.stream = counted_command, counted_stream  # type: ignore[method-assign]


def _count_handle(kind: Any, killer: Killer) -> None:
    run, hold, vici = kind.run, kind.hold, kind.vici

    async def counted_run(self: Any, argv: Any, *args: Any, **more: Any) -> Any:
        what = f"{self.name} run {argv[3] if len(argv) > 3 else argv[0]}"
        return await killer.at(what, lambda: run(self, argv, *args, **more))

    def entering(way: Any, word: str) -> Any:
        @asynccontextmanager
        async def counted(self: Any, *args: Any, **more: Any) -> AsyncIterator[Any]:
            manager = way(self, *args, **more)
            entered = await killer.at(f"{self.name} {word}", manager.__aenter__)
            try:
                yield entered
            except BaseException:
                if not await manager.__aexit__(*sys.exc_info()):
                    raise
            else:
                await manager.__aexit__(None, None, None)

        return counted

    kind.run, kind.hold, kind.vici = counted_run, entering(hold, "hold"), entering(vici, "vici")


if __name__ == "__main__":
    install(Killer(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
    main(sys.argv[4:])

"""What the rooms above see of a gateway: commands and charon's socket, however it is reached."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client

__all__ = ["GREETING_S", "Completed", "Handle"]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended: exit status (negative: the signal that killed it) and what it wrote."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def error(self) -> str:
        """The last thing it complained about, on one line."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else f"exit status {self.status}"


GREETING_S = 8.0 * PATIENCE
"""How long charon may take for its first answer, which takes no work: so one that hangs holds nobody up."""


class Handle(Protocol):
    """A gateway that can be reached. All methods raise ``GatewayUnreachable`` when it cannot after all."""

    @property
    def name(self) -> str:
        """The gateway's name in the topology."""

    async def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
    ) -> Completed:
        """Run a command there; any exit status is an answer.

        A command that takes longer than ``timeout_s`` seconds is killed and counts as ``GatewayUnreachable``.
        """

    def hold(
        self, argv: Sequence[str], *, timeout_s: float = 10.0 * PATIENCE
    ) -> AbstractAsyncContextManager[str]:
        """Run a command there for as long as the context lasts; entering returns its first line.

        Its standard input stays open meanwhile, and ends when the context is left, or we are no more,
        however that came: a command that waits for it outlives neither. Entering raises
        ``GatewayUnreachable`` when there is no line within ``timeout_s`` seconds.
        """

    def vici(self, *, timeout_s: float = 10.0 * PATIENCE) -> AbstractAsyncContextManager[Client]:
        """Connect to its charon.

        Entering raises ``GatewayUnreachable``, with ``charon_down`` when the gateway answers and charon
        does not run there. ``timeout_s`` becomes the client's; at most two connections to one gateway at a
        time.
        """

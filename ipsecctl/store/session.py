"""One apply's dealings with the store: its locks, a sign of life all along, and its revision.

A thread of its own writes, so that a slow store holds up no gateway. What cannot be written is tried again
until the end; the apply goes on meanwhile, as the gateways' own locks hold without the store.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from ipsecctl.errors import GatewaysBusy, IpsecctlError, LockLost, StoreUnusable
from ipsecctl.patience import PATIENCE
from ipsecctl.store import locks, revisions
from ipsecctl.store.database import Database, Transaction
from ipsecctl.store.model import Claim, GatewayRow, NewRevision, Outcome, Taken

__all__ = ["Session"]

T = TypeVar("T")

_POLL_S = 0.5
_IMPATIENT_S = 2.0
_LAST_TRY_S = 10.0 * PATIENCE


class Session:
    """Locks and a revision for as long as the context lasts.

    Leaving it lets the locks go, and closes a revision that is still open: as refused by an error of ours
    (those of gateways are in their rows), as interrupted by a signal. ``trouble`` then says why the history
    could not be written to its end, ``None`` where all was.
    """

    def __init__(self, database: Database, *, beat_s: float = locks.BEAT_S, lasts_s: float = locks.LASTS_S):
        self.owner = locks.here()
        self.trouble: StoreUnusable | None = None
        self.number: int | None = None
        self._database = database
        self._name = locks.new_session()
        self._beat_s, self._lasts_s = beat_s, lasts_s
        self._claims: tuple[Claim, ...] = ()
        self._topology = ""
        self._to_write: deque[Callable[[Transaction], None]] = deque()
        self._changed = threading.Condition()
        self._stop = False
        self._lost: LockLost | None = None
        self._when_lost: Callable[[], object] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="ipsecctl store", daemon=True)

    # ------------------------------------------------------------------------------------------------ locks

    def lock(
        self,
        claims: Iterable[Claim],
        topology: str,
        *,
        break_them: bool = False,
        wait_s: float = 0.0,
        waiting: Callable[[GatewaysBusy], None] = lambda _: None,
    ) -> Taken:
        """Lock all gateways that are to be applied to, waiting at most ``wait_s`` seconds for others.

        ``waiting`` is told once whom for. Returns what was taken from whom. Raises ``GatewaysBusy``, and
        ``StoreUnusable``; nothing is locked then.
        """
        self._claims, self._topology = tuple(claims), topology
        deadline, told = time.monotonic() + wait_s, False
        while True:
            try:
                taken = self._acquire(break_them=break_them)
            except GatewaysBusy as busy:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                if not told:
                    waiting(busy)
                    told = True
                time.sleep(min(_POLL_S, left))
            else:
                self._thread.start()
                return taken

    def check(self) -> None:
        """Raise ``LockLost`` when our locks were broken."""
        if self._lost is not None:
            raise self._lost

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that needs the locks. It is cancelled when they are broken: then raises ``LockLost``."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
        with self._changed:
            self._when_lost = partial(loop.call_soon_threadsafe, task.cancel)
            if self._lost is not None:
                task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            self.check()
            self.end(Outcome.INTERRUPTED)
            raise
        finally:
            with self._changed:
                self._when_lost = None

    def _acquire(self, *, break_them: bool) -> Taken:
        with self._database.transaction(alone=True) as transaction:
            return locks.acquire(
                transaction,
                self._name,
                self.owner,
                self._claims,
                self._topology,
                break_them=break_them,
                lasts_s=self._lasts_s,
            )

    # --------------------------------------------------------------------------------------------- revision

    def is_news(self, topology: str, text: str, lab: str) -> bool:
        """Whether a topology was last applied, wholly, with another text than this one, or never."""
        with self._database.transaction() as transaction:
            return revisions.latest_digest(transaction, topology, lab) != revisions.digest(text)

    def begin(self, new: NewRevision) -> int:
        """Write the revision, before anything is done; return its number. Raises ``StoreUnusable``."""
        self.check()
        with self._database.transaction(alone=True) as transaction:
            self.number = revisions.begin(transaction, self._name, self.owner, new)
        return self.number

    def gateway(self, row: GatewayRow) -> None:
        """Say what became of a gateway."""
        if self.number is not None:
            self._later(partial(revisions.note, number=self.number, row=row))

    def end(
        self,
        outcome: Outcome,
        error: str = "",
        tunnels: Iterable[Mapping[str, Any]] = (),
        *,
        token: str = "",
        confirmation: str = "",
    ) -> None:
        """Say how the apply ended, and how its confirmation stands; only the first word counts."""
        if self.number is not None and not self._ended:
            self._ended = True
            last = partial(
                revisions.end,
                number=self.number,
                outcome=outcome,
                error=error,
                tunnels=(*tunnels,),
                token=token,
                confirmation=confirmation,
            )
            self._later(last)

    # ---------------------------------------------------------------------------------- the writing thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LockLost):
            self.end(Outcome.INTERRUPTED, error.summary)
        elif isinstance(error, IpsecctlError):
            self.end(Outcome.REFUSED, error.summary)
        elif isinstance(error, Exception):
            self.end(Outcome.FAILED, type(error).__name__)
        elif error is not None:
            self.end(Outcome.INTERRUPTED)
        with self._changed:
            self._stop = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._join()
        elif error is not None and not isinstance(error, IpsecctlError):
            self._try(self._leave)  # as by Ctrl-C between locking and the thread that would do it
        self._database.close()

    def _join(self) -> None:
        """Wait until the locks are let go; somebody who cannot wait for that is not heard at once."""
        try:
            self._thread.join()
        except KeyboardInterrupt:
            self._thread.join(_IMPATIENT_S)
            raise

    def _later(self, write: Callable[[Transaction], None]) -> None:
        with self._changed:
            self._to_write.append(write)
            self._changed.notify()

    def _work(self) -> None:
        """Write what there is to write, and say now and then that we live; at the end let the locks go."""
        next_beat = time.monotonic() + self._beat_s
        while True:
            with self._changed:
                held_up = self.trouble is not None and self._to_write
                if not self._stop and (held_up or not self._to_write):
                    self._changed.wait(max(0.0, next_beat - time.monotonic()))
                if self._stop:
                    break
            if time.monotonic() >= next_beat:
                self._try(self._beat)
                next_beat = time.monotonic() + self._beat_s
            if self.trouble is None:
                self._try(self._write)
        self._finish()

    def _finish(self) -> None:
        deadline = time.monotonic() + _LAST_TRY_S
        while not (self._try(self._write) and self._try(self._leave)):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except StoreUnusable as error:
            self.trouble = error
            return False
        self.trouble = None
        return True

    def _write(self) -> None:
        while self._to_write:
            with self._database.transaction() as transaction:
                self._to_write[0](transaction)
            self._to_write.popleft()

    def _leave(self) -> None:
        with self._database.transaction(alone=True) as transaction:
            locks.leave(transaction, self._name)

    def _beat(self) -> None:
        if self._lost is not None:
            return
        with self._database.transaction() as transaction:
            broken_by = locks.beat(transaction, self._name)
        if broken_by is None:
            return
        if broken_by:
            self._lose(LockLost(f"{broken_by} has broken the lock of this apply", _LOST_HINT))
            return
        try:
            # We were not heard of for a while, and given up. If nobody has come in between, all is as it was.
            self._acquire(break_them=False)
            if self.number is not None:
                self._later(partial(revisions.resume, number=self.number))
        except GatewaysBusy as busy:
            self._lose(LockLost(f"this apply was given up for dead, and then {busy.summary}", _LOST_HINT))

    def _lose(self, lost: LockLost) -> None:
        with self._changed:
            self._lost = lost
            if self._when_lost is not None:
                self._when_lost()


_LOST_HINT = "It was stopped where it was. Talk to them; the next apply does what is left."

"""Hold the garbage collector while much is made that stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collect_seldom", "without_collecting"]


_MADE = 200_000
"""So many more containers than were let go of, and the collector looks at these."""
_ROUNDS = 50
"""So many such looks, and it looks at what has stayed, too."""


def collect_seldom() -> None:
    """Have the garbage collector look seldom: a command makes much that stays until its end, which is near.

    With Python's own thresholds it takes a quarter of a plan of thousands of connections.
    """
    gc.set_threshold(_MADE, _ROUNDS, _ROUNDS)


@contextmanager
def without_collecting() -> Iterator[None]:
    """Hold the garbage collector; usable as a decorator, too.

    Where nearly all that is made stays, looking through it again and again would take a third of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

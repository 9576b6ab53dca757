"""Ctrl-C as an exception, where one can be raised; elsewhere it waits for a moment.

Python raises KeyboardInterrupt in whatever runs in the main thread. From code that Python itself calls it
does not come through: in ``__set_name__`` it becomes a RuntimeError (before 3.12), in a destructor or the
callback of a weak reference it is printed and passed over. While a module is imported there is much of that.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from opcode import opmap
from types import FrameType
from typing import TypeVar

__all__ = ["interruptible"]

T = TypeVar("T")

_AGAIN_S = 0.01
_IMPORTING = "<frozen importlib._bootstrap"
_IMPORTS = (opmap["IMPORT_NAME"], opmap["IMPORT_FROM"])
_NOT_THROUGH = ("__del__", "__set_name__")
_CALLBACKS = ("weakref.py", "_weakrefset.py")


def interruptible(work: Callable[[], T]) -> T:
    """Do work, and raise ``KeyboardInterrupt`` out of it on SIGINT, whatever it is at.

    Before and after it SIGINT does what it did; so it does all the time where SIGINT is ignored, as by a
    shell for what it runs in the background, and outside of the main thread.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        return work()
    try:
        signal.signal(signal.SIGINT, _interrupt)
        return work()
    finally:
        waits = signal.setitimer(signal.ITIMER_REAL, 0)[0] > 0
        signal.signal(signal.SIGINT, usual)
        if waits and not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def _interrupt(_: int, frame: FrameType | None) -> None:
    if _comes_through(frame):
        # It may come between a coroutine and the loop that it is for.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, _again)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _again(*_: object) -> None:
    """Send SIGINT once more: whoever is to hear of it by now does."""
    os.kill(os.getpid(), signal.SIGINT)


def _comes_through(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if (
            code.co_filename.startswith(_IMPORTING)
            or code.co_name in _NOT_THROUGH
            or code.co_filename.endswith(_CALLBACKS)
            # In C, an import that fails takes it for an error of its own (a TypeError).
            or code.co_code[frame.f_lasti] in _IMPORTS
        ):
            return False
        frame = frame.f_back
    return True

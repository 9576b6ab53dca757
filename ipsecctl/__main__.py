"""The program: ``ipsecctl``, or ``python -m ipsecctl``."""

from __future__ import annotations

import os
import signal
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run the command line; a Ctrl-C before it is there to say something, or after, ends quietly with 130."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # not where a shell has it ignored, as in the background
        signal.signal(signal.SIGINT, _end)
    from ipsecctl.cli import main as run

    signal.signal(signal.SIGINT, usual)
    try:
        run()
    finally:
        if usual is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def _end(*_: Any) -> None:
    """End at once. An exception would not do: some code that Python runs while it imports ignores those."""
    os.write(2, b"Interrupted.\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()

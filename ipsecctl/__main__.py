"""The program: ``ipsecctl``, or ``python -m ipsecctl``."""

from __future__ import annotations

import atexit
import os
import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; a Ctrl-C while no command is there to say something ends quietly with 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _end)
        # When Python takes itself down it lets SIGINT kill it without a word. By then all is done and said.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from ipsecctl.cli import main as run
    from ipsecctl.collecting import collect_seldom

    collect_seldom()
    run()


def _end(*_: object) -> None:
    """End at once. An exception would not do: some code that Python runs while it imports ignores those."""
    os.write(2, b"Interrupted.\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()

"""Who runs us, and which process we are: for whoever finds our lock, and for the history."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

__all__ = ["process_start", "seat", "user", "user_at_host"]

_START_TIME = 22 - 4  # field 22 of proc_pid_stat(5), counted from the fourth, which follows the state


def user() -> str:
    """Return the name of the person: with sudo that of who called it, not root's."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return f"uid {os.getuid()}"


def user_at_host() -> str:
    """Return user@host."""
    return f"{user()}@{socket.gethostname()}"


def seat() -> str:
    """Return what a process number is unique in: this boot of this kernel and the PID namespace.

    Empty where it cannot be told; then no process number means anything.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """Return when a process of this seat was started (ticks since boot), ``None`` when there is none.

    With the process number this tells it from a later process that was given the same number. A zombie
    counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[_START_TIME])

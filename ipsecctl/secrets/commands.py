"""A secret that a command prints: run without a shell, for a bounded time, its output never shown."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import subprocess
import time
from pathlib import Path
from typing import IO, Final

from ipsecctl.secrets.problem import SecretProblem

__all__ = ["TIMEOUT_S", "TIMEOUT_VARIABLE", "output_of"]

TIMEOUT_VARIABLE: Final = "IPSECCTL_SECRET_TIMEOUT"
"""Environment variable with the seconds that a command may take."""

TIMEOUT_S: Final = 30.0
_MAX_BYTES: Final = 1 << 20
_MAX_SAID: Final = 4096
_SAID_SHOWN: Final = 300
_CHUNK: Final = 65536
_LOOK_S: Final = 0.05  # how soon it is seen that a command ended whose output another process holds open
_GRACE_S: Final = 1.0
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def output_of(words: str, base: Path, *, timeout_s: float | None = None) -> bytes:
    """Return what a command prints; ``words`` are quoted as for a shell, which none reads.

    It runs in ``base`` with this process's environment and terminal, and nothing on its standard input.
    Raises ``SecretProblem`` when it cannot be run, takes longer than ``timeout_s`` (default: 30 seconds, or
    what IPSECCTL_SECRET_TIMEOUT says), ends with another status than 0, or prints more than 1 MiB. What it
    says on standard error is in the message, what it prints never is.
    """
    command, name = shlex.split(words), f"command:{words}"
    limit_s = _limit_s() if timeout_s is None else timeout_s
    try:
        process = subprocess.Popen(
            command, cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a program"
        hint = "name a program of PATH, or a path relative to the topology file; no shell is used"
        raise SecretProblem("IP306", "cannot be run", f"{name} ({reason})", hint) from None
    try:
        printed, said = _gather(process, name, time.monotonic() + limit_s, limit_s)
    finally:
        _end(process)
    if process.returncode != 0:
        raise _failed(process.returncode, name, said)
    return printed


def _limit_s() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text) if text else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        hint = "set it to seconds from 1 to 3600, or unset it"
        raise SecretProblem("IP306", "not a time limit", f"{TIMEOUT_VARIABLE}={text!r}", hint)
    return seconds


def _gather(process: subprocess.Popen[bytes], name: str, until: float, limit_s: float) -> tuple[bytes, bytes]:
    """Return what a process prints and the end of what it says, until it has ended.

    A process that it left behind may hold the pipes open: nobody waits for that one.
    """
    assert process.stdout is not None and process.stderr is not None  # noqa: S101 - both are pipes
    printed, said = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() or process.poll() is None:
            ended = process.poll() is not None
            ready = selector.select(0 if ended else _LOOK_S) if selector.get_map() else _pause()
            for key, _ in ready:
                data = _read(key.fileobj)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    printed += data
                else:
                    said[:] = (said + data)[-_MAX_SAID:]
            if len(printed) > _MAX_BYTES:
                raise SecretProblem("IP306", "too large for a secret", name, "it prints more than 1 MiB")
            if ended and not ready:
                break
            if time.monotonic() > until:
                what, hint = (
                    f"not done after {limit_s:g} s",
                    f"run it by hand; {TIMEOUT_VARIABLE} sets the limit",
                )
                raise SecretProblem("IP306", what, f"{name}{_shown(said)}", hint)
    return bytes(printed), bytes(said)


def _pause() -> list[tuple[selectors.SelectorKey, int]]:
    time.sleep(_LOOK_S)
    return []


def _read(pipe: object) -> bytes:
    fileno: int = pipe.fileno()  # type: ignore[attr-defined]
    try:
        return os.read(fileno, _CHUNK)
    except BlockingIOError:
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still runs, and close its pipes."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    pipes: tuple[IO[bytes] | None, ...] = (process.stdout, process.stderr)
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


def _failed(status: int, name: str, said: bytes) -> SecretProblem:
    how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return SecretProblem("IP306", "a command failed", f"{name} ({how}){_shown(said)}", "run it by hand")


def _shown(said: bytes | bytearray) -> str:
    """Return the end of what a command said on standard error, on one line."""
    text = _CONTROL.sub(" ", bytes(said).decode("utf-8", "replace")).strip()
    return f": {text[-_SAID_SHOWN:]}" if text else ""

"""Files that a user names on the command line: read with a bound, written whole or not at all."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import IO, Final

from ipsecctl.errors import IpsecctlError
from ipsecctl.patience import PATIENCE

__all__ = ["MAX_BYTES", "read_bytes", "write_text"]

MAX_BYTES: Final = 64 << 20
"""More than any topology has: ten thousand clinics are 2 MB."""

_WRITER_S: Final = 1.0 * PATIENCE
_PIPE_BYTES: Final = 1 << 16


def read_bytes(file: Path) -> bytes:
    """Return the content of a file of at most ``MAX_BYTES``; ``-`` is standard input.

    It may also be a pipe, as a shell's ``<(command)`` is, that somebody writes to. Raises ``IpsecctlError``.
    """
    try:
        if str(file) == "-":
            return _bounded(sys.stdin.buffer, "standard input")
        # Non-blocking, as to open a pipe that nobody writes to would take until somebody does.
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123
            is_pipe = stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
            begun = _first_bytes(stream.fileno(), file) if is_pipe else b""
            os.set_blocking(stream.fileno(), True)
            return _bounded(stream, str(file), begun)
    except IsADirectoryError as error:
        raise IpsecctlError(f"{file} is a directory", "name the topology file in it") from error
    except OSError as error:
        hint = (
            "'ipsecctl init FILE' writes a commented starter" if isinstance(error, FileNotFoundError) else ""
        )
        raise IpsecctlError(f"cannot read {file}: {error.strerror}", hint) from error


def _bounded(stream: IO[bytes], name: str, begun: bytes = b"") -> bytes:
    content = begun + stream.read(MAX_BYTES + 1 - len(begun))
    if len(content) > MAX_BYTES:
        raise IpsecctlError(
            f"{name} has more than {MAX_BYTES >> 20} MiB: that is no topology", "name the topology file"
        )
    return content


def _first_bytes(pipe: int, file: Path) -> bytes:
    """Return what a pipe has, non-blocking; raise when after a moment nobody has it open for writing."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if poll.poll(_WRITER_S * 1000):  # bytes, or the end that a writer has left behind
        return b""
    try:
        begun = os.read(pipe, _PIPE_BYTES)
    except BlockingIOError:  # a writer that says nothing yet
        return b""
    if not begun:
        raise IpsecctlError(f"{file} is a pipe that nobody writes to", "name the topology file")
    return begun


def write_text(file: Path, text: str, *, replace: bool, mode: int = 0o666) -> None:
    """Write a file as a whole: a new one, or with ``replace`` also in the place of one that is there.

    What is there and is no plain file (a terminal, ``/dev/full``) is written to, not replaced; of a symbolic
    link the file that it leads to is replaced. ``mode`` is that of what is put in place, less the umask.
    Raises ``IpsecctlError``.
    """
    try:
        if not replace:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(text)
        elif file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
        else:
            _replace(Path(os.path.realpath(file)), text, mode)
    except FileExistsError as error:
        if file.is_dir():
            raise _directory(file) from error
        raise IpsecctlError(f"{file} is there already", "choose another name, or use --force") from error
    except IsADirectoryError as error:
        raise _directory(file) from error
    except OSError as error:
        raise IpsecctlError(f"cannot write {file}: {error.strerror}") from error


def _replace(file: Path, text: str, mode: int) -> None:
    partial = file.with_name(f".ipsecctl-{os.getpid()}")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(mode, exist_ok=False)
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _directory(file: Path) -> IpsecctlError:
    return IpsecctlError(f"{file} is a directory", "name the file to write")

"""A folder for what can be worked out again; nothing is trusted that others can write.

Nothing here raises: what cannot be read is not there, and what cannot be written is left.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["Cache", "cache_dir"]

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_MOST_FILES: Final = 32
_MOST_BYTES: Final = 64 << 20


def cache_dir(environment: Mapping[str, str]) -> Path | None:
    """Return the XDG Base Directory for what can be made again, of ours; ``None`` where there is no place."""
    said, home = environment.get("XDG_CACHE_HOME", ""), environment.get("HOME", "")
    if os.path.isabs(said):  # noqa: PTH117 - an empty text is no path
        return Path(said) / "ipsecctl"
    return Path(home) / ".cache/ipsecctl" if os.path.isabs(home) else None  # noqa: PTH117


class Cache:
    """The files of a folder, by key: 64 hexadecimal digits. ``None`` for the folder is a cache of nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, key: str) -> bytes | None:
        """Return what was written under a key, ``None`` where nothing is there that we alone can have."""
        if self._folder is None or not _KEY.fullmatch(key) or not _ours_alone(self._folder):
            return None
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(self._folder / key, flags), "rb") as file:  # noqa: PTH123
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or not _private(status):
                    return None
                content = file.read(_MOST_BYTES + 1)
                return content if len(content) <= _MOST_BYTES else None
        return None

    def write(self, key: str, content: bytes) -> None:
        """Put a file in place as a whole, for its owner alone; of many files the oldest go."""
        if self._folder is None or not _KEY.fullmatch(key) or len(content) > _MOST_BYTES:
            return
        with suppress(OSError):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(0o700, exist_ok=True)
            if not _ours_alone(self._folder):
                return
            partial = self._folder / f".{secrets.token_hex(8)}"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                with open(os.open(partial, flags, 0o600), "wb") as file:  # noqa: PTH123
                    file.write(content)
                partial.replace(self._folder / key)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            self._let_go(self._folder)

    def _let_go(self, folder: Path) -> None:
        files = [(path.lstat().st_mtime_ns, path) for path in folder.iterdir()]
        for _, path in sorted(files, reverse=True)[_MOST_FILES:]:
            path.unlink(missing_ok=True)


def _ours_alone(folder: Path) -> bool:
    """Whether nobody else (but root) can put something into a folder or take something out."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _private(status)


def _private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077

"""A secret in an editor: the text is on no disk, and nobody else can read it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets.secret import Secret

__all__ = ["edited"]

_TMPFS: Final = Path("/dev/shm")  # noqa: S108 - a folder of mode 0700 is made in it
_MOUNTS: Final = Path("/proc/mounts")


def edited(content: Secret, name: str) -> Secret:
    """Return a secret as the user leaves it in $VISUAL, $EDITOR or vi.

    ``name`` is what the file is called there. It lies, mode 0600, in a folder of mode 0700 on a tmpfs, with
    all that the editor writes beside it, and the folder is removed whatever happens. Raises
    ``SecretUnavailable`` when there is no tmpfs, or the editor fails: then nothing is changed.
    """
    if not _is_tmpfs(_TMPFS):
        hint = "mount a tmpfs there, or use 'age -d' and 'age -R .age-recipients' yourself"
        raise SecretUnavailable(f"no tmpfs at {_TMPFS} for the text to lie in", hint)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    folder = Path(tempfile.mkdtemp(prefix="ipsecctl-", dir=_TMPFS))
    try:
        file = folder / (name or "secret")
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:  # noqa: PTH123
            opened.write(bytes(content))
        try:
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "quotes without an end"
            raise SecretUnavailable(f"cannot run the editor {editor!r}: {reason}", "set EDITOR") from None
        if done.returncode != 0:
            raise SecretUnavailable(
                f"the editor {editor!r} ended with status {done.returncode}: nothing is changed",
                "save and leave it in the ordinary way",
            )
        try:
            return Secret(file.read_bytes())
        except OSError as error:
            raise SecretUnavailable(
                f"the editor left no file: {error.strerror}", "nothing is changed"
            ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_tmpfs(path: Path) -> bool:
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    return any(fields[1:3] == [str(path), "tmpfs"] for fields in mounts)

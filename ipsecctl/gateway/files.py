"""Write and remove files on a gateway: each is old or new at any moment, and secrets are never shown."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway.handle import Handle
from ipsecctl.gateway.names import STATE_DIR
from ipsecctl.patience import PATIENCE

__all__ = ["NewFile", "write_files"]


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to be: absolute path, content, and permission bits."""

    path: str
    content: bytes
    mode: int


class _TakesFiles(Protocol):
    """A handle that has a way of its own for files."""

    async def stage(self, content: bytes, *, timeout_s: float) -> str | None:
        """Put bytes into a file that only root can read; return its path, ``None`` if that does not work."""


# The tar archive (on standard input, or a file of its own) has the contents under numbers; the lines of its
# member "names" say where each belongs. Everything is unpacked below our own directory, closed to others;
# what counts is the rename within the target's directory.
_INSTALL = r"""
set -eu
umask 077
mkdir -p "$1"
stage=$(mktemp -d "$1/.stage-XXXXXX")
trap 'rm -rf "$stage"; [ "$2" = - ] || rm -f "$2"' EXIT
# What somebody left who was killed in the middle.
find "$1" -maxdepth 1 -name '.stage-*' -mtime +0 -exec rm -rf {} +
tar -xf "$2" -C "$stage" --no-same-owner
make_dir() { [ -d "$1" ] || { make_dir "$(dirname "$1")"; mkdir "$1"; chmod 755 "$1"; }; }
while read -r number mode path; do
    dir=$(dirname "$path"); new="$dir/.$(basename "$path").ipsecctl-new"
    [ "$dir" = "$1" ] || make_dir "$dir"
    rm -f "$new"
    cp "$stage/$number" "$new"
    chmod "$mode" "$new"
    sync "$new"
    mv -f "$new" "$path"
    sync "$dir"
done <"$stage/names"
while read -r path; do
    [ -e "$path" ] || continue
    rm -f "$path"
    sync "$(dirname "$path")"
done <"$stage/removed"
"""


async def write_files(
    handle: Handle,
    files: Sequence[NewFile],
    removed: Iterable[str] = (),
    *,
    timeout_s: float = 30.0 * PATIENCE,
) -> None:
    """Write files in their order, then remove others, with one command there.

    A file is written beside its place, owner-only until it has its own mode, forced to the disk, and renamed;
    the directory is forced to the disk, too.
    Directories that are missing are made with mode 0755. Raises ``ApplyFailed`` with the gateway's own words;
    files before the one that failed are then in place.
    """
    removed = tuple(removed)
    if not files and not removed:
        return
    archive = _archive(files, removed)
    place = await handle.stage(archive, timeout_s=timeout_s) if _takes_files(handle) else None
    argv = ("sh", "-c", _INSTALL, "install", STATE_DIR, place or "-")
    completed = await handle.run(argv, b"" if place else archive, timeout_s=timeout_s)
    if completed.status != 0:
        raise ApplyFailed(
            f"{handle.name}: files cannot be written: {completed.error}",
            "Is the disk full, or the file system mounted read-only?",
        )


def _takes_files(handle: object) -> TypeGuard[_TakesFiles]:
    return hasattr(handle, "stage")


def _archive(files: Sequence[NewFile], removed: Sequence[str]) -> bytes:
    names = "".join(f"{number} {file.mode:o} {file.path}\n" for number, file in enumerate(files))
    members = {str(number): file.content for number, file in enumerate(files)}
    members |= {"names": names.encode(), "removed": "".join(f"{path}\n" for path in removed).encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o600
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()

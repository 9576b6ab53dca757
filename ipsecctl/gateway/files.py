"""Write and remove files on a gateway: each is old or new at any moment, and secrets are never shown."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway.handle import Completed, Handle
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


_REMEDIES = {
    "No space left on device": "Its disk is full: make room there, then apply again.",
    "Disk quota exceeded": "Root's quota there is used up: make room, then apply again.",
    "Read-only file system": "It is mounted read-only there: see the kernel's log for a fault of the disk, "
    "mount it writable, then apply again.",
}

# The tar archive (on standard input, or a file of its own) has the contents under numbers; the lines of its
# member "names" say where each belongs. Everything is unpacked below our own directory, closed to others;
# what counts is the rename within the target's directory. Commands are few: each costs a slow gateway dearly.
_INSTALL = r"""
set -eu
umask 077
state=$1 archive=$2
mkdir -p "$state"
stage=$(mktemp -d "$state/.stage-XXXXXX")
beside() { new="${path%/*}/.${path##*/}.ipsecctl-new"; }
leave() { # nothing of what did not come to its place
    [ "$1" = 0 ] || [ ! -f "$stage/names" ] ||
        while read -r number path; do beside; rm -f "$new"; done <"$stage/names"
    rm -rf "$stage"
    [ "$archive" = - ] || rm -f "$archive"
}
trap 'leave $?' EXIT
# What somebody left who was killed in the middle.
find "$state" -maxdepth 1 -name '.stage-*' -mtime +0 -exec rm -rf {} +
tar -xpf "$archive" -C "$stage" --no-same-owner
make_dir() { [ -d "${1:-/}" ] || { make_dir "${1%/*}"; mkdir "$1"; chmod 755 "$1"; }; }
set --
while read -r number path; do
    beside
    [ "${path%/*}" = "$state" ] || make_dir "${path%/*}"
    cp --remove-destination --preserve=mode "$stage/$number" "$new"
    set -- "$@" "$new"
done <"$stage/names"
[ $# = 0 ] || sync "$@"
set --
while read -r number path; do
    beside
    mv -fT "$new" "$path"
    [ "$number" != 0 ] || sync "${path%/*}/" # the rest may be on the disk only after the first
    set -- "$@" "${path%/*}/"
done <"$stage/names"
[ $# = 0 ] || sync "$@"
while read -r path; do
    [ -e "$path" ] || continue
    rm -f "$path"
    sync "${path%/*}/"
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

    All are written beside their places, owner-only until they have their own mode, and forced to the disk;
    then they are renamed, and the others after the first only when its renaming is on the disk, too.
    Directories that are missing are made with mode 0755. Raises ``ApplyFailed`` with the gateway's own words;
    files before the one that failed to be renamed are then in place.
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
            f"{handle.name}: files cannot be written: {_cause(completed)}", _remedy(_cause(completed))
        )


def _cause(completed: Completed) -> str:
    """Return the line that names the cause; tar's last one only says that there was one."""
    lines = completed.stderr.decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in lines if any(sign in line for sign in _REMEDIES)), completed.error)


def _remedy(cause: str) -> str:
    known = (remedy for sign, remedy in _REMEDIES.items() if sign in cause)
    return next(known, "Is the disk full, or the file system mounted read-only?")


def _takes_files(handle: object) -> TypeGuard[_TakesFiles]:
    return hasattr(handle, "stage")


def _archive(files: Sequence[NewFile], removed: Sequence[str]) -> bytes:
    names = "".join(f"{number} {file.path}\n" for number, file in enumerate(files))
    members = {str(number): (file.content, file.mode) for number, file in enumerate(files)}
    members["names"] = names.encode(), 0o600
    members["removed"] = "".join(f"{path}\n" for path in removed).encode(), 0o600
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()

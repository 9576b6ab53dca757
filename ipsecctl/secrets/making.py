"""Making PSKs, and putting them where a topology refers to them."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets.reading import examine, read, replaceable
from ipsecctl.secrets.secret import Secret

if TYPE_CHECKING:
    from ipsecctl.topology import SecretRef, Topology, Tunnel

__all__ = ["generate_psk", "write_missing"]

_PSK_BYTES: Final = 32


def generate_psk() -> str:
    """Return a new PSK of 256 random bits in base64url (43 characters, RFC 4648 section 5).

    It never begins with ``0x`` or ``0s``, which swanctl would decode.
    """
    while True:
        psk = secrets.token_urlsafe(_PSK_BYTES)
        if psk[:2].lower() not in {"0x", "0s"}:
            return psk


def write_missing(topology: Topology, base: Path) -> tuple[Path, ...]:
    """Create every PSK and PPK file that a topology refers to and that is not there; return their paths.

    Paths are sorted, and relative to ``base``, the directory of the topology file. Files get mode 0600 and
    are complete from the moment they are there; directories that have to be made get 0700. What is there is
    never overwritten or written through, be it a link that leads nowhere; what is in the way of a PSK is told
    by ``unusable_psks``, and the other end of its tunnel gets none. Where the two ends of a tunnel refer to
    different places, both get the same PSK.

    Raises ``SecretUnavailable`` when a file cannot be written, when anybody could replace it where it would
    lie, or when the other end's PSK is there and unusable.
    """
    written: list[Path] = []
    for refs in (refs for tunnel in topology.tunnels for refs in (_psks(tunnel), _ppks(tunnel)) if refs):
        files = [(ref, examine(ref, base)) for ref in refs if ref.kind.value == "file"]
        missing = [ref for ref, found in files if any(problem.is_missing for problem in found.problems)]
        blocked = any(found.secret is None and ref not in missing for ref, found in files)
        if not missing or blocked:
            continue
        for ref in missing:
            # Where 'validate' would refuse it, none is made.
            for problem in replaceable(base / ref.value, str(ref)):
                raise problem
        there = next((ref for ref in refs if ref not in missing), None)
        psk = Secret(generate_psk().encode()) if there is None else read(there, base)
        for ref in missing:
            if _write_new(base / ref.value, psk):
                written.append(base / ref.value)
    return tuple(sorted(written))


def _psks(tunnel: Tunnel) -> tuple[SecretRef, ...]:
    """Return the references to the PSK of a tunnel: one, or two when its ends keep it in different places."""
    both = (tunnel.left.credential.psk, tunnel.right.credential.psk)
    return tuple(dict.fromkeys(ref for ref in both if ref is not None))


def _ppks(tunnel: Tunnel) -> tuple[SecretRef, ...]:
    """Return the reference to the PPK of a tunnel, if it has one: 256 bits, too (RFC 8784 section 6)."""
    return () if tunnel.ppk is None else (tunnel.ppk.secret,)


def _write_new(path: Path, secret: Secret) -> bool:
    """Write a file of mode 0600 in one step; return whether it was new."""
    try:
        _make_directories(path.parent)
        # mkstemp gives mode 0600.
        handle, temporary = tempfile.mkstemp(prefix=".ipsecctl-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(bytes(secret) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            return _link(temporary, path)
        finally:
            Path(temporary).unlink()
    except OSError as error:
        hint = "give the directory to the user who runs ipsecctl"
        raise SecretUnavailable(f"cannot write {path}: {error.strerror}", hint) from error


def _link(temporary: str, path: Path) -> bool:
    """Give the finished file its name, unless that is taken; return whether it was free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _make_directories(path: Path) -> None:
    if not path.is_dir():
        _make_directories(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)

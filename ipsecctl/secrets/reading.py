"""Resolving references to secrets: files of their owner alone, the environment, age, Vault, commands.

A PSK loses the line end that editors put behind it, and nothing else. What begins like a private key (PEM or
DER) is returned as it is.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import stat
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets.problem import NO_FILE, SecretProblem
from ipsecctl.secrets.secret import Secret
from ipsecctl.secrets.strength import WEAK_BITS, guess_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ipsecctl.secrets.vault import Vault
    from ipsecctl.topology import SecretRef, VaultServer

__all__ = [
    "IDENTITY_VARIABLE",
    "Examined",
    "SecretProblem",
    "age_identities",
    "age_recipients",
    "examine",
    "examine_all",
    "opened",
    "read",
    "read_all",
    "replaceable",
]

IDENTITY_VARIABLE: Final = "IPSECCTL_AGE_IDENTITY"
"""Environment variable with the path of the age identity file."""

SIDE_BY_SIDE: Final = 8
"""How many references are resolved at a time for which something is asked or run."""

_DEFAULT_IDENTITY: Final = "~/.config/ipsecctl/age-identity.txt"
_PLAIN_FILE: Final = "a secret lies in a plain file"
_MAX_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 1 << 14
# What a source gives: the bytes, and what is wrong with the way in which they are kept.
_Content: TypeAlias = "tuple[bytes, tuple[SecretProblem, ...]]"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of looking at a reference: the secret, if there is one, and what is wrong with it.

    A secret with problems is for looking at only: ``read`` does not give it out.
    """

    secret: Secret | None
    problems: tuple[SecretProblem, ...] = ()


def read(ref: SecretRef, base: Path) -> Secret:
    """Resolve a reference; paths are relative to ``base``, the directory of the topology file.

    Raises ``SecretUnavailable`` when it is not there, when others can read the file, when it cannot be
    decrypted, when Vault or a command does not give it, or when charon would not get what stands there
    (empty, control characters, a ``0x`` or ``0s`` prefix).
    """
    return _usable(examine(ref, base))


def read_all(refs: Iterable[SecretRef], base: Path) -> dict[SecretRef, Secret]:
    """Resolve references, each once, those that something is asked or run for side by side.

    Raises ``SecretUnavailable`` as ``read``, for the first by name, with how many more there are; and for a
    PSK of Vault or of a command that can be guessed, as nobody looked at that one before.
    """
    examined = {ref: _with_strength(ref, found) for ref, found in examine_all(refs, base).items()}
    wrong = list(dict.fromkeys(str(found.problems[0]) for found in examined.values() if found.problems))
    if len(wrong) > 1:
        first = next(found.problems[0] for found in examined.values() if found.problems)
        more = f"{first.summary}; and {len(wrong) - 1} more: {wrong[1]}{', ...' if len(wrong) > 2 else ''}"
        raise SecretUnavailable(more, first.hint) from first
    return {ref: _usable(found) for ref, found in examined.items()}


def _with_strength(ref: SecretRef, found: Examined) -> Examined:
    if not ref.is_remote or found.secret is None or found.problems or _is_private_key(bytes(found.secret)):
        return found
    bits = guess_bits(bytes(found.secret).decode())
    if bits >= WEAK_BITS:
        return found
    hint = "make one with 'ipsecctl secret generate', and give it to both ends"
    problem = SecretProblem("IP310", "PSK that can be guessed", f"{ref} (about {bits} bits)", hint)
    return Examined(found.secret, (problem,))


def _usable(examined: Examined) -> Secret:
    if examined.problems or examined.secret is None:
        raise examined.problems[0]
    return examined.secret


def examine(ref: SecretRef, base: Path) -> Examined:
    """Resolve a reference and find everything that is wrong, not only the first thing. Raises nothing."""
    return examine_all((ref,), base)[ref]


def examine_all(refs: Iterable[SecretRef], base: Path) -> dict[SecretRef, Examined]:
    """Return what came of each reference, sorted by it: as ``examine``, and side by side as ``read_all``."""
    wanted = sorted(set(refs))
    session = _Session(base)
    remote = [ref for ref in wanted if ref.is_remote]
    found: dict[SecretRef, Examined] = {}
    if len(remote) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(remote))) as pool:
            found = dict(zip(remote, pool.map(session.examine, remote), strict=True))
    return {ref: found[ref] if ref in found else session.examine(ref) for ref in wanted}


class _Session:
    """Resolves references for one purpose: a Vault is reached once, whoever refers to it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._lock = threading.Lock()
        self._vaults: dict[VaultServer | None, Vault | SecretProblem] = {}

    def examine(self, ref: SecretRef) -> Examined:
        try:
            content, problems = self._content(ref)
        except SecretProblem as problem:
            return Examined(None, (problem,))
        if _is_private_key(content):
            return Examined(Secret(content), problems)
        psk, more = _psk(ref, content)
        return Examined(psk, (*problems, *more))

    def _content(self, ref: SecretRef) -> _Content:
        kind = ref.kind.value
        if kind == "vault":
            return self._vault(ref).field_of(ref), ()
        if kind == "command":
            from ipsecctl.secrets.commands import output_of

            return output_of(ref.value, self._base), ()
        return _SOURCES[kind](ref, self._base)

    def _vault(self, ref: SecretRef) -> Vault:
        from ipsecctl.secrets.vault import reached

        with self._lock:
            if ref.server not in self._vaults:
                try:
                    self._vaults[ref.server] = reached(ref, self._base, read)
                except SecretProblem as problem:
                    self._vaults[ref.server] = problem
            found = self._vaults[ref.server]
        if isinstance(found, SecretProblem):
            raise found
        return found


def _from_file(ref: SecretRef, base: Path) -> _Content:
    return _read_file(base / ref.value, str(ref), private=True)


def _from_environment(ref: SecretRef, base: Path) -> _Content:  # noqa: ARG001 - one signature for all sources
    value = os.environb.get(os.fsencode(ref.value))
    if value is None:
        hint = "export it before you call ipsecctl"
        raise SecretProblem("IP301", "environment variable not set", ref.value, hint)
    return value, ()


def _from_age(ref: SecretRef, base: Path) -> _Content:
    return opened(base / ref.value, str(ref)), ()


def opened(path: Path, ref: str = "") -> bytes:
    """Return what an age file holds; ``ref`` is its name in messages. Raises ``SecretProblem``."""
    pyrage, ref = _pyrage(), ref or str(path)
    sealed, _ = _read_file(path, ref, private=False)
    try:
        return bytes(pyrage.decrypt(sealed, age_identities(ref)))
    except pyrage.DecryptError as error:
        hint = f"encrypt it to the identity in {_identity_path()} ({IDENTITY_VARIABLE} names another)"
        raise SecretProblem("IP304", "cannot be decrypted", f"{ref} ({error})", hint) from error


_SOURCES: Final = {"file": _from_file, "env": _from_environment, "age": _from_age}


def _pyrage() -> Any:
    """Return pyrage, which is compiled and has no types; imported for those who use age only."""
    return importlib.import_module("pyrage")


def _identity_path() -> Path:
    return Path(os.environ.get(IDENTITY_VARIABLE) or _DEFAULT_IDENTITY).expanduser()


def age_identities(ref: str) -> list[Any]:
    """Return the age identities of this user, age's own or an SSH key; ``ref`` is what they are for."""
    pyrage = _pyrage()
    path = _identity_path()
    try:
        content = _read_private(path, str(path))
        if content.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = (line.strip() for line in content.decode("ascii").splitlines())
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except SecretProblem as problem:
        hint = f"name your age identity file in {IDENTITY_VARIABLE}, readable by you alone"
        raise SecretProblem(
            "IP304", "no age identity to decrypt with", f"{ref}; {problem}", hint
        ) from problem
    except (pyrage.IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        hint = "it should hold a line AGE-SECRET-KEY-1... as 'age-keygen' writes it, or an SSH private key"
        # The cause is left out: it could quote the identity.
        raise SecretProblem("IP304", "not an age identity file", f"{path}, for {ref}", hint) from None
    return found


def age_recipients() -> tuple[str, ...]:
    """Return the recipients that this user's age identities open: what is encrypted to them, he can read.

    Raises ``SecretProblem`` where there are none, and for an SSH key, whose public half is in another file.
    """
    found = age_identities("a recipient")
    try:
        return tuple(str(identity.to_public()) for identity in found)
    except AttributeError:
        hint = "name it with --recipient: the line in the .pub file beside the key"
        raise SecretProblem("IP304", "the age identity is an SSH key", str(_identity_path()), hint) from None


def _read_private(path: Path, name: str) -> bytes:
    content, problems = _read_file(path, name, private=True)
    if problems:
        raise problems[0]
    return content


def _read_file(path: Path, name: str, *, private: bool) -> _Content:
    """Read a regular file; when ``private``, with what is wrong unless it is its owner's alone."""
    try:
        # Non-blocking: opening a pipe that nobody writes to must not hang.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SecretProblem("IP303", "not a regular file", name, _PLAIN_FILE)
            content = file.read(_MOST_BYTES)  # room for all that may be would cost more than all else
            if len(content) == _MOST_BYTES:
                content += file.read(_MAX_BYTES + 1 - _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise _not_there(path, name) from None
    except IsADirectoryError:
        raise SecretProblem("IP303", "a directory, not a file", name, "name the file that holds it") from None
    except OSError as error:
        raise _not_read(error, name) from None
    if len(content) > _MAX_BYTES:
        raise SecretProblem("IP303", "too large for a secret", name, "it has more than 1 MiB")
    return content, (*_sharings(status, name), *replaceable(path, name)) if private else ()


def _not_read(error: OSError, name: str) -> SecretProblem:
    """Return what keeps something that is there from being read."""
    if error.errno == errno.ENXIO:  # so a socket answers
        return SecretProblem("IP303", "not a regular file", name, _PLAIN_FILE)
    if error.errno == errno.ELOOP:
        hint = "remove one of them, and name the file itself"
        return SecretProblem("IP303", "links that lead in a circle", name, hint)
    refused = error.errno in (errno.EACCES, errno.EPERM)
    hint = "give it to the user who runs ipsecctl" if refused else _PLAIN_FILE
    return SecretProblem("IP302", "cannot be read", f"{name} ({error.strerror})", hint)


def _not_there(path: Path, name: str) -> SecretProblem:
    """Return why there is no file: nothing has its name, or something is in the way."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            subject = f"{name} ({place} -> {place.readlink()})"
            hint = "make what it leads to (mounted, decrypted?), or remove the link"
            return SecretProblem("IP301", "a link that leads nowhere", subject, hint)
        if place != path and place.exists():
            if not place.is_dir():
                hint = "name another place, or move that away"
                return SecretProblem("IP301", "below what is no directory", f"{name} ({place})", hint)
            break
    return SecretProblem("IP301", NO_FILE, name, "put it there; paths are relative to the topology file")


def _sharings(status: os.stat_result, name: str) -> Iterator[SecretProblem]:
    """Yield why a file is not its owner's alone."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        hint = "chmod 600 on it, and change the secret if others may have read it"
        yield SecretProblem("IP302", "readable or writable by others", f"{name} (mode {mode:04o})", hint)
    if status.st_uid not in _trusted_owners():
        hint = "it must belong to you or to root"
        yield SecretProblem("IP302", "belongs to another user", f"{name} (uid {status.st_uid})", hint)


def replaceable(path: Path, name: str) -> Iterator[SecretProblem]:
    """Yield in which directory another user may put something in the place of a file, or of a link to it.

    All directories up to the root count, as OpenSSH has it (``safe_path`` in its misc.c): who may rename one
    of them replaces all that is in it. In one with the sticky bit, as /tmp, only the owner of what is in it
    may, and the owner is looked at; OpenSSH refuses that, too, and what a group may write. Directories that
    are not there yet are passed over.
    """
    owners = _trusted_owners()
    for directory in _above(path):
        try:
            status = os.stat(directory)  # noqa: PTH116 - thousands of PSKs
        except OSError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            hint = "chmod o-w on the directory, and see whether the secret is still yours"
            subject = f"{name} ({directory}, mode {mode:04o})"
            yield SecretProblem("IP302", "in a directory in which anybody may replace it", subject, hint)
            return
        if status.st_uid not in owners:
            hint = "keep it where all directories above belong to you or to root"
            subject = f"{name} ({directory}, uid {status.st_uid})"
            what = "below a directory of another user, who may replace it"
            yield SecretProblem("IP302", what, subject, hint)
            return


def _above(path: Path) -> Iterator[str]:
    """Yield the directories above a file, and above what a link leads to, each once and the nearest first."""
    seen: set[str] = set()
    for start in _directories(os.path.abspath(path)):  # noqa: PTH100
        directory = start
        while directory not in seen:  # what is above one that was seen was seen, too
            seen.add(directory)
            yield directory
            directory = os.path.dirname(directory)  # noqa: PTH120


def _directories(file: str) -> tuple[str, str]:
    """Return the directory of a file as it is named, and that of what the name leads to, free of links."""
    named = os.path.dirname(file)  # noqa: PTH120
    try:
        if not os.path.islink(file):  # noqa: PTH114
            status = os.stat(named)  # noqa: PTH116
            return named, _resolved(named, status.st_dev, status.st_ino)
    except OSError:
        pass  # it is not there yet
    return named, os.path.dirname(os.path.realpath(file))  # noqa: PTH120


@lru_cache(maxsize=256)  # thousands of PSKs lie in one; device and inode tell it from another of its name
def _resolved(directory: str, _device: int, _inode: int) -> str:
    return os.path.realpath(directory)


def _trusted_owners() -> set[int]:
    """Return the user IDs that may own secrets: root, this user, and under sudo the user who called it."""
    owners = {0, os.geteuid()}
    caller = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isdecimal():
        owners.add(int(caller))
    return owners


def _is_private_key(content: bytes) -> bool:
    # DER: a SEQUENCE with a length of two bytes, which is no UTF-8 and so no PSK.
    return content.lstrip().startswith(b"-----BEGIN") or content.startswith(b"\x30\x82")


def _psk(ref: SecretRef, content: bytes) -> tuple[Secret | None, tuple[SecretProblem, ...]]:
    """Return a PSK without its line end, and why charon would not take it as it stands.

    What is not one line of text is no PSK at all.
    """
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None, (_unusable(ref, "not UTF-8", "write it in base64 or hexadecimal digits"),)
    if text.startswith("\ufeff"):
        hint = "it would be a part of the key: save the file as UTF-8 without it"
        return None, (_unusable(ref, "begins with a byte order mark", hint),)
    if not text:
        in_file = ref.kind.value != "env"
        hint = "write the secret into it, or remove it" if in_file else "export it with the secret in it"
        return None, (_unusable(ref, "empty", hint),)
    if _CONTROL.search(text):
        what = "holds line ends or other control characters"
        return None, (_unusable(ref, what, "put one PSK on one line"),)
    if text[:2].lower() in {"0x", "0s"}:
        hint = "swanctl would decode it, VICI would not: change the first character, at both ends"
        return Secret(content), (_unusable(ref, "begins with 0x or 0s", hint),)
    return Secret(content), ()


def _unusable(ref: SecretRef, what: str, hint: str) -> SecretProblem:
    return SecretProblem("IP303", what, str(ref), hint)

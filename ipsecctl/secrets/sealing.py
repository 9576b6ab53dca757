"""Files encrypted with age: read, changed and written anew to the same recipients, whole or not at all.

An age file does not name its X25519 recipients (age's format, "The X25519 recipient type": a stanza holds an
ephemeral share). So who may read the files of a folder stands in ``.age-recipients`` beside them, one a line,
as in passage's stores; ``age -R`` reads the same file.
"""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets.reading import age_identities, opened
from ipsecctl.secrets.secret import Secret

__all__ = ["RECIPIENTS", "add_recipient", "recipients_of", "seal", "unsealed"]

RECIPIENTS: Final = ".age-recipients"
_STANZA: Final = re.compile(
    rb"^-> (X25519|ssh-ed25519|ssh-rsa|scrypt|piv-p256|p256tag|mlkem768\S*) ", re.MULTILINE
)


def unsealed(path: Path) -> Secret:
    """Return what an age file holds. Raises ``SecretUnavailable`` when no identity of this user opens it."""
    return Secret(opened(path))


def recipients_of(path: Path) -> tuple[str, ...]:
    """Return to whom an age file is to be encrypted, there or not yet: sorted, at least one.

    They stand in ``.age-recipients`` beside it. Without that, it is this user alone; a file with more
    recipients than that is refused, as they would lose it. Raises ``SecretUnavailable``.
    """
    listed = path.parent / RECIPIENTS
    if listed.exists():
        lines = (line.strip() for line in _text(listed).splitlines())
        found = tuple(sorted({line for line in lines if line and not line.startswith("#")}))
        for line in found:
            _recipient(line)
        if not found:
            raise SecretUnavailable(
                f"nobody is named in {listed}", "write a recipient (age1...) a line into it"
            )
        return found
    own = _own_recipients(str(path))
    stanzas = len(_STANZA.findall(_header(path.read_bytes()))) if path.exists() else 0
    if stanzas > len(own):
        hint = f"write all of them, a line each, into {listed}: the file itself does not name them"
        raise SecretUnavailable(f"{path} has {stanzas} recipients, and only you are known", hint)
    return own


def seal(content: Secret, path: Path, recipients: Iterable[str]) -> None:
    """Encrypt a secret to recipients and put the file in its place in one step.

    Raises ``SecretUnavailable`` when that fails; then what was there is as it was.
    """
    pyrage = importlib.import_module("pyrage")
    sealed = pyrage.encrypt(bytes(content), [_recipient(line) for line in recipients])
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    _replace(path, bytes(sealed), mode)


def add_recipient(folder: Path, recipient: str) -> tuple[Path, ...]:
    """Let one more read the age files of a folder; return them, sorted. Done again, it completes the work.

    All are opened before anything is written. Raises ``SecretUnavailable`` when one cannot be opened, and
    nothing was changed, or cannot be written.
    """
    _recipient(recipient)
    files = tuple(sorted(path for path in folder.glob("*.age") if path.is_file()))
    if not files:
        raise SecretUnavailable(f"no age file in {folder}", "name a file that ends in .age, or its folder")
    known = {line for path in files for line in recipients_of(path)}
    contents = {path: unsealed(path) for path in files}
    after = tuple(sorted({*known, recipient}))
    _replace(
        folder / RECIPIENTS, "".join(f"{line}\n" for line in _with_comments(folder, after)).encode(), 0o644
    )
    for path, content in contents.items():
        seal(content, path, after)
    return files


def _with_comments(folder: Path, recipients: tuple[str, ...]) -> list[str]:
    """Return the lines of a folder's list: those that are there as they are, comments too, then the new."""
    listed = folder / RECIPIENTS
    there = _text(listed).splitlines() if listed.exists() else []
    named = {line.strip() for line in there}
    return [*there, *(line for line in recipients if line not in named)]


def _recipient(line: str) -> Any:
    pyrage = importlib.import_module("pyrage")
    try:
        if line.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(line)
        return pyrage.x25519.Recipient.from_str(line)
    except pyrage.RecipientError:
        shown = "a secret key" if line.upper().startswith("AGE-SECRET-KEY") else repr(line[:20])
        hint = "a recipient is age1..., as 'age-keygen -y' prints it, or ssh-ed25519 ..., or ssh-rsa ..."
        raise SecretUnavailable(f"not an age recipient: {shown}", hint) from None


def _own_recipients(name: str) -> tuple[str, ...]:
    own = [identity.to_public() for identity in age_identities(name) if hasattr(identity, "to_public")]
    if not own:
        hint = f"write the recipients into {RECIPIENTS} beside it, a line each"
        raise SecretUnavailable(f"an SSH key does not tell its recipient: {name}", hint)
    return tuple(sorted(map(str, own)))


def _header(sealed: bytes) -> bytes:
    return sealed.partition(b"\n--- ")[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SecretUnavailable(f"cannot read {path}: {reason}", "one recipient a line, as text") from None


def _replace(path: Path, content: bytes, mode: int) -> None:
    try:
        handle, temporary = tempfile.mkstemp(prefix=".ipsecctl-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        hint = "what was there is as it was; give the directory to the user who runs ipsecctl"
        raise SecretUnavailable(f"cannot write {path}: {error.strerror}", hint) from error

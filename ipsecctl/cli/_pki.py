"""What the commands of the CA share: its folder, its passphrase, tables, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipsecctl.cli._load import check_file
from ipsecctl.cli._view import paint, say
from ipsecctl.errors import PkiError, TopologyRefused

if TYPE_CHECKING:
    from datetime import timedelta

    from ipsecctl.pki.authority import Made, Passphrase
    from ipsecctl.pki.folder import Folder
    from ipsecctl.pki.keytypes import KeyType
    from ipsecctl.pki.ledger import Entry
    from ipsecctl.secrets import Secret
    from ipsecctl.topology import Topology

__all__ = [
    "CA",
    "PASSPHRASE_VARIABLE",
    "CaOption",
    "JsonOption",
    "KeyOption",
    "PassphraseOption",
    "RecipientOption",
    "folder_at",
    "key_type",
    "listed",
    "new_passphrase",
    "now",
    "passphrase",
    "print_table",
    "printed",
    "printed_list",
    "progress",
    "span",
    "tell",
    "topology_of",
    "write_out",
]

PASSPHRASE_VARIABLE = "IPSECCTL_CA_PASSPHRASE"  # noqa: S105 - where it is, not what
_FEW = 20

CaOption = Annotated[Path, typer.Option("--ca", envvar="IPSECCTL_CA", help="The CA's folder.", metavar="DIR")]
PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase",
        help="Where the CA's passphrase lies: file:PATH, env:NAME or age:PATH. "
        f"Else {PASSPHRASE_VARIABLE} has it, or it is asked for.",
        metavar="REF",
    ),
]
RecipientOption = Annotated[
    list[str] | None,
    typer.Option("--recipient", help="Encrypt to this age recipient (age1..., ssh-ed25519 ...); several."),
]
CA = Path("ca")
"""The CA's folder where none is named."""

KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="Kind of key: ecdsa-p256, ecdsa-p384, ed25519, ed448, rsa-3072 or rsa-4096.",
        metavar="KIND",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def folder_at(path: Path) -> Folder:
    """Return the CA's folder, which is looked at when it is first read."""
    from ipsecctl.pki.folder import Folder

    return Folder(path)


def passphrase(reference: str | None) -> Passphrase:
    """Return what gives the CA's passphrase: by reference, by the environment, or by asking, once."""
    known: list[Secret] = []

    def get(name: str) -> Secret:
        if not known:
            known.append(_given(reference) or _asked(f"Passphrase of {name}: "))
        return known[0]

    return get


def new_passphrase(reference: str | None) -> Secret:
    """Return the passphrase of a CA that is made; asked for twice."""
    given = _given(reference)
    if given is not None:
        return given
    first = _asked("New passphrase of the CA: ")
    if first != _asked("Once more: "):
        raise PkiError("the two passphrases differ", "nothing was made: try again")
    return first


def _given(reference: str | None) -> Secret | None:
    from ipsecctl.secrets import Secret, read
    from ipsecctl.topology import SecretKind, SecretRef

    if reference is None:
        given = os.environb.get(os.fsencode(PASSPHRASE_VARIABLE))
        return Secret(given) if given else None
    kind, colon, value = reference.partition(":")
    if not colon or not value or kind not in set(SecretKind):
        # What was given is not repeated: it may be the passphrase.
        raise typer.BadParameter("file:PATH, env:NAME or age:PATH is wanted", param_hint="--passphrase")
    return read(SecretRef(SecretKind(kind), value), Path())


def _asked(prompt: str) -> Secret:
    from ipsecctl.secrets import Secret

    if not sys.stdin.isatty():
        hint = f"--passphrase file:PATH, or {PASSPHRASE_VARIABLE}; there is nobody here to be asked"
        raise PkiError("the CA's passphrase is wanted", hint)
    import getpass

    return Secret(getpass.getpass(prompt, stream=sys.stderr).encode())


def key_type(text: str | None) -> KeyType | None:
    """Return the kind of key that a word names."""
    from ipsecctl.pki.keytypes import spelled

    return None if text is None else spelled(text)


def span(text: str | None) -> timedelta | None:
    """Return a span of time as ``30d``."""
    from ipsecctl.pki.due import duration

    return None if text is None else duration(text)


def tell(made: Made) -> None:
    """Say what was mended, and what was left as it is."""
    for sentence in made.mended:
        say(sentence)


@contextmanager
def progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many are done, where there are many; yields what is to be told."""
    if not sys.stderr.isatty() or (total is not None and total < _FEW):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("certificates"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as it is; nothing is shortened."""
    widths = [max(len(row[n]) for row in (headings, *rows)) for n in range(len(headings))]
    line = "  ".join(text.ljust(width) for text, width in zip(headings, widths, strict=True)).rstrip()
    print(paint(line, "bold", sys.stdout))
    for row in rows:
        print("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip())


def write_out(out: Path | None, content: bytes, *, secret: bool = False, force: bool = False) -> None:
    """Write bytes to a file, whole, or to standard output; what is there is kept unless ``force``."""
    from ipsecctl.pki.folder import sync, write_whole

    if out is None or str(out) == "-":
        if secret and sys.stdout.isatty():
            raise PkiError("a private key is not shown on a terminal", "name a file: --out FILE")
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    if not force and (out.exists() or out.is_symlink()):
        raise PkiError(f"{out} is there already", "name another file, or use --force")
    write_whole(out, content, 0o600 if secret else 0o644)
    sync([out])


def listed(names: Sequence[str], limit: int = 5) -> str:
    """Return the first few of many names."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def printed(document: dict[str, Any], *, as_json: bool) -> bool:
    """Print a document if JSON is wanted; return whether it was."""
    if as_json:
        from ipsecctl.cli._view import print_json

        print_json(document)
    return as_json


def now() -> datetime:
    return datetime.now(UTC)


def topology_of(file: Path) -> Topology:
    """Read a topology without looking at its secrets: some are to be made."""
    loaded, diagnostics = check_file(file, secrets=False)
    if loaded.topology is None:
        raise TopologyRefused(diagnostics)
    return loaded.topology


def printed_list(ca: Path, entries: list[Entry], *, json: bool) -> bool:
    """Print entries as JSON or as a table; return whether it was JSON."""
    from ipsecctl.pki.document import list_json, states

    at, ledger = now(), folder_at(ca).ledger()
    if printed(list_json(str(ca), ledger, entries, at), as_json=json):
        return True
    known = states(ledger, at)
    rows = [
        (
            entry.serial_text[:8],
            entry.name,
            known[entry.serial].value,
            entry.key_type,
            f"{entry.certificate.not_valid_after_utc:%Y-%m-%d}",
            f"{(entry.certificate.not_valid_after_utc - at).days} d",
            entry.places.certificate,
        )
        for entry in entries
    ]
    print_table(("serial", "name", "state", "key", "until", "left", "file"), rows)
    return False

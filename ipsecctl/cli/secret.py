"""``ipsecctl secret``: make, list and keep pre-shared keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._load import base_dir, check_file, errors_as_json
from ipsecctl.cli._view import print_diagnostics, print_json, say
from ipsecctl.errors import Severity, TopologyRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipsecctl.secrets.listing import Listed
    from ipsecctl.topology import Topology
    from ipsecctl.topology.model import Path as DocumentPath

__all__ = ["app"]

_TUNNELS_SHOWN = 3

app = command_app(
    no_args_is_help=True,
)


@app.callback()
def group() -> None:
    """Make strong pre-shared keys, list what there is, and keep age-encrypted ones.

    \b
    Examples:
      ipsecctl secret generate topologies/clinic-dc.yaml
      ipsecctl secret list clinics.yaml
      ipsecctl secret edit secrets/partner.age
      ipsecctl secret add-recipient age1... secrets
    """


@app.command("list")
def list_all(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A topology.")],
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Ask Vault and run commands for those that lie there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the secrets that a topology refers to: what for, fingerprint, strength, tunnels; never the text.

    Fingerprints are keyed with a key of this user's (in the state directory): equal secrets have equal ones
    here, and nobody who sees them can try guesses. Exit status: 1 when one cannot be had or used.

    \b
    Examples:
      ipsecctl secret list clinics.yaml
      ipsecctl secret list --resolve --json clinics.yaml
    """
    import os

    from ipsecctl.secrets.listing import fingerprint_key, list_secrets
    from ipsecctl.store import state_dir

    with errors_as_json(file, wanted=as_json):
        topology, _ = _topology(file)
        key = fingerprint_key(state_dir(os.environ, root=os.geteuid() == 0) / "fingerprint.key")
        listed = list_secrets(topology, base_dir(topology), key, resolve=resolve)
    if as_json:
        print_json({"schema": "ipsecctl/secrets/1", "secrets": [each.as_json() for each in listed]})
    for each in () if as_json else listed:
        typer.echo(_line(each))
    if any(each.problem for each in listed):
        raise typer.Exit(1)


def _line(listed: Listed) -> str:
    found = listed.problem or f"fingerprint {listed.fingerprint}"
    found = found if listed.asked else "not looked at (--resolve)"
    bits = "" if listed.bits is None else f", about {listed.bits} bits"
    names = ", ".join(listed.tunnels[:_TUNNELS_SHOWN])
    rest = len(listed.tunnels) - _TUNNELS_SHOWN
    names += f" and {rest} more" if rest > 0 else ""
    return f"{listed.use} {listed.reference}: {found}{bits}; used by {names}"


@app.command()
def edit(
    file: Annotated[Path, typer.Argument(metavar="AGE_FILE", help="A file encrypted with age.")],
) -> None:
    """Edit an age-encrypted file with $VISUAL or $EDITOR, or make a new one.

    It is decrypted into memory (a file of mode 0600 on a tmpfs, removed afterwards), and encrypted anew to
    the recipients in .age-recipients beside it, without that to you alone. What was there is replaced in one
    step.

    \b
    Examples:
      ipsecctl secret edit secrets/partner.age
    """
    from ipsecctl.secrets.editing import edited
    from ipsecctl.secrets.sealing import recipients_of, seal, unsealed
    from ipsecctl.secrets.secret import Secret

    recipients = recipients_of(file)
    before = unsealed(file) if file.exists() else Secret(b"")
    after = edited(before, file.name.removesuffix(".age"))
    if after == before:
        say("nothing changed")
        return
    seal(after, file, recipients)
    say(f"{file}: encrypted to {len(recipients)} recipient{'s' if len(recipients) > 1 else ''}")


@app.command("add-recipient")
def add_one(
    recipient: Annotated[str, typer.Argument(metavar="RECIPIENT", help="age1..., or an SSH public key.")],
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of .age files, or one of them.")],
) -> None:
    """Let one more person or machine read the age-encrypted files of a folder.

    All .age files there are opened with your identity, and encrypted anew to all in .age-recipients, which is
    made where it is not there. When one cannot be opened, nothing is changed.

    \b
    Examples:
      ipsecctl secret add-recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p secrets
    """
    from ipsecctl.secrets.sealing import RECIPIENTS, add_recipient

    folder = place if place.is_dir() else place.parent
    for path in add_recipient(folder, recipient.strip()):
        typer.echo(path)
    say(f"{folder / RECIPIENTS} names who can read them")


@app.command()
def generate(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A topology: make the PSK and PPK files that it misses."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make pre-shared keys of 256 random bits.

    Without FILE one is printed. With FILE, every 'file:' PSK and PPK that the topology refers to and that is
    not there is written, readable by you alone; none is shown, and none that is there is overwritten.
    Exit status: 1 also where something else stands in the place of a PSK (a directory, a pipe, a link that
    leads nowhere), or a PSK that is there cannot be read.

    \b
    Examples:
      ipsecctl secret generate
      ipsecctl secret generate topologies/clinic-dc.yaml
    """
    from ipsecctl.secrets import generate_psk, unusable_psks, write_missing

    if file is None:
        psk = generate_psk()
        if as_json:
            print_json({"schema": "ipsecctl/secret/1", "psk": psk})
        else:
            typer.echo(psk)
        return
    with errors_as_json(file, wanted=as_json):
        topology, locate = _topology(file)
        written = [str(path) for path in write_missing(topology, base_dir(topology))]
    elsewhere = _not_in_files(topology)
    unusable = unusable_psks(topology, base_dir(topology), locate)
    if as_json:
        document = {"schema": "ipsecctl/secrets-written/1", "written": written, "not_in_files": elsewhere}
        print_json({**document, "diagnostics": [finding.as_json() for finding in unusable]})
    else:
        for path in written:
            typer.echo(path)
        if written or not unusable:
            say(_said(len(written)))
        if elsewhere:
            say(f"not in files, so not made here: {', '.join(elsewhere)}")
    if unusable:
        print_diagnostics(unusable)
        raise typer.Exit(1)


def _topology(file: Path) -> tuple[Topology, Callable[[DocumentPath], tuple[int, int]]]:
    """Read a topology, and where what stands in it, without looking at its secrets: some are to be made."""
    loaded, diagnostics = check_file(file, secrets=False)
    if loaded.topology is None:
        raise TopologyRefused(diagnostics)
    print_diagnostics([finding for finding in diagnostics if finding.severity is Severity.WARNING])
    return loaded.topology, loaded.source.locate


def _not_in_files(topology: Topology) -> list[str]:
    """Return the PSK references that are no files, sorted."""
    ends = (end for tunnel in topology.tunnels for end in (tunnel.left, tunnel.right))
    psks = {end.credential.psk for end in ends if end.credential.psk is not None}
    psks |= {tunnel.ppk.secret for tunnel in topology.tunnels if tunnel.ppk is not None}
    return sorted(str(psk) for psk in psks if psk.kind.value != "file")


def _said(written: int) -> str:
    if not written:
        return "no PSK file is missing"
    return f"{written} PSK{'s' if written > 1 else ''} written, readable by you alone"

"""The commands of ``ipsecctl pki`` that show, bring out and bring in; ``pki`` has those that sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipsecctl.cli._load import base_dir, errors_as_json
from ipsecctl.cli._pki import (
    CA,
    CaOption,
    JsonOption,
    KeyOption,
    PassphraseOption,
    RecipientOption,
    folder_at,
    key_type,
    new_passphrase,
    now,
    passphrase,
    printed,
    printed_list,
    span,
    topology_of,
    write_out,
)
from ipsecctl.cli._view import say
from ipsecctl.errors import PkiError

__all__ = ["export", "import_", "list_", "show"]


def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was replaced, was revoked or has expired.")
    ] = False,
    due: Annotated[
        str | None, typer.Option("--due", help="Only what has less than this to run, as 30d.", metavar="SPAN")
    ] = None,
    ca: CaOption = CA,
    json: JsonOption = False,
) -> None:
    """List what the CA has issued, its own certificates first, then what runs out first.

    \b
    Examples:
      ipsecctl pki list
      ipsecctl pki list --due 30d
      ipsecctl pki list --all --json
    """
    from ipsecctl.pki.document import states
    from ipsecctl.pki.due import is_due
    from ipsecctl.pki.ledger import Kind, State

    at, folder, within = now(), folder_at(ca), span(due)
    with errors_as_json(ca, wanted=json):
        folder.settings()
        ledger = folder.ledger()
    known = states(ledger, at)
    gone = {State.ABANDONED, State.REVOKED, State.EXPIRED, State.SUPERSEDED}
    found = [entry for entry in ledger.issued() if everything or known[entry.serial] not in gone]
    if not everything:
        # What has expired and was not replaced is what the reader must know of.
        current = {entry.serial for entry in ledger.current()}
        found += [e for e in ledger.issued() if e.serial in current and known[e.serial] is State.EXPIRED]
    if within is not None:
        found = [entry for entry in found if is_due(entry.certificate, at, within)]
    found.sort(key=lambda entry: (entry.kind is Kind.END, entry.certificate.not_valid_after_utc, entry.name))
    printed_list(ca, found, json=json)


def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|SERIAL|FILE", help="A gateway, a CA, a serial number, or a file."),
    ],
    ca: CaOption = CA,
    json: JsonOption = False,
) -> None:
    """Show what stands in a certificate, and what the CA knows of it.

    \b
    Examples:
      ipsecctl pki show clinic-a
      ipsecctl pki show issuing-1 --json
      ipsecctl pki show pki/clinic-a.pem
    """
    from ipsecctl.pki.authority import matching
    from ipsecctl.pki.document import certificate_json, entry_json, states
    from ipsecctl.pki.material import certificates_in, content_of

    at, folder = now(), folder_at(ca)
    with errors_as_json(Path(name), wanted=json):
        if Path(name).is_file():
            documents = [certificate_json(c) for c in certificates_in(content_of(Path(name)), name)]
        else:
            folder.settings()
            ledger = folder.ledger()
            known = states(ledger, at)
            documents = [
                {**certificate_json(entry.certificate), "of": entry_json(entry, known[entry.serial])}
                for entry in matching(ledger, name)
            ]
    if printed({"schema": "ipsecctl/pki-show/1", "certificates": documents}, as_json=json):
        return
    for number, document in enumerate(documents):
        if number:
            print()
        _print_certificate(document)


def _print_certificate(document: dict[str, object]) -> None:
    for key, value in document.items():
        if isinstance(value, dict):
            for inner, text in value.items():
                if text not in ("", None, [], document.get(inner)):
                    print(f"{inner:<17} {', '.join(text) if isinstance(text, list) else text}")
        elif isinstance(value, list):
            print(f"{key:<17} {', '.join(map(str, value)) or '-'}")
        elif value not in ("", None):
            print(f"{key:<17} {value}")


def export(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="root, issuing, chain, a gateway, or a serial number.")
    ],
    form: Annotated[str, typer.Option("--format", help="pem, der, or p12 (with the key).")] = "pem",
    with_chain: Annotated[bool, typer.Option("--chain", help="With the CAs above it.")] = False,
    csr: Annotated[
        Path | None,
        typer.Option(
            "--csr",
            help="The gateway's request (CSR) for another CA instead, by this topology.",
            metavar="FILE",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write to this file.", metavar="FILE")] = None,
    p12_passphrase: Annotated[
        str | None,
        typer.Option("--p12-passphrase", help="Where that of the PKCS#12 file lies.", metavar="REF"),
    ] = None,
    key: KeyOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    ca: CaOption = CA,
    recipient: RecipientOption = None,
    json: JsonOption = False,
) -> None:
    """Print a certificate or a chain, pack it with its key as PKCS#12, or make a request for another CA.

    A request is made with the gateway's key; where there is none, one is made in its place.

    \b
    Examples:
      ipsecctl pki export root --out root.pem
      ipsecctl pki export clinic-a --format p12 --p12-passphrase file:p12.passphrase --out clinic-a.p12
      ipsecctl pki export clinic-a --csr clinics.yaml --out clinic-a.csr
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from ipsecctl.pki.exporting import FORMATS, as_format, pkcs12, selected
    from ipsecctl.pki.importing import request_for
    from ipsecctl.pki.keytypes import KeyType
    from ipsecctl.pki.wanted import chosen

    if form not in FORMATS:
        raise typer.BadParameter(f"one of {', '.join(FORMATS)}", param_hint="--format")
    if json and (out is None or str(out) == "-") and form != "pem":
        raise typer.BadParameter("with --json it is PEM, or goes to a file: --out", param_hint="--format")
    key_made = ""
    with errors_as_json(csr or ca, wanted=json):
        if csr is not None:
            topology = topology_of(csr)
            every = chosen(topology, [what])
            if len({one.gateway for one in every}) > 1:
                raise PkiError(f"{what!r} has several gateways", "name one of them")
            kind = key_type(key) or KeyType.ECDSA_P256
            made, is_new = request_for(every[0], base_dir(topology), kind, tuple(recipient or ()))
            content = made.public_bytes(Encoding.DER if form == "der" else Encoding.PEM)
            key_made = str(every[0].key) if is_new else ""
        else:
            folder = folder_at(ca)
            folder.settings()
            entries = selected(folder, what, with_chain=with_chain)
            if form == "p12":
                content = pkcs12(folder, entries[0], new_passphrase(p12_passphrase))
            else:
                content = as_format(entries, form)
        to_file = out is not None and str(out) != "-"
        if to_file or not json:
            write_out(out, content, secret=form == "p12", force=force)
    document = {
        "schema": "ipsecctl/pki-export/1",
        "what": what,
        "format": form,
        "written": str(out) if to_file else None,
        "pem": content.decode() if form == "pem" else None,
        "key_made": key_made or None,
    }
    if not printed(document, as_json=json) and key_made:
        say(f"A key was made: {key_made}")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The topology file.")],
    certificates: Annotated[
        list[Path],
        typer.Argument(metavar="PEM", help="The gateway's certificate, its CA's, the root's, in this order."),
    ],
    gateway: Annotated[
        str, typer.Option("--gateway", help="Whose it is; else by the identity it holds.")
    ] = "",
    crl_file: Annotated[
        list[Path] | None,
        typer.Option("--crl", help="The CA's CRL, to see that none is revoked.", metavar="CRL"),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="The key, where it came with it.", metavar="KEY")
    ] = None,
    passphrase_at: PassphraseOption = None,
    replaces: Annotated[bool, typer.Option("--replace", help="Replace certificates that are there.")] = False,
    json: JsonOption = False,
) -> None:
    """Bring in a gateway's certificate from an organisation's own CA, with its chain, after checking it.

    Checked are order and signatures, expiry, that the CAs are CAs and may issue for this name, the identity,
    the key, usage and strength. All findings are shown; with an error nothing is written.

    \b
    Examples:
      ipsecctl pki import clinics.yaml clinic-a.pem issuing.pem root.pem
      ipsecctl pki import clinics.yaml bundle.pem --crl issuing.crl
      ipsecctl pki import clinics.yaml bundle.pem --gateway clinic-a --key-file clinic-a.key
    """
    from ipsecctl.cli._view import print_diagnostics
    from ipsecctl.pki.importing import examine, install, key_of, owner, presented
    from ipsecctl.pki.material import key_in
    from ipsecctl.pki.wanted import wanted

    with errors_as_json(file, wanted=json):
        topology = topology_of(file)
        base, given = base_dir(topology), presented(certificates)
        whose = owner(wanted(topology), given, gateway)
        brought = key_in(key_file, passphrase(passphrase_at)) if key_file is not None else None
        key = brought or key_of(whose, base)
        imported = examine(whose, given, crl_file or (), key, now())
        written = install(imported, base, key=brought, replaces=replaces)
    print_diagnostics(imported.warnings)
    document = {
        "schema": "ipsecctl/pki-imported/1",
        "gateway": whose.gateway,
        "written": [str(place) for place in written],
        "diagnostics": [finding.as_json() for finding in imported.warnings],
    }
    if not printed(document, as_json=json):
        for place in written:
            print(place)
        if key is None:
            say(f"{whose.gateway} has no key yet: put the one it was requested with to {whose.key}.")

"""``ipsecctl pki``: a small CA for the certificates of a topology's gateways."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
from ipsecctl.cli._load import base_dir, check_file, errors_as_json
from ipsecctl.cli._pki import (
    CaOption,
    JsonOption,
    PassphraseOption,
    RecipientOption,
    folder_at,
    key_type,
    listed,
    new_passphrase,
    passphrase,
    print_table,
    printed,
    progress,
    span,
    tell,
    write_out,
)
from ipsecctl.cli._view import say
from ipsecctl.errors import PkiError, TopologyRefused

if TYPE_CHECKING:
    from ipsecctl.pki.authority import Made
    from ipsecctl.pki.ledger import Entry
    from ipsecctl.topology import Topology

__all__ = ["app"]

app = command_app(no_args_is_help=True)

_CA = Path("ca")
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="Kind of key: ecdsa-p256, ecdsa-p384, ed25519, ed448, rsa-3072 or rsa-4096.",
        metavar="KIND",
    ),
]
DaysOption = Annotated[
    float | None, typer.Option("--days", help="Valid for so many days.", min=0.0006, max=36500.0)
]
ServerAuthOption = Annotated[
    bool,
    typer.Option("--server-auth", help="Allow serverAuth and clientAuth, too, as some want."),
]


@app.callback()
def group() -> None:
    """Keep a small CA: issue, renew and revoke the gateways' certificates.

    A root, and below it the CA that issues; keys are encrypted on the disk. docs/pki.md has the whole way.

    \b
    Examples:
      ipsecctl pki init --name "Clinics"
      ipsecctl pki issue clinics.yaml --all
      ipsecctl pki renew --due 30d
    """


@app.command()
def init(
    name: Annotated[str, typer.Option("--name", help="The CA's name, as peers see it.")] = "ipsecctl",
    ca: CaOption = _CA,
    key: KeyOption = None,
    gateway_key: Annotated[
        str | None, typer.Option("--gateway-key", help="Kind of the gateways' keys.", metavar="KIND")
    ] = None,
    passphrase_at: PassphraseOption = None,
    recipient: RecipientOption = None,
    days: Annotated[
        float | None,
        typer.Option("--days", help="Gateways' certificates are valid for so many days.", min=0.0006),
    ] = None,
    issuing_days: Annotated[
        float | None, typer.Option("--issuing-days", help="... the CA's that issues.", min=1)
    ] = None,
    root_days: Annotated[float | None, typer.Option("--root-days", help="... the root's.", min=1)] = None,
    crl_days: Annotated[
        float, typer.Option("--crl-days", help="A CRL is valid for so many days.", min=0.04)
    ] = 30,
    permit: Annotated[
        list[str] | None,
        typer.Option(
            "--permit",
            help="Issue only for names within: dns:example.org, ip:192.0.2.0/24, ip:any, email:example.org; "
            "several. A kind that is not named is forbidden.",
        ),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="... and for none within.")] = None,
    crl_url: Annotated[
        str, typer.Option("--crl-url", help="Where CRLs will be found; {ca} stands for the CA's name.")
    ] = "",
    ocsp_url: Annotated[str, typer.Option("--ocsp-url", help="Where OCSP will be answered.")] = "",
    issuer_url: Annotated[
        str, typer.Option("--issuer-url", help="Where the issuer's certificate will be.")
    ] = "",
    single: Annotated[bool, typer.Option("--single", help="No CA between: the root issues.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a CA: a root, and the CA that issues for gateways.

    Defaults: ECDSA P-384, for gateways P-256; 10 years, 2 years, 90 days. The keys are encrypted, with a
    passphrase or to age recipients. Keep the root's key (keys/root-1.key) elsewhere: it is wanted only for
    the root's CRL. Nothing is overwritten. strongSwan 5.9.8 reads no CA that is constrained to addresses, or
    from them: with such gateways say --permit ip:any beside the other names.

    \b
    Examples:
      ipsecctl pki init --name Clinics --passphrase file:ca.passphrase
      ipsecctl pki init --recipient age1... --permit dns:clinics.example --crl-url http://pki.clinics.example/{ca}.crl
      ipsecctl pki init --key rsa-4096 --gateway-key rsa-3072 --days 30
    """
    from ipsecctl.pki.authority import NewAuthority
    from ipsecctl.pki.authority import init as make
    from ipsecctl.pki.folder import Settings
    from ipsecctl.pki.keytypes import KeyType, key_pem
    from ipsecctl.pki.names import Constraints
    from ipsecctl.pki.profiles import GATEWAY_DAYS, ISSUING_DAYS, ROOT_DAYS, Addresses
    from ipsecctl.pki.sealing import seal, seal_to_recipients

    _check_urls(crl_url, ocsp_url, issuer_url, single=single)
    settings = Settings(
        name=_ca_name(name),
        levels=1 if single else 2,
        gateway_key=key_type(gateway_key) or KeyType.ECDSA_P256,
        gateway_days=days or GATEWAY_DAYS,
        crl_days=crl_days,
        addresses=Addresses(crl_url, ocsp_url, issuer_url),
        constraints=Constraints(tuple(permit or ()), tuple(exclude or ())),
        recipients=tuple(recipient or ()),
    )
    with errors_as_json(ca, wanted=json):
        if settings.constraints:
            settings.constraints.extension()
        kind = key_type(key) or KeyType.ECDSA_P384
        if recipient:
            to = tuple(recipient)
            new = NewAuthority(settings, lambda made: seal_to_recipients(key_pem(made), to), kind)
        else:
            secret = new_passphrase(passphrase_at)
            new = NewAuthority(settings, lambda made: seal(made, secret), kind)
        from dataclasses import replace

        new = replace(new, root_days=root_days or ROOT_DAYS, issuing_days=issuing_days or ISSUING_DAYS)
        ledger = make(ca, new, _now())
    if not _printed_list(ca, list(ledger.issued()), json=json):
        say(f"The CA is in {ca}. Keep a copy of it; keys/root-1.key is best kept elsewhere.")
    if settings.constraints.on_addresses:
        say("Its constraints have addresses: strongSwan 6.0.1 reads them, 5.9.8 does not (--permit ip:any).")


def _ca_name(name: str) -> str:
    if not name.strip() or len(name) > 50:
        raise typer.BadParameter("a name of 1 to 50 characters", param_hint="--name")
    return name.strip()


def _check_urls(*urls: str, single: bool) -> None:
    for option, url in zip(("--crl-url", "--ocsp-url", "--issuer-url"), urls, strict=True):
        if url and not url.startswith(("http://", "https://", "ldap://", "file://")):
            raise typer.BadParameter("a URL is wanted, as http://pki.example.org/{ca}.crl", param_hint=option)
        if url and not single and option != "--ocsp-url" and "{ca}" not in url:
            hint = "there are two CAs: put {ca} into it, which stands for root-1 and issuing-1"
            raise typer.BadParameter(hint, param_hint=option)


@app.command()
def issue(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The topology file.")] = None,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SITE|GATEWAY", help="For these sites and gateways.")
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all", help="For all that show a certificate.")] = False,
    request: Annotated[
        Path | None,
        typer.Option("--request", help="Sign this request (CSR) instead of a topology's.", metavar="CSR"),
    ] = None,
    identity: Annotated[str, typer.Option("--identity", help="With --request: the IKE identity.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="With --request: where the certificate goes.", metavar="PEM")
    ] = None,
    ca: CaOption = _CA,
    passphrase_at: PassphraseOption = None,
    key: KeyOption = None,
    days: DaysOption = None,
    server_auth: ServerAuthOption = False,
    again: Annotated[
        bool, typer.Option("--again", help="Replace keys and certificates that are there.")
    ] = False,
    recipient: RecipientOption = None,
    json: JsonOption = False,
) -> None:
    """Issue certificates for gateways, and put them and their keys where the topology has them.

    Identity, names and places come from the topology. What is there is left as it is; the CA's own
    certificates are written to 'ca' and 'chain' where they are missing. With --request a key stays where it
    was made. Exit status: 1 when something stands in the way, and then nothing was issued.

    \b
    Examples:
      ipsecctl pki issue clinics.yaml --all
      ipsecctl pki issue clinics.yaml clinic-a clinic-b --key ed25519
      ipsecctl pki issue --request clinic-c.csr --identity clinic-c.example.org --out clinic-c.pem
    """
    from ipsecctl.pki.issuing import Wishes, issue_for_request, issue_wanted
    from ipsecctl.pki.material import content_of, request_in
    from ipsecctl.pki.wanted import chosen

    wishes = Wishes(key_type(key), days, server_auth, again, tuple(recipient or ()))
    folder = folder_at(ca)
    if request is not None:
        if file is not None or names or everywhere or out is None:
            raise typer.BadParameter("it goes with --out, and without a topology", param_hint="--request")
        with errors_as_json(request, wanted=json):
            asked = request_in(content_of(request), str(request))
            made = issue_for_request(
                folder, asked, str(request), identity, "", out, wishes, passphrase(passphrase_at), _now()
            )
        _tell_made(ca, made, json=json)
        return
    if file is None:
        raise typer.BadParameter("a topology file is wanted, or --request", param_hint="FILE")
    if bool(names) == everywhere:
        raise typer.BadParameter("say for which sites or gateways, or --all", param_hint="SITE|GATEWAY")
    with errors_as_json(file, wanted=json):
        topology = _topology(file)
        wanted = chosen(topology, names or ())
        with progress(len(wanted)) as told:
            made = issue_wanted(
                folder, wanted, base_dir(topology), wishes, passphrase(passphrase_at), _now(), told
            )
    _tell_made(ca, made, json=json)


@app.command()
def renew(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Gateways, or serial numbers; else all.")
    ] = None,
    due: Annotated[
        str | None,
        typer.Option(
            "--due",
            help="What has less than this to run, as 30d; default: a third of its life.",
            metavar="SPAN",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--all", help="Also what is not due.")] = False,
    same_key: Annotated[bool, typer.Option("--same-key", help="Keep the keys.")] = False,
    ca: CaOption = _CA,
    passphrase_at: PassphraseOption = None,
    key: KeyOption = None,
    days: DaysOption = None,
    server_auth: ServerAuthOption = False,
    recipient: RecipientOption = None,
    json: JsonOption = False,
) -> None:
    """Issue anew what is due, with new keys, in the places of the old.

    The old certificates stay valid until they run out. What was issued by request keeps its key. 'ipsecctl
    apply' then brings the new ones to the gateways.

    \b
    Examples:
      ipsecctl pki renew --due 30d
      ipsecctl pki renew clinic-a --all --passphrase file:ca.passphrase
      ipsecctl pki renew --due 2w --same-key --json
    """
    from ipsecctl.pki.issuing import Wishes
    from ipsecctl.pki.issuing import renew as issue_anew

    wishes = Wishes(key_type(key), days, server_auth, again, tuple(recipient or ()))
    within = span(due)
    with errors_as_json(ca, wanted=json), progress(None) as told:
        made = issue_anew(
            folder_at(ca),
            names or (),
            within,
            wishes,
            passphrase(passphrase_at),
            _now(),
            same_key=same_key,
            told=told,
        )
    _tell_made(ca, made, json=json, kept="not due")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME|SERIAL", help="A gateway (all of its), or one.")],
    reason: Annotated[
        str, typer.Option("--reason", help="key-compromise, superseded, cessation-of-operation, ...")
    ] = "unspecified",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the CRL to this file, too (DER).", metavar="CRL")
    ] = None,
    ca: CaOption = _CA,
    passphrase_at: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke certificates, and make the CRL anew.

    It cannot be taken back. Of a gateway all certificates are revoked that have not run out, those that were
    replaced included: their keys may still be about.

    \b
    Examples:
      ipsecctl pki revoke clinic-a --reason key-compromise
      ipsecctl pki revoke 2f61b09a --out issuing-1.crl
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from ipsecctl.pki.authority import REASONS
    from ipsecctl.pki.authority import revoke as cut_off
    from ipsecctl.pki.document import crl_json, entry_json, states

    if reason not in REASONS:
        raise typer.BadParameter(f"one of {', '.join(REASONS)}", param_hint="--reason")
    now, folder = _now(), folder_at(ca)
    with errors_as_json(ca, wanted=json):
        revoked, lists = cut_off(folder, name, reason, passphrase(passphrase_at), now)
        if out is not None:
            for found in lists.values():
                write_out(out, found.public_bytes(Encoding.DER), force=True)
    known = states(folder.ledger(), now)
    document = {
        "schema": "ipsecctl/pki-revoked/1",
        "certificates": [entry_json(entry, known[entry.serial]) for entry in revoked],
        "crls": [crl_json(by, found) for by, found in lists.items()],
    }
    if not printed(document, as_json=json):
        for entry in revoked:
            print(f"{entry.serial_text}  {entry.name}  revoked ({entry.reason})")
        for by in lists:
            say(f"The CRL of {by} is {folder.crl(by)}: bring it to the gateways.")


@app.command()
def crl(
    authority: Annotated[
        str | None, typer.Argument(metavar="CA", help="root-1 or issuing-1; else the CA that issues.")
    ] = None,
    days: DaysOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write it to this file; - is standard output.", metavar="FILE"),
    ] = None,
    pem: Annotated[bool, typer.Option("--pem", help="With --out: as PEM, not DER.")] = False,
    ca: CaOption = _CA,
    passphrase_at: PassphraseOption = None,
    json: JsonOption = False,
) -> None:
    """Make a CA's list of what it has revoked (CRL) anew.

    The list runs out: make a new one before. Its number is above all before it, also in a folder that came
    back from a backup.

    \b
    Examples:
      ipsecctl pki crl
      ipsecctl pki crl root-1 --days 365 --out root-1.crl
      ipsecctl pki crl --out - --pem --passphrase file:ca.passphrase
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from ipsecctl.pki.authority import issuing_chain, make_crl
    from ipsecctl.pki.document import crl_json

    folder = folder_at(ca)
    if json and out is not None and str(out) == "-":
        raise typer.BadParameter("the CRL and JSON cannot both go to standard output", param_hint="--out")
    with errors_as_json(ca, wanted=json):
        folder.settings()
        name = authority or issuing_chain(folder, folder.ledger())[0].name
        made = make_crl(folder, name, passphrase(passphrase_at), _now(), days)
        if out is not None:
            write_out(out, made.public_bytes(Encoding.PEM if pem else Encoding.DER), force=True)
    found = crl_json(name, made)
    if not printed({"schema": "ipsecctl/pki-crl/1", **found}, as_json=json) and out is None:
        print(
            f"{folder.crl(name)}: number {found['number']}, {len(found['revoked'])} revoked, "
            f"until {found['next_update']}"
        )


@app.command("list")
def list_(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was replaced, was revoked or has expired.")
    ] = False,
    due: Annotated[
        str | None, typer.Option("--due", help="Only what has less than this to run, as 30d.", metavar="SPAN")
    ] = None,
    ca: CaOption = _CA,
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

    now, folder, within = _now(), folder_at(ca), span(due)
    with errors_as_json(ca, wanted=json):
        folder.settings()
        ledger = folder.ledger()
    known = states(ledger, now)
    gone = {State.ABANDONED, State.REVOKED, State.EXPIRED, State.SUPERSEDED}
    found = [entry for entry in ledger.issued() if everything or known[entry.serial] not in gone]
    if not everything:
        # What has expired and was not replaced is what the reader must know of.
        current = {entry.serial for entry in ledger.current()}
        found += [e for e in ledger.issued() if e.serial in current and known[e.serial] is State.EXPIRED]
    if within is not None:
        found = [entry for entry in found if is_due(entry.certificate, now, within)]
    found.sort(key=lambda entry: (entry.kind is Kind.END, entry.certificate.not_valid_after_utc, entry.name))
    _printed_list(ca, found, json=json)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|SERIAL|FILE", help="A gateway, a CA, a serial number, or a file."),
    ],
    ca: CaOption = _CA,
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

    now, folder = _now(), folder_at(ca)
    with errors_as_json(Path(name), wanted=json):
        if Path(name).is_file():
            documents = [certificate_json(c) for c in certificates_in(content_of(Path(name)), name)]
        else:
            folder.settings()
            ledger = folder.ledger()
            known = states(ledger, now)
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


@app.command()
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
    ca: CaOption = _CA,
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
            topology = _topology(csr)
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


@app.command("import")
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
        topology = _topology(file)
        base, given = base_dir(topology), presented(certificates)
        whose = owner(wanted(topology), given, gateway)
        brought = key_in(key_file, passphrase(passphrase_at)) if key_file is not None else None
        key = brought or key_of(whose, base)
        imported = examine(whose, given, crl_file or (), key, _now())
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


def _now() -> datetime:
    return datetime.now(UTC)


def _topology(file: Path) -> Topology:
    """Read a topology without looking at its secrets: some are to be made."""
    loaded, diagnostics = check_file(file, secrets=False)
    if loaded.topology is None:
        raise TopologyRefused(diagnostics)
    return loaded.topology


def _tell_made(ca: Path, made: Made, *, json: bool, kept: str = "there already") -> None:
    from ipsecctl.pki.document import entry_json
    from ipsecctl.pki.ledger import State

    tell(made)
    document = {
        "schema": "ipsecctl/pki-issued/1",
        "issued": [entry_json(entry, State.VALID) for entry in made.entries],
        "kept": sorted(made.kept),
        "mended": list(made.mended),
    }
    if printed(document, as_json=json):
        return
    for entry in made.entries:
        until = entry.certificate.not_valid_after_utc
        print(f"{entry.serial_text[:8]}  {entry.name}  until {until:%Y-%m-%d}  {entry.places.certificate}")
        if (until - entry.certificate.not_valid_before_utc).total_seconds() < entry.days * 86400:
            say(f"It ends with its CA: {entry.issuer} in {ca} has no more time than that.")
    left = f"; {len(made.kept)} {kept} ({listed(sorted(made.kept))})" if made.kept else ""
    say(f"{len(made.entries)} issued{left}.")


def _printed_list(ca: Path, entries: list[Entry], *, json: bool) -> bool:
    """Print entries as JSON or as a table; return whether it was JSON."""
    from ipsecctl.pki.document import list_json, states

    now, ledger = _now(), folder_at(ca).ledger()
    if printed(list_json(str(ca), ledger, entries, now), as_json=json):
        return True
    known = states(ledger, now)
    rows = [
        (
            entry.serial_text[:8],
            entry.name,
            known[entry.serial].value,
            entry.key_type,
            f"{entry.certificate.not_valid_after_utc:%Y-%m-%d}",
            f"{(entry.certificate.not_valid_after_utc - now).days} d",
            entry.places.certificate,
        )
        for entry in entries
    ]
    print_table(("serial", "name", "state", "key", "until", "left", "file"), rows)
    return False

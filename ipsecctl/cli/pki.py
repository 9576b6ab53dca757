"""``ipsecctl pki``: a small CA for the certificates of a topology's gateways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipsecctl.cli._app import command_app
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
    listed,
    new_passphrase,
    now,
    passphrase,
    printed,
    printed_list,
    progress,
    span,
    tell,
    topology_of,
    write_out,
)
from ipsecctl.cli._pki_files import export, import_, list_, show
from ipsecctl.cli._view import say

if TYPE_CHECKING:
    from ipsecctl.pki.authority import Made

__all__ = ["app"]

app = command_app(no_args_is_help=True)

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
    ca: CaOption = CA,
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
        ledger = make(ca, new, now())
    if not printed_list(ca, list(ledger.issued()), json=json):
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
    ca: CaOption = CA,
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
                folder, asked, str(request), identity, "", out, wishes, passphrase(passphrase_at), now()
            )
        _tell_made(ca, made, json=json)
        return
    if file is None:
        raise typer.BadParameter("a topology file is wanted, or --request", param_hint="FILE")
    if bool(names) == everywhere:
        raise typer.BadParameter("say for which sites or gateways, or --all", param_hint="SITE|GATEWAY")
    with errors_as_json(file, wanted=json):
        topology = topology_of(file)
        wanted = chosen(topology, names or ())
        with progress(len(wanted)) as told:
            made = issue_wanted(
                folder, wanted, base_dir(topology), wishes, passphrase(passphrase_at), now(), told
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
    ca: CaOption = CA,
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
            now(),
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
    ca: CaOption = CA,
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
    at, folder = now(), folder_at(ca)
    with errors_as_json(ca, wanted=json):
        revoked, lists = cut_off(folder, name, reason, passphrase(passphrase_at), at)
        if out is not None:
            for found in lists.values():
                write_out(out, found.public_bytes(Encoding.DER), force=True)
    known = states(folder.ledger(), at)
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
    ca: CaOption = CA,
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
        made = make_crl(folder, name, passphrase(passphrase_at), now(), days)
        if out is not None:
            write_out(out, made.public_bytes(Encoding.PEM if pem else Encoding.DER), force=True)
    found = crl_json(name, made)
    if not printed({"schema": "ipsecctl/pki-crl/1", **found}, as_json=json) and out is None:
        print(
            f"{folder.crl(name)}: number {found['number']}, {len(found['revoked'])} revoked, "
            f"until {found['next_update']}"
        )


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


app.command("list")(list_)
app.command()(show)
app.command()(export)
app.command("import")(import_)

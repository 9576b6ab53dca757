"""What OpenSSL's ``verify`` and strongSwan's ``pki --verify`` say of certificates: the table of docs/pki.md.

``IPSECCTL_UPDATE=1`` writes the table anew; read the difference before you keep it.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ipsecctl import lab
from ipsecctl.pki.keytypes import KeyType, SigningKey, make_key
from ipsecctl.pki.names import Constraints
from ipsecctl.pki.profiles import Issuer, Subject, ca_certificate, crl, end_certificate

NOW = datetime.now(UTC)
DOCS = Path(__file__).parents[2] / "docs" / "pki.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"
NAME = "gw.clinics.example"


@dataclass(frozen=True)
class Row:
    """A case: the chain from the gateway's certificate up to the root, CRLs, and options for OpenSSL.

    ``strongswan`` is whether its ``pki`` looks at what the case is about.
    """

    case: str
    chain: tuple[x509.Certificate, ...]
    good: bool
    lists: tuple[x509.CertificateRevocationList, ...] = ()
    options: tuple[str, ...] = ()
    strongswan: bool = True


class Authority:
    """A root and the CA that issues, of one kind of key."""

    def __init__(
        self,
        kind: KeyType = KeyType.ECDSA_P256,
        permit: tuple[str, ...] = (),
        made: datetime = NOW,
        days: float = 730,
    ) -> None:
        self.root_key, self.key = make_key(kind), make_key(kind)
        self.kind = kind
        root = ca_certificate(
            f"root {kind}",
            self.root_key.public_key(),
            serial(),
            made,
            3650,
            signer=self.root_key,
            path_length=1,
        )
        self.root = Issuer(root, self.root_key)
        certificate = ca_certificate(
            f"issuing {kind}",
            self.key.public_key(),
            serial(),
            made,
            days,
            issuer=self.root,
            constraints=Constraints(permit),
        )
        self.issuing = Issuer(certificate, self.key)

    def end(
        self, identity: str = NAME, *, now: datetime = NOW, days: float = 90, server_auth: bool = False
    ) -> tuple[x509.Certificate, ...]:
        key = make_key(self.kind)
        made = end_certificate(
            Subject(identity, "gw"),
            key.public_key(),
            serial(),
            now,
            days,
            self.issuing,
            server_auth=server_auth,
        )
        return (made, self.issuing.certificate, self.root.certificate)

    def lists(
        self, *revoked: x509.Certificate, now: datetime = NOW
    ) -> tuple[x509.CertificateRevocationList, ...]:
        entries = [(each.serial_number, now, x509.ReasonFlags.key_compromise) for each in revoked]
        return (crl(self.issuing, 1, now, 30, entries), crl(self.root, 1, now, 30, []))


def serial() -> int:
    return x509.random_serial_number()


def rows() -> list[Row]:
    plain = Authority()
    found = [Row(f"all keys {kind}", Authority(kind).end(), True) for kind in KeyType]
    for what, identity in (
        ("a DNS name", NAME),
        ("an IPv4 address", "192.0.2.1"),
        ("an IPv6 address", "2001:db8::1"),
        ("an e-mail address", "gw@clinics.example"),
        ("a DN", "C=CH, O=Clinic, CN=gw"),
    ):
        found.append(Row(f"identity: {what}", plain.end(identity), True))
    single = make_key(KeyType.ECDSA_P256)
    root = Issuer(ca_certificate("single", single.public_key(), serial(), NOW, 3650, signer=single), single)
    leaf = end_certificate(
        Subject(NAME, "gw"), make_key(KeyType.ED25519).public_key(), serial(), NOW, 90, root
    )
    found.append(Row("a single root (`--single`)", (leaf, root.certificate), True))
    found += _names()
    found += _usages(plain)
    found += _times()
    found += _revoked(plain)
    other = Authority()
    found.append(Row("signed by another CA of the same name", (plain.end()[0], *other.end()[1:]), False))
    found.append(Row("the CA between is missing", (plain.end()[0], plain.root.certificate), False))
    return found


def _names() -> list[Row]:
    dns = Authority(permit=("dns:clinics.example",))
    address = Authority(permit=("ip:192.0.2.0/24",))
    mail = Authority(permit=("email:clinics.example",))
    return [
        Row("`--permit dns:clinics.example`: a name below it", dns.end(), True),
        Row("... another name", dns.end("gw.other.example"), False),
        Row("... a name that only ends alike", dns.end("gw.notclinics.example"), False),
        Row("... an IPv4 address", dns.end("192.0.2.1"), False),
        Row("... an IPv6 address", dns.end("2001:db8::1"), False),
        Row("... an e-mail address", dns.end("gw@clinics.example"), False),
        Row("`--permit ip:192.0.2.0/24`: an address in it", address.end("192.0.2.1"), True),
        Row("... another address", address.end("198.51.100.1"), False),
        Row("... a DNS name", address.end(), False),
        Row("`--permit email:clinics.example`: a mailbox there", mail.end("gw@clinics.example"), True),
        Row("... one elsewhere", mail.end("gw@other.example"), False),
        Row("... a DNS name", mail.end(), False),
    ]


def _usages(plain: Authority) -> list[Row]:
    leaf_key: SigningKey = make_key(KeyType.ECDSA_P256)
    leaf = end_certificate(Subject(NAME, "gw"), leaf_key.public_key(), serial(), NOW, 90, plain.issuing)
    forged = end_certificate(
        Subject("other", "other"), leaf_key.public_key(), serial(), NOW, 1, Issuer(leaf, leaf_key)
    )
    below_key = make_key(KeyType.ECDSA_P256)
    below = ca_certificate("one too many", below_key.public_key(), serial(), NOW, 30, issuer=plain.issuing)
    deep = end_certificate(
        Subject(NAME, "gw"), leaf_key.public_key(), serial(), NOW, 1, Issuer(below, below_key)
    )
    above = (plain.issuing.certificate, plain.root.certificate)
    server = ("-purpose", "sslserver")
    return [
        Row("a gateway's certificate used as a CA", (forged, leaf, *above), False),
        Row("a CA below the CA that issues (path length)", (deep, below, *above), False),
        Row("as a TLS server, with `--server-auth`", plain.end(server_auth=True), True, (), server, False),
        Row("as a TLS server, without", plain.end(), False, (), server, False),
    ]


def _times() -> list[Row]:
    plain, old = Authority(made=NOW - timedelta(days=100)), Authority(made=NOW - timedelta(days=800))
    return [
        Row("a gateway's that has expired", plain.end(now=NOW - timedelta(days=91)), False),
        Row("one that is not valid yet", Authority().end(now=NOW + timedelta(days=1)), False),
        Row("the issuing CA has expired", old.end(now=NOW - timedelta(days=90), days=60), False),
    ]


def _revoked(plain: Authority) -> list[Row]:
    chain = plain.end()
    check = ("-crl_check_all",)
    return [
        Row("not on the CRL", chain, True, plain.lists(), check),
        Row("on the CRL", chain, False, plain.lists(chain[0]), check),
        Row("a CRL of another CA, of the same name", chain, False, Authority().lists(), check, False),
        Row("a CRL that has run out", chain, False, plain.lists(now=NOW - timedelta(days=40)), check, False),
    ]


def written(rows: list[Row], folder: Path) -> None:
    for number, row in enumerate(rows):
        for position, each in enumerate(row.chain):
            (folder / f"{number}-{position}.pem").write_bytes(each.public_bytes(Encoding.PEM))
        for position, each in enumerate(row.lists):
            (folder / f"{number}-{position}.crl").write_bytes(each.public_bytes(Encoding.PEM))


def openssl(number: int, row: Row, folder: Path) -> tuple[bool, str]:
    """Return whether OpenSSL takes a chain, and why not."""
    last = len(row.chain) - 1
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / f"{number}-{last}.pem")]
    for position in range(1, last):
        command += ["-untrusted", str(folder / f"{number}-{position}.pem")]
    for position in range(len(row.lists)):
        command += ["-CRLfile", str(folder / f"{number}-{position}.crl")]
    done = subprocess.run(
        [*command, *row.options, str(folder / f"{number}-0.pem")],
        capture_output=True,
        text=True,
        check=False,
    )
    why = re.search(r"error \d+ at \d+ depth lookup: ?(.*)", done.stderr)
    return done.returncode == 0, why[1] if why else ""


def strongswan(rows: list[Row], folder: Path) -> list[bool]:
    """Return what strongSwan's pki says of each chain; it trusts only a root and is given all CAs."""
    lines = []
    for number, row in enumerate(rows):
        command = f"pki --verify --in /d/{number}-0.pem"
        command += "".join(f" --cacert /d/{number}-{at}.pem" for at in range(1, len(row.chain)))
        # Of several CRLs it takes the first that it needs: that of the CA that issues.
        command += f" --crl /d/{number}-0.crl" if row.lists else ""
        lines.append(f"{command} >/dev/null 2>&1; echo $?")
    run = ["docker", "run", "--rm", "--network", "none", "--interactive", "--volume", f"{folder}:/d:ro"]
    done = subprocess.run(
        [*run, "--entrypoint", "sh", lab.image_name()],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return [line == "0" for line in done.stdout.split()]


def table(rows: list[Row], by_openssl: list[tuple[bool, str]], by_strongswan: list[bool]) -> str:
    lines = ["| | OpenSSL `verify` | strongSwan `pki --verify` |", "|---|---|---|"]
    for row, (taken, why), other in zip(rows, by_openssl, by_strongswan, strict=True):
        theirs = "accepted" if other else "refused"
        if not row.strongswan and other:
            theirs += ": it does not look at that"
        lines.append(f"| {row.case} | {'accepted' if taken else f'refused: {why}'} | {theirs} |")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], Path]:
    folder = tmp_path_factory.mktemp("chains")
    found = rows()
    written(found, folder)
    return found, folder


@pytest.mark.slow
def test_openssl_accepts_what_is_issued_and_refuses_what_it_should(cases: tuple[list[Row], Path]) -> None:
    found, folder = cases
    said = {row.case + str(number): openssl(number, row, folder)[0] for number, row in enumerate(found)}
    assert said == {row.case + str(number): row.good for number, row in enumerate(found)}


@pytest.mark.lab
def test_strongswan_does_too_and_the_table_says_so(cases: tuple[list[Row], Path]) -> None:
    found, folder = cases
    said = strongswan(found, folder)
    assert {row.case + str(n): said[n] for n, row in enumerate(found) if row.strongswan} == {
        row.case + str(n): row.good for n, row in enumerate(found) if row.strongswan
    }
    made = table(found, [openssl(number, row, folder) for number, row in enumerate(found)], said)
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    if os.environ.get("IPSECCTL_UPDATE"):
        DOCS.write_text(f"{before}{BEGIN}{made}{END}{after}", encoding="utf-8")
        return
    assert _without_reasons(old) == _without_reasons(made)


def _without_reasons(text: str) -> str:
    """Return a table without OpenSSL's words, which differ between its versions."""
    return re.sub(r"refused: [^|]*", "refused ", text)

"""``ipsecctl pki`` as a person calls it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from small_ca import PASSPHRASE, topology_text

from ipsecctl.cli import main

Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Run:
    """Return what calls a command in a folder with a topology; gives status, output and talk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPSECCTL_CA_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("IPSECCTL_CA", raising=False)
    Path("clinics.yaml").write_text(topology_text())

    def call(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(words) if words[0] == "validate" else ["pki", *words])
        said = capsysbinary.readouterr()
        out, err = said.out.decode("utf-8", "replace"), said.err.decode()
        assert "Traceback" not in out + err
        assert PASSPHRASE not in out + err
        return ended.value.code, out, err

    return call


def as_json(answer: tuple[Any, str, str], schema: str, status: int = 0) -> Any:
    code, out, err = answer
    assert code == status, err
    document = json.loads(out)
    assert document["schema"] == f"ipsecctl/{schema}/1"
    return document


def test_from_nothing_to_a_topology_that_is_right(run: Run) -> None:
    code, out, err = run("init", "--name", "Clinics")
    assert code == 0 and "root-1" in out and "issuing-1" in out and "kept elsewhere" in err
    code, out, err = run("issue", "clinics.yaml", "--all")
    assert (code, len(out.splitlines())) == (0, 3) and "3 issued." in err
    code, out, err = run("issue", "clinics.yaml", "a", "b")
    assert (code, out) == (0, "") and "0 issued; 2 there already (a, b)." in err
    assert run("validate", "clinics.yaml")[:2] == (0, "ok: 3 sites, 2 tunnels\n")
    listed = as_json(run("list", "--json"), "pki-list")
    assert [entry["name"] for entry in listed["certificates"]] == ["issuing-1", "root-1", "a", "b", "dc"]
    assert {entry["state"] for entry in listed["certificates"]} == {"valid"}
    code, out, _ = run("list")
    assert out.splitlines()[0].split() == ["serial", "name", "state", "key", "until", "left", "file"]


def test_renew_revoke_and_the_crl(run: Run) -> None:
    run("init")
    run("issue", "clinics.yaml", "--all")
    nothing = as_json(run("renew", "--due", "30d", "--json"), "pki-issued")
    assert (nothing["issued"], nothing["kept"]) == ([], ["a", "b", "dc"])
    renewed = as_json(run("renew", "a", "--due", "91d", "--json"), "pki-issued")
    assert [entry["name"] for entry in renewed["issued"]] == ["a"]
    revoked = as_json(run("revoke", "b", "--reason", "key-compromise", "--json"), "pki-revoked")
    serial = revoked["certificates"][0]["serial"]
    assert revoked["crls"][0]["revoked"] == [serial]
    made = as_json(run("crl", "--out", "now.crl", "--pem", "--json"), "pki-crl")
    assert made["revoked"] == [serial] and made["number"] > revoked["crls"][0]["number"]
    found = x509.load_pem_x509_crl(Path("now.crl").read_bytes())
    assert found.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None
    states = {
        entry["name"]: entry["state"]
        for entry in as_json(run("list", "--all", "--json"), "pki-list")["certificates"]
    }
    assert states["b"] == "revoked"
    assert "b" not in [e["name"] for e in as_json(run("list", "--json"), "pki-list")["certificates"]]
    code, out, _ = run("list", "--due", "91d")
    assert code == 0 and {line.split()[1] for line in out.splitlines()[1:]} == {"a", "dc"}


def test_show_by_name_serial_and_file(run: Run) -> None:
    run("init")
    run("issue", "clinics.yaml", "dc")
    by_name = as_json(run("show", "dc", "--json"), "pki-show")["certificates"][0]
    assert by_name["names"] == ["DNS:dc.clinics.example"] and by_name["of"]["issuer"] == "issuing-1"
    by_serial = as_json(run("show", by_name["serial"][:10], "--json"), "pki-show")["certificates"][0]
    by_file = as_json(run("show", "pki/dc.pem", "--json"), "pki-show")["certificates"][0]
    assert by_name["sha256"] == by_serial["sha256"] == by_file["sha256"]
    code, out, _ = run("show", "issuing-1")
    assert code == 0 and "key_cert_sign" in out
    code, _, err = run("show", "nobody")
    assert code == 1 and "nothing here is named 'nobody'" in err


def test_export(run: Run) -> None:
    run("init")
    run("issue", "clinics.yaml", "a")
    code, out, _ = run("export", "a", "--chain")
    assert code == 0 and len(x509.load_pem_x509_certificates(out.encode())) == 3
    assert len(x509.load_pem_x509_certificates(run("export", "chain")[1].encode())) == 2
    assert run("export", "root", "--out", "root.der", "--format", "der")[0] == 0
    assert (
        x509.load_der_x509_certificate(Path("root.der").read_bytes()).issuer.rfc4514_string()
        == "CN=ipsecctl root 1"
    )
    code, _, err = run("export", "root", "--out", "root.der")
    assert code == 1 and "is there already" in err
    code, _, err = run("export", "a", "--chain", "--format", "der")
    assert code == 1 and "a DER file holds one certificate" in err
    assert run("export", "a", "--format", "p12", "--out", "a.p12")[0] == 0
    assert Path("a.p12").stat().st_mode & 0o777 == 0o600
    packed = load_pkcs12(Path("a.p12").read_bytes(), PASSPHRASE.encode())
    assert packed.key is not None and packed.cert is not None and len(packed.additional_certs) == 2
    done = subprocess.run(
        ["openssl", "pkcs12", "-in", "a.p12", "-nodes", "-passin", "stdin"],
        input=PASSPHRASE.encode() + b"\n",
        capture_output=True,
        check=True,
    )
    assert done.stdout.count(b"BEGIN CERTIFICATE") == 3


def test_export_as_json(run: Run) -> None:
    run("init")
    run("issue", "clinics.yaml", "a")
    printed = as_json(run("export", "chain", "--json"), "pki-export")
    assert printed["written"] is None and len(x509.load_pem_x509_certificates(printed["pem"].encode())) == 2
    asked = as_json(run("export", "b", "--csr", "clinics.yaml", "--out", "b.csr", "--json"), "pki-export")
    assert (asked["written"], asked["key_made"]) == ("b.csr", "file:pki/b.key")
    assert x509.load_pem_x509_csr(asked["pem"].encode()).is_signature_valid
    assert as_json(run("export", "nobody", "--json"), "diagnostics", 1)["diagnostics"]
    assert run("export", "a", "--format", "p12", "--json")[0] == 2


def test_a_request_out_and_a_chain_in(run: Run) -> None:
    """Two CAs: what the one asks for the other signs."""
    run("init", "--name", "Org", "--ca", "org")
    code, out, err = run("export", "dc", "--csr", "clinics.yaml", "--out", "dc.csr")
    assert code == 0 and "A key was made: file:pki/dc.key" in err
    key = Path("pki/dc.key").read_bytes()
    code, out, _ = run("issue", "--ca", "org", "--request", "dc.csr", "--out", "dc.pem")
    assert code == 0 and "dc.clinics.example" in out
    Path("chain.pem").write_text(run("export", "chain", "--ca", "org")[1])
    document = as_json(run("import", "clinics.yaml", "dc.pem", "chain.pem", "--json"), "pki-imported")
    assert [Path(place).name for place in document["written"]] == ["root.pem", "issuing.pem", "dc.pem"]
    assert Path("pki/dc.key").read_bytes() == key
    wrong = as_json(run("import", "clinics.yaml", "chain.pem", "dc.pem", "--json"), "diagnostics", 1)
    assert [finding["code"] for finding in wrong["diagnostics"]] == ["IP333"]


def test_a_key_that_came_with_its_certificate(run: Run) -> None:
    run("init", "--name", "Org", "--ca", "org")
    Path("else.yaml").write_text(topology_text().replace("pki/", "elsewhere/"))
    run("issue", "else.yaml", "dc", "--ca", "org")
    Path("chain.pem").write_text(run("export", "chain", "--ca", "org")[1])
    words = ("import", "clinics.yaml", "elsewhere/dc.pem", "chain.pem", "--key-file")
    code, _, err = run(*words, "elsewhere/nothing.key")
    assert code == 1 and "no such file" in err
    assert run(*words, "elsewhere/dc.key")[0] == 0
    assert Path("pki/dc.key").read_bytes() == Path("elsewhere/dc.key").read_bytes()
    Path("pki/dc.key").write_bytes(b"broken")
    code, _, err = run(*words, "elsewhere/dc.key", "--replace")
    assert code == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("issue clinics.yaml", "say for which sites or gateways, or --all"),
        ("issue clinics.yaml a --all", "say for which sites or gateways, or --all"),
        ("issue", "a topology file is wanted, or --request"),
        ("issue clinics.yaml a --request x.csr --out x.pem", "without a topology"),
        ("init --crl-url pki.example.org", "a URL is wanted"),
        ("init --crl-url http://pki.example.org/x.crl", "put {ca} into it"),
        ("init --passphrase secret-in-the-command-line", "file:PATH, env:NAME or age:PATH"),
        ("revoke a --reason fun", "one of unspecified, key-compromise"),
        ("export a --format xml", "one of pem, der, p12"),
        ("crl --json --out -", "cannot both go to standard output"),
    ],
)
def test_wrong_usage(run: Run, words: str, complaint: str) -> None:
    code, _, err = run(*words.split())
    assert code == 2
    assert complaint in " ".join(err.replace("│", " ").split())
    assert "secret-in" not in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("list", "there is no CA in ca"),
        ("issue clinics.yaml --all", "there is no CA in ca"),
        ("issue clinics.yaml nowhere", "has no site and no gateway 'nowhere'"),
        ("issue nothing.yaml --all", "cannot read nothing.yaml"),
        ("init --key rsa-1024", "there is no kind of key 'rsa-1024'"),
        ("init --permit example.org", "is no name constraint"),
        ("list --due soon", "is no span of time"),
        ("issue --request clinics.yaml --out x.pem", "neither PEM nor DER of a certificate request"),
    ],
)
def test_what_cannot_be_done(run: Run, words: str, complaint: str) -> None:
    code, _, err = run(*words.split())
    assert code == 1
    assert complaint in err
    assert not Path("ca").exists()


def test_who_reads_json_gets_json(run: Run) -> None:
    document = as_json(run("issue", "clinics.yaml", "--all", "--json"), "diagnostics", 1)
    assert document["diagnostics"][0]["summary"] == "there is no CA in ca"


def test_a_second_init_overwrites_nothing(run: Run) -> None:
    run("init")
    before = {path: path.read_bytes() for path in Path("ca").rglob("*") if path.is_file()}
    code, _, err = run("init")
    assert code == 1 and "is there already" in err
    assert before == {path: path.read_bytes() for path in Path("ca").rglob("*") if path.is_file()}
    assert not list(Path().glob(".ca.new-*"))


def test_a_wrong_passphrase_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    before = Path("ca/journal.jsonl").read_bytes()
    monkeypatch.setenv("IPSECCTL_CA_PASSPHRASE", "not the right one")
    code, _, err = run("issue", "clinics.yaml", "--all")
    assert code == 1 and "the passphrase does not open" in err and "not the right one" not in err
    assert Path("ca/journal.jsonl").read_bytes() == before


def test_nobody_to_ask(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPSECCTL_CA_PASSPHRASE")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, _, err = run("init")
    assert code == 1 and "there is nobody here to be asked" in err
    assert not Path("ca").exists()


def test_a_passphrase_by_reference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPSECCTL_CA_PASSPHRASE")
    Path("p").write_text(f"{PASSPHRASE}\n")
    Path("p").chmod(0o644)
    code, _, err = run("init", "--passphrase", "file:p")
    assert code == 1 and "readable or writable by others" in err
    Path("p").chmod(0o600)
    assert run("init", "--passphrase", "file:p")[0] == 0
    monkeypatch.setenv("OTHER", PASSPHRASE)
    assert run("crl", "--passphrase", "env:OTHER")[0] == 0


def test_asked_for_on_a_terminal_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPSECCTL_CA_PASSPHRASE")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    answers = iter([PASSPHRASE, "something else", PASSPHRASE, PASSPHRASE, PASSPHRASE])
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: next(answers))
    code, _, err = run("init")
    assert code == 1 and "the two passphrases differ" in err
    assert run("init")[0] == 0
    assert run("crl")[0] == 0


def test_a_batch_shows_how_far_it_is_only_on_a_terminal(run: Run) -> None:
    run("init")
    _, out, err = run("issue", "clinics.yaml", "--all")
    assert "\x1b" not in out + err and err == "3 issued.\n"

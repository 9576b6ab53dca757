"""Secrets from Vault, against a server that answers as Vault's documentation says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from vault_server import TOKEN, FakeVault, serving

from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import generate_psk, inspect, read, read_all
from ipsecctl.topology import SecretKind, SecretRef, VaultServer, load_text

from .conftest import TOPOLOGY, Pki

PSK = generate_psk()
NAMES = ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT")


@pytest.fixture(autouse=True)
def nothing_of_this_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with serving(FakeVault({"secret/data/ipsec/ab": {"psk": PSK, "note": "north", "number": 7}})) as served:
        yield served


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    return TOKEN


def ref(value: str, **server: Any) -> SecretRef:
    return SecretRef(SecretKind.VAULT, value, server=VaultServer(**server))


def refusal(reference: SecretRef, base: Path) -> str:
    with pytest.raises(SecretUnavailable) as refused:
        read(reference, base)
    said = f"{refused.value.summary}\n{refused.value.hint}"
    assert TOKEN not in said
    assert PSK not in said
    chain = refused.value.__cause__, refused.value.__context__
    assert TOKEN not in repr(chain)
    return said


@pytest.mark.usefixtures("token")
def test_a_field_is_read(vault: FakeVault, tmp_path: Path) -> None:
    found = read(ref("ipsec/ab#psk", address=vault.address), tmp_path)
    assert bytes(found) == PSK.encode()
    assert vault.asked == ["/v1/secret/data/ipsec/ab"]


def test_all_from_the_environment_as_the_vault_program_takes_it(
    vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.namespace = "network/team"
    monkeypatch.setenv("VAULT_ADDR", f"{vault.address}/")
    monkeypatch.setenv("VAULT_NAMESPACE", "network/team/")
    (tmp_path / "home" / ".vault-token").write_text(TOKEN)
    (tmp_path / "home" / ".vault-token").chmod(0o600)
    assert bytes(read(ref("ipsec/ab#psk"), tmp_path)) == PSK.encode()


def test_mount_namespace_and_a_token_by_reference(vault: FakeVault, tmp_path: Path) -> None:
    vault.namespace = "ops"
    vault.secrets["kv/net/data/a%20b"] = {"psk": PSK}
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "token").chmod(0o600)
    reference = ref(
        "a b#psk",
        address=vault.address,
        mount="kv/net",
        namespace="ops",
        token=SecretRef(SecretKind.FILE, "token"),
    )
    assert bytes(read(reference, tmp_path)) == PSK.encode()


@pytest.mark.usefixtures("token")
def test_many_fields_of_one_secret_are_asked_for_once(vault: FakeVault, tmp_path: Path) -> None:
    for number in range(20):
        vault.secrets[f"secret/data/t{number}"] = {"one": generate_psk(), "two": generate_psk()}
    server = {"address": vault.address}
    refs = [ref(f"t{number}#{name}", **server) for number in range(20) for name in ("one", "two")]
    found = read_all(refs, tmp_path)
    assert len(set(found.values())) == 40
    assert sorted(vault.asked) == sorted(f"/v1/secret/data/t{number}" for number in range(20))


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ipsec/ab#pks", "no such field in Vault's secret: vault:ipsec/ab#pks"),
        ("ipsec/ab#number", "no text"),
        ("ipsec/none#psk", "not in Vault: vault:ipsec/none#psk"),
        ("ipsec/gone#psk", "deleted in Vault: vault:ipsec/gone#psk"),
    ],
)
def test_what_is_not_there(vault: FakeVault, tmp_path: Path, value: str, said: str) -> None:
    vault.deleted.add("secret/data/ipsec/gone")
    assert said in refusal(ref(value, address=vault.address), tmp_path)


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((503, {}, b'{"errors":["Vault is sealed"]}'), "sealed, or down for maintenance"),
        ((400, {}, b'{"errors":["missing client token"]}'), "status 400"),
        ((500, {}, b"<html>what</html>"), "status 500"),
        ((403, {}, f'{{"errors":["bad token {TOKEN}"]}}'.encode()), "bad token ***"),
        ((307, {"Location": f"https://u:{TOKEN}@evil.example:1/x"}, b""), "Vault leads elsewhere: "),
        ((200, {}, b'{"data":{"psk":"v1"}}'), "not that of KV version 2"),
        ((200, {}, b"no json"), "not that of KV version 2"),
        ((200, {}, b"[]"), "not that of KV version 2"),
        ((200, {}, b" " * (4 << 20) + b" "), "more than 4 MiB"),
    ],
)
def test_other_answers(vault: FakeVault, tmp_path: Path, answer: Any, said: str) -> None:
    vault.answer = answer
    assert said in refusal(ref("ipsec/ab#psk", address=vault.address), tmp_path)
    assert len(vault.asked) == 1


def test_a_wrong_token_is_named_by_what_to_look_at(
    vault: FakeVault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "hvs.other")
    said = refusal(ref("ipsec/ab#psk", address=vault.address), tmp_path)
    assert "Vault denies it: vault:ipsec/ab#psk" in said
    assert "permission denied" in said
    assert "vault token lookup" in said
    assert "hvs.other" not in said


def test_without_address_or_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "VAULT_ADDR" in refusal(ref("a#b"), tmp_path)
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example.org:8200")
    assert "Vault without TLS" in refusal(ref("a#b"), tmp_path)
    monkeypatch.setenv("VAULT_ADDR", f"https://u:{TOKEN}@vault.example.org")
    assert "not the address of a Vault: VAULT_ADDR" in refusal(ref("a#b"), tmp_path)
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example.org")
    assert "vault login" in refusal(ref("a#b"), tmp_path)
    monkeypatch.setenv("VAULT_TOKEN", f"{TOKEN} and more")
    assert "not a token" in refusal(ref("a#b"), tmp_path)


@pytest.mark.usefixtures("token")
def test_a_token_file_that_others_read_is_refused(vault: FakeVault, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o644)
    token = SecretRef(SecretKind.FILE, "token")
    said = refusal(ref("ipsec/ab#psk", address=vault.address, token=token), tmp_path)
    assert "readable or writable by others: file:token" in said
    assert vault.asked == []


@pytest.mark.usefixtures("token")
def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = refusal(ref("a#b", address=f"http://127.0.0.1:{port}"), tmp_path)
    assert f"Vault cannot be reached: http://127.0.0.1:{port} (Connection refused)" in said


@pytest.mark.slow
@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"X: y\r\n"])
def test_a_server_that_never_ends_is_left(vault: FakeVault, tmp_path: Path, drip: bytes) -> None:
    vault.drip = drip
    assert "cannot be reached" in refusal(ref("a#b", address=vault.address, timeout_s=1), tmp_path)


@pytest.mark.usefixtures("token")
def test_a_dead_server_is_asked_once(vault: FakeVault, tmp_path: Path) -> None:
    vault.answer = (503, {}, b'{"errors":["Vault is sealed"]}')
    refs = [ref(f"t{number}#psk", address=vault.address) for number in range(100)]
    with pytest.raises(SecretUnavailable, match="Vault is sealed") as refused:
        read_all(refs, tmp_path)
    assert len(vault.asked) <= 8
    assert "more" not in refused.value.summary


@pytest.mark.usefixtures("token")
def test_several_problems_are_counted(vault: FakeVault, tmp_path: Path) -> None:
    refs = [ref(f"t{number}#psk", address=vault.address) for number in range(3)]
    with pytest.raises(SecretUnavailable, match=r"vault:t0#psk.*and 2 more: .*vault:t1#psk.*\.\.\."):
        read_all(refs, tmp_path)


@pytest.fixture
def over_tls(pki: Pki) -> Iterator[FakeVault]:
    now = datetime.now(UTC)
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    pki.issue("127.0.0.1", file="vault", since=since, until=until)
    vault = FakeVault({"secret/data/ipsec/ab": {"psk": PSK}})
    with serving(vault, pki.directory / "vault.pem", pki.directory / "vault.key") as served:
        yield served


@pytest.fixture
def ca_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test CA, which is valid from 2029 on, be valid today."""
    monkeypatch.setattr(f"{Pki.__module__}.NOW", datetime.now(UTC))


@pytest.mark.usefixtures("ca_now", "token")
def test_over_tls_with_its_ca(over_tls: FakeVault, tmp_path: Path) -> None:
    reference = ref("ipsec/ab#psk", address=over_tls.address, ca="pki/ca.pem")
    assert bytes(read(reference, tmp_path)) == PSK.encode()


@pytest.mark.usefixtures("ca_now", "token")
def test_an_unknown_certificate_gets_no_token(over_tls: FakeVault, tmp_path: Path) -> None:
    said = refusal(ref("ipsec/ab#psk", address=over_tls.address), tmp_path)
    assert "its certificate is not accepted" in said
    assert "VAULT_CACERT" in said
    assert over_tls.asked == []


@pytest.mark.usefixtures("ca_now", "token")
def test_a_ca_that_is_not_there(over_tls: FakeVault, tmp_path: Path) -> None:
    said = refusal(ref("ipsec/ab#psk", address=over_tls.address, ca="none.pem"), tmp_path)
    assert "Vault's CA cannot be read" in said


@pytest.mark.usefixtures("token")
def test_plain_http_where_tls_is_wanted(vault: FakeVault, tmp_path: Path) -> None:
    said = refusal(ref("a#b", address=vault.address.replace("http:", "https:")), tmp_path)
    assert "no TLS" in said


@pytest.mark.usefixtures("token")
def test_validate_asks_only_when_told_to(vault: FakeVault, tmp_path: Path) -> None:
    vault.secrets["secret/data/ipsec/t-a"] = {"psk": "abc12"}
    text = TOPOLOGY.format(credential='{psk: "vault:ipsec/{tunnel}#psk"}')
    loaded = load_text(f"vault: {{address: '{vault.address}'}}\n{text}", "clinics.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    told = inspect(loaded.topology, tmp_path, loaded.source.locate)
    assert [(d.code, d.severity.label) for d in told] == [("IP307", "info")]
    assert "--resolve" in told[0].hint
    assert vault.asked == []
    resolved = inspect(loaded.topology, tmp_path, loaded.source.locate, resolve=True)
    assert {d.code for d in resolved} == {"IP305", "IP310"}
    assert len(vault.asked) == 2


@pytest.mark.parametrize(
    ("section", "code"),
    [
        ("vault: {address: 'http://vault.example.org:8200'}", "IP014"),
        ("vault: {address: 'vault.example.org'}", "IP014"),
        ("vault: {address: 'https://v/x'}", "IP014"),
        ("vault: {token: hvs.secret-itself}", "IP162"),
        ("vault: {token: 'vault:a#b'}", "IP162"),
        ("vault: {mount: '../x'}", "IP014"),
        ("vault: {mount: ''}", "IP014"),
        ("vault: {adress: x}", "IP011"),
    ],
)
def test_a_wrong_section(section: str, code: str) -> None:
    text = TOPOLOGY.format(credential='{psk: "vault:ipsec/{tunnel}#psk"}')
    found = load_text(f"{section}\n{text}", "clinics.yaml").diagnostics
    assert [d.code for d in found] == [code]
    assert "hvs.secret" not in str(found)


@pytest.mark.parametrize(
    "psk",
    [
        '"vault:ipsec/{tunnel}"',
        '"vault:#psk"',
        '"vault:a//b#psk"',
        '"vault:../sys/raw#psk"',
        '"vault:data/ipsec#psk"',
        '"vault:a?version=1#psk"',
        '"command:pass show x"',
        "{command: pass show x}",
        "{command: []}",
        "{command: [a, 7]}",
        "{command: [a], shell: true}",
        "{comand: [a]}",
    ],
)
def test_a_wrong_reference(psk: str) -> None:
    text = TOPOLOGY.format(credential=f"{{psk: {psk}}}")
    found = load_text(text, "clinics.yaml").diagnostics
    assert [d.code for d in found] == ["IP162"]

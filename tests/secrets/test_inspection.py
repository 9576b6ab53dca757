"""Findings about the credentials of a topology, each at its line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from ipsecctl.errors import Diagnostic, Severity
from ipsecctl.secrets import generate_psk, inspect, read_certificate, write_missing
from ipsecctl.topology import Loaded, load_text

from .conftest import NOW, TOPOLOGY, Pki

EACH = '{psk: "file:{tunnel}.psk"}'
CERTIFICATES = '{certificate: "pki/{gateway}.pem", key: "file:pki/{gateway}.key", ca: pki/ca.pem}'
Loader = Callable[[str], Loaded]


def look(loaded: Loaded, base: Path) -> tuple[Diagnostic, ...]:
    assert loaded.topology is not None
    return inspect(loaded.topology, base, loaded.source.locate, now=NOW)


def codes(found: tuple[Diagnostic, ...]) -> list[str]:
    return [diagnostic.code for diagnostic in found]


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


class TestPsk:
    @pytest.fixture
    def loaded(self, load: Loader, tmp_path: Path) -> Loaded:
        loaded = load(EACH)
        assert loaded.topology is not None
        write_missing(loaded.topology, tmp_path)
        return loaded

    def test_good_ones_give_no_finding(self, loaded: Loaded, tmp_path: Path) -> None:
        assert look(loaded, tmp_path) == ()

    def test_missing_ones_are_told_together_at_their_line(self, load: Loader, tmp_path: Path) -> None:
        (found,) = look(load(EACH), tmp_path)
        assert (found.severity, found.code) == (Severity.ERROR, "IP301")
        assert found.summary == "no such file: file:t-a.psk, file:t-b.psk"
        assert "ipsecctl secret generate" in found.hint
        assert (found.file, found.line) == ("clinics.yaml", 4)

    def test_readable_by_others(self, loaded: Loaded, tmp_path: Path) -> None:
        (tmp_path / "t-a.psk").chmod(0o644)
        (found,) = look(loaded, tmp_path)
        assert (found.severity, found.code) == (Severity.ERROR, "IP302")
        assert "t-a.psk (mode 0644)" in found.summary

    @pytest.mark.parametrize(
        ("psk", "code", "severity"),
        [
            ("clinics2024", "IP310", Severity.ERROR),
            ("Zq7VtK2mX9wB4n", "IP311", Severity.WARNING),
            ("0xkT2vWq8ZrB5nYx0LmE7cJd4hGs9aUf3p", "IP303", Severity.ERROR),
            ("two\nlines", "IP303", Severity.ERROR),
            (" kT2vWq8ZrB5nYx0LmE7cJd4hGs9aUf3p", "IP313", Severity.WARNING),
        ],
    )
    def test_weak_and_unusable(
        self, loaded: Loaded, tmp_path: Path, psk: str, code: str, severity: Severity
    ) -> None:
        write(tmp_path / "t-a.psk", psk)
        (found,) = look(loaded, tmp_path)
        assert (found.code, found.severity, found.line) == (code, severity, 4)
        assert psk not in f"{found} {found.hint}"

    def test_the_same_for_two_tunnels_by_content(self, loaded: Loaded, tmp_path: Path) -> None:
        write(tmp_path / "t-a.psk", (tmp_path / "t-b.psk").read_text())
        (found,) = look(loaded, tmp_path)
        assert (found.code, found.severity) == ("IP312", Severity.WARNING)
        assert found.summary == "one PSK for 2 tunnels: t-a, t-b"

    def test_the_same_for_two_tunnels_by_reference(self, load: Loader, tmp_path: Path) -> None:
        write(tmp_path / "all", generate_psk())
        assert codes(look(load('{psk: "file:all"}'), tmp_path)) == ["IP312"]

    def test_different_ones_at_the_two_ends(self, tmp_path: Path) -> None:
        text = TOPOLOGY.format(credential=EACH).replace(
            "    gateway: 203.0.113.20\n", '    gateway: 203.0.113.20\n    credential: {psk: "file:a"}\n'
        )
        for name in ("a", "t-a.psk", "t-b.psk"):
            write(tmp_path / name, generate_psk())
        (found,) = look(load_text(text, "t.yaml"), tmp_path)
        assert found.code == "IP314"
        assert "t-a (" in found.summary

    def test_many_are_counted(self, tmp_path: Path) -> None:
        sites = "".join(
            f"  s{n}: {{networks: {{lan: 10.30.{n}.0/24}}, gateway: 203.0.113.{n}}}\n"
            for n in range(110, 130)
        )
        text = TOPOLOGY.format(credential=EACH).replace("tunnels:\n", f"{sites}tunnels:\n")
        loaded = load_text(text.replace("[a, b]", '["s*"]'), "t.yaml")
        (found,) = look(loaded, tmp_path)
        assert found.summary == "no such file: file:t-s110.psk, file:t-s111.psk, file:t-s112.psk and 17 more"


class TestCertificates:
    @pytest.fixture
    def loaded(self, load: Loader, pki: Pki) -> Loaded:
        return load(CERTIFICATES)

    def test_good_ones_give_no_finding(self, loaded: Loaded, tmp_path: Path) -> None:
        assert look(loaded, tmp_path) == ()

    @pytest.mark.parametrize(
        ("changes", "code", "severity", "said"),
        [
            ({"until": NOW - timedelta(hours=1)}, "IP322", Severity.ERROR, "expired on 2029-12-31"),
            ({"since": NOW + timedelta(hours=1)}, "IP322", Severity.ERROR, "not valid before"),
            ({"until": NOW + timedelta(days=9)}, "IP323", Severity.WARNING, "expires on 2030-01-10"),
            ({"identities": ("other",)}, "IP325", Severity.ERROR, "identity 'a'"),
            ({"identities": ()}, "IP325", Severity.ERROR, "identity 'a'"),
            ({"ca_key": ec.generate_private_key(ec.SECP384R1())}, "IP326", Severity.ERROR, "pki/ca.pem"),
            ({"mode": 0o644}, "IP302", Severity.ERROR, "mode 0644"),
        ],
    )
    def test_a_wrong_certificate(
        self, loaded: Loaded, pki: Pki, changes: dict[str, Any], code: str, severity: Severity, said: str
    ) -> None:
        pki.issue("a", **changes)
        (found,) = look(loaded, pki.directory.parent)
        assert (found.code, found.severity, found.line) == (code, severity, 4)
        assert said in found.summary
        assert "pki/a" in found.summary

    def test_a_small_rsa_key(self, loaded: Loaded, pki: Pki, small_rsa_key: Any) -> None:
        pki.issue("a", key=small_rsa_key)
        (found,) = look(loaded, pki.directory.parent)
        assert found.code == "IP327"

    def test_the_key_of_another_certificate(self, loaded: Loaded, pki: Pki) -> None:
        pki.write("a.key", (pki.directory / "b.key").read_bytes(), 0o600)
        (found,) = look(loaded, pki.directory.parent)
        assert found.code == "IP324"

    def test_a_key_with_a_password_and_no_key_at_all(self, loaded: Loaded, pki: Pki) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pki.write(
            "a.key",
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            0o600,
        )
        pki.write("b.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600)
        found = look(loaded, pki.directory.parent)
        assert codes(found) == ["IP303", "IP303"]
        assert "password" in found[0].summary + found[1].summary

    @pytest.mark.parametrize(("file", "code"), [("a.pem", "IP320"), ("a.key", "IP301")])
    def test_a_missing_file(self, loaded: Loaded, pki: Pki, file: str, code: str) -> None:
        (pki.directory / file).unlink()
        found = look(loaded, pki.directory.parent)
        assert set(codes(found)) == {code}

    def test_a_missing_ca_is_one_finding(self, loaded: Loaded, pki: Pki) -> None:
        (pki.directory / "ca.pem").unlink()
        (found,) = look(loaded, pki.directory.parent)
        assert (found.code, found.summary) == (
            "IP320",
            "no certificate (No such file or directory): pki/ca.pem",
        )

    def test_not_a_certificate(self, loaded: Loaded, pki: Pki) -> None:
        pki.write("a.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        assert set(codes(look(loaded, pki.directory.parent))) == {"IP321"}

    def test_a_ca_that_is_none(self, loaded: Loaded, pki: Pki) -> None:
        pki.issue("a", file="ca")
        assert "IP328" in codes(look(loaded, pki.directory.parent))

    def test_more_than_one_certificate_in_a_file(self, loaded: Loaded, pki: Pki) -> None:
        both = (pki.directory / "a.pem").read_bytes() + (pki.directory / "ca.pem").read_bytes()
        pki.write("a.pem", both)
        (found,) = look(loaded, pki.directory.parent)
        assert (found.code, found.severity) == ("IP329", Severity.WARNING)

    @pytest.mark.parametrize("identity", ["192.0.2.1", "gw@example.org", "A.Example.ORG", "CN=a"])
    def test_other_forms_of_identity(self, pki: Pki, identity: str) -> None:
        text = TOPOLOGY.format(credential=CERTIFICATES).replace(
            "gateway: 203.0.113.20", f"gateway: {{address: 203.0.113.20, name: a, identity: '{identity}'}}"
        )
        loaded = load_text(text, "t.yaml")
        if "=" not in identity:
            assert codes(look(loaded, pki.directory.parent)) == ["IP325"]
            pki.issue("a", identities=(identity.lower(),))
        assert look(loaded, pki.directory.parent) == ()

    def test_of_an_end_that_is_not_managed_only_the_ca_counts(self, pki: Pki) -> None:
        text = TOPOLOGY.format(credential=CERTIFICATES).replace("  a:\n", "  a:\n    managed: false\n")
        loaded = load_text(text, "t.yaml")
        (pki.directory / "a.pem").unlink()
        (pki.directory / "a.key").unlink()
        assert look(loaded, pki.directory.parent) == ()


def test_read_certificate_gives_pem_for_pem_and_der(pki: Pki) -> None:
    pki.write("ca.der", pki.ca.public_bytes(Encoding.DER))
    pem = pki.ca.public_bytes(Encoding.PEM)
    assert read_certificate("ca.pem", pki.directory) == pem
    assert read_certificate("ca.der", pki.directory) == pem

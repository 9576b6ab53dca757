"""Topologies and a small PKI for the tests of secrets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ipsecctl.topology import Loaded, load_text

NOW = datetime(2030, 1, 1, tzinfo=UTC)

TOPOLOGY = """\
ipsecctl: 1
name: clinics
credentials:
  all: {credential}
defaults: {{credential: all, control: lab}}
sites:
  dc:
    networks: {{servers: 10.10.0.0/24}}
    gateway: 198.51.100.10
  a:
    networks: {{lan: 10.20.1.0/24}}
    gateway: 203.0.113.20
  b:
    networks: {{lan: 10.20.2.0/24}}
    gateway: 203.0.113.30
tunnels:
  t: {{hub: dc, spokes: [a, b]}}
"""


@pytest.fixture
def load() -> Callable[[str], Loaded]:
    """Load a hub and two spokes that all have the credential given as YAML."""

    def loader(credential: str) -> Loaded:
        loaded = load_text(TOPOLOGY.format(credential=credential), "clinics.yaml")
        assert loaded.topology is not None, loaded.diagnostics
        return loaded

    return loader


@dataclass(frozen=True)
class Pki:
    """Makes certificates and keys in a directory."""

    directory: Path
    ca_key: Any
    ca: x509.Certificate

    def issue(
        self,
        name: str,
        *,
        file: str = "",
        identities: tuple[str, ...] | None = None,
        since: datetime = NOW - timedelta(days=1),
        until: datetime = NOW + timedelta(days=365),
        ca_key: Any = None,
        key: Any = None,
        mode: int = 0o600,
    ) -> x509.Certificate:
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [name] if identities is None else identities
        builder = _builder(name, self.ca.subject, key.public_key(), since, until)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_san(n) for n in names]), critical=False
            )
        certificate = builder.sign(ca_key or self.ca_key, hashes.SHA256())
        self.write(f"{file or name}.pem", certificate.public_bytes(Encoding.PEM))
        self.write_key(f"{file or name}.key", key, mode)
        return certificate

    def write(self, file: str, content: bytes, mode: int = 0o644) -> None:
        path = self.directory / file
        path.write_bytes(content)
        path.chmod(mode)

    def write_key(self, file: str, key: Any, mode: int = 0o600) -> None:
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.write(file, content, mode)


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.RFC822Name(name) if "@" in name else x509.DNSName(name)


def _builder(
    name: str, issuer: x509.Name | None, public_key: Any, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """A CA and good certificates for the gateways dc, a and b in pki/."""
    directory = tmp_path / "pki"
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP384R1())
    builder = _builder("Test CA", None, key.public_key(), NOW - timedelta(days=1), NOW + timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = builder.sign(key, hashes.SHA384())
    made = Pki(directory, key, ca)
    made.write("ca.pem", ca.public_bytes(Encoding.PEM))
    for name in ("dc", "a", "b"):
        made.issue(name)
    return made


@pytest.fixture(scope="session")
def small_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)

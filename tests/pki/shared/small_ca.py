"""A CA in a folder, and a topology of a hub and two spokes whose gateways show certificates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from ipsecctl.pki.authority import Made
from ipsecctl.pki.folder import Folder
from ipsecctl.pki.issuing import Wishes, issue_wanted
from ipsecctl.pki.keytypes import KeyType
from ipsecctl.pki.ledger import Ledger
from ipsecctl.pki.wanted import chosen
from ipsecctl.secrets import Secret
from ipsecctl.topology import Topology, load_text

KINDS = [
    pytest.param(kind, marks=pytest.mark.slow if kind.value.startswith("rsa") else ()) for kind in KeyType
]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
PASSPHRASE = "correct horse battery"

TOPOLOGY = """\
ipsecctl: 1
name: clinics
credentials:
  all: {credential}
defaults: {{credential: all, control: lab}}
sites:
  dc:
    networks: {{servers: 10.10.0.0/24}}
    gateway: {{address: 198.51.100.10, identity: "{identity}"}}
  a:
    networks: {{lan: 10.20.1.0/24}}
    gateway: 203.0.113.20
  b:
    networks: {{lan: 10.20.2.0/24}}
    gateway: 203.0.113.30
tunnels:
  t: {{hub: dc, spokes: [a, b]}}
"""
ONE_LEVEL = '{certificate: "pki/{gateway}.pem", key: "file:pki/{gateway}.key", ca: pki/root.pem}'
TWO_LEVELS = f"{ONE_LEVEL[:-1]}, chain: pki/issuing.pem}}"


def topology_text(credential: str = TWO_LEVELS, identity: str = "dc.clinics.example") -> str:
    return TOPOLOGY.format(credential=credential, identity=identity)


def topology(base: Path, credential: str = TWO_LEVELS, identity: str = "dc.clinics.example") -> Topology:
    loaded = load_text(topology_text(credential, identity), str(base / "clinics.yaml"))
    assert loaded.topology is not None, loaded.diagnostics
    return loaded.topology


def passphrase(_: str) -> Secret:
    return Secret(PASSPHRASE.encode())


def no_passphrase(name: str) -> Secret:
    raise AssertionError(f"the passphrase of {name} was asked for")


@dataclass(frozen=True)
class Ca:
    """A CA in a folder below ``base``, where the topology's places are."""

    base: Path
    folder: Folder

    @property
    def ledger(self) -> Ledger:
        return self.folder.ledger()

    def issue(
        self,
        *names: str,
        now: datetime = NOW,
        credential: str = TWO_LEVELS,
        identity: str = "",
        **wishes: Any,
    ) -> Made:
        made = topology(self.base, credential, identity or "dc.clinics.example")
        return issue_wanted(self.folder, chosen(made, names), self.base, Wishes(**wishes), passphrase, now)

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.base / "pki" / f"{name}.pem").read_bytes())

    def left(self) -> set[str]:
        """Return the names of the files in the topology's places, drafts included."""
        return (
            {path.name for path in (self.base / "pki").iterdir()} if (self.base / "pki").exists() else set()
        )

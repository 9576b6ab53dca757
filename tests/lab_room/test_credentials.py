"""Credentials that the lab makes: certificates that charon will take, keys that only their owner reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ipsecctl.errors import LabError
from ipsecctl.lab.credentials import make_missing
from ipsecctl.lab.files import node_files
from ipsecctl.lab.find import load
from ipsecctl.resources import resource_dir
from ipsecctl.secrets import inspect
from ipsecctl.topology import Topology, load_text


def topology(folder: Path, name: str) -> Topology:
    text = (resource_dir("topologies") / f"{name}.yaml").read_text()
    loaded = load_text(text, str(folder / f"{name}.yaml"))
    assert loaded.topology is not None
    return loaded.topology


def test_certificates_are_issued_once(tmp_path: Path) -> None:
    mesh = topology(tmp_path, "mesh-dual-stack")
    made = make_missing(mesh)
    pki = tmp_path / "pki" / "mesh-dual-stack"
    assert {path.name for path in made} == {
        *("ca.key", "ca.pem", "north.key", "north.pem"),
        *("south.key", "south.pem", "west.key", "west.pem"),
    }
    assert {path.stat().st_mode & 0o777 for path in pki.glob("*.key")} == {0o600}
    ca = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    north = x509.load_pem_x509_certificate((pki / "north.pem").read_bytes())
    north.verify_directly_issued_by(ca)
    names = north.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["north"]
    key = serialization.load_pem_private_key((pki / "north.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == north.public_key()
    assert make_missing(mesh) == ()


def test_what_the_lab_makes_has_nothing_to_complain_about(tmp_path: Path) -> None:
    for name in ("mesh-dual-stack", "clinic-dc"):
        made = topology(tmp_path, name)
        make_missing(made)
        assert inspect(made, tmp_path, lambda _: (1, 1)) == ()


def test_a_lost_certificate_is_issued_again_by_the_same_ca(tmp_path: Path) -> None:
    mesh = topology(tmp_path, "mesh-dual-stack")
    make_missing(mesh)
    pki = tmp_path / "pki" / "mesh-dual-stack"
    ca = (pki / "ca.pem").read_bytes()
    (pki / "west.pem").unlink()
    with pytest.raises(LabError, match=r"west\.key is there and .*west\.pem is not"):
        make_missing(mesh)
    (pki / "west.key").unlink()
    assert [path.name for path in make_missing(mesh)] == ["west.key", "west.pem"]
    assert (pki / "ca.pem").read_bytes() == ca


def test_a_foreign_ca_is_left_alone(tmp_path: Path) -> None:
    mesh = topology(tmp_path, "mesh-dual-stack")
    make_missing(mesh)
    pki = tmp_path / "pki" / "mesh-dual-stack"
    for name in ("ca.key", "west.pem", "west.key"):
        (pki / name).unlink()
    with pytest.raises(LabError, match="is not the lab's"):
        make_missing(mesh)


def test_a_partners_file_gets_the_psk_of_the_topology(tmp_path: Path) -> None:
    for folder in ("topologies", "labs"):
        (tmp_path / folder).mkdir()
    shutil.copy(resource_dir("topologies") / "partner.yaml", tmp_path / "topologies")
    shutil.copytree(resource_dir("labs") / "partner", tmp_path / "labs" / "partner")
    lab = load(str(tmp_path / "labs" / "partner"))
    psk = tmp_path / "topologies" / "secrets" / "partner" / "labco.psk"
    psk.parent.mkdir(parents=True)
    psk.write_bytes(b"a password that nobody guesses\n")
    psk.chmod(0o600)
    content = node_files(lab, lab.node("labco"))["/etc/swanctl/conf.d/labco.conf"]
    assert b"secret = 0sYSBwYXNzd29yZCB0aGF0IG5vYm9keSBndWVzc2Vz\n" in content
    assert b"@psk" not in content


def test_a_ca_between_is_made_where_the_topology_has_one(tmp_path: Path) -> None:
    text = (resource_dir("topologies") / "mesh-dual-stack.yaml").read_text()
    text = text.replace("    ca: pki/", "    chain: pki/mesh-dual-stack/issuing.pem\n    ca: pki/")
    mesh = load_text(text, str(tmp_path / "mesh.yaml")).topology
    assert mesh is not None
    made = {path.name for path in make_missing(mesh)}
    assert {"ca.pem", "ca.key", "issuing.pem", "issuing.key", "north.pem"} <= made
    assert inspect(mesh, tmp_path, lambda _: (1, 1)) == ()
    assert make_missing(mesh) == ()

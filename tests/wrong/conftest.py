"""The files that a wrong topology refers to, made as ``setup.yaml`` says.

Git keeps no modes, and certificates and keys are made anew.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.date(2120, 1, 1)


@pytest.fixture
def set_up() -> Callable[[Path, Path], None]:
    """Return what makes everything that a ``setup.yaml`` lists below a directory."""
    return _set_up


def _set_up(setup: Path, base: Path) -> None:
    """Make certificates (signed by ``authority``), copies, files, directories, links and pipes, in order."""
    wanted: dict[str, Any] = yaml.safe_load(setup.read_text(encoding="utf-8"))
    if "authority" in wanted:
        _make_certificates(wanted, base)
    for source, target in wanted.get("copies", {}).items():
        shutil.copy2(base / source, base / target)
    for name, file in wanted.get("files", {}).items():
        _write(base / name, file["content"].encode(), int(file["mode"], 8))
    for name in wanted.get("directories", []):
        (base / name).mkdir(parents=True)
    for name, target in wanted.get("links", {}).items():
        (base / name).symlink_to(target)
    for name in wanted.get("pipes", []):
        os.mkfifo(base / name)


def _make_certificates(wanted: dict[str, Any], base: Path) -> None:
    ours, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("Test CA", ours.public_key(), ours, [], _UNTIL, authority=True)
    _write(base / f"{wanted['authority']}.pem", authority.public_bytes(serialization.Encoding.PEM), 0o644)
    for stem, wish in wanted["certificates"].items():
        key = ec.generate_private_key(ec.SECP256R1())
        signer = other if "signed_by" in wish else ours
        certificate = _certificate(
            stem.rpartition("/")[2], key.public_key(), signer, wish["names"], wish.get("until", _UNTIL)
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(base / f"{stem}.key", pem, int(wish.get("mode", "0600"), 8))
        _write(base / f"{stem}.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _certificate(
    subject: str,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    names: list[str],
    until: datetime.date,
    *,
    authority: bool = False,
) -> x509.Certificate:
    end = datetime.datetime(until.year, until.month, until.day, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_SINCE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)

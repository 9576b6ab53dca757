"""What validate says of PPKs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipsecctl.secrets import generate_psk, inspect
from ipsecctl.topology import load_text

TOPOLOGY = """\
ipsecctl: 1
name: ppks
defaults: {credential: {psk: "file:a.psk"}, control: lab}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 198.51.100.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 203.0.113.2}
tunnels:
  ab: {between: [a, b], ppk: {secret: "file:REF"}}
"""
PSK, PPK = generate_psk(), generate_psk()


def codes(base: Path, ref: str, **files: str) -> list[str]:
    for name, content in {"a.psk": PSK, **files}.items():
        (base / name.replace("_", ".")).write_text(content)
        (base / name.replace("_", ".")).chmod(0o600)
    loaded = load_text(TOPOLOGY.replace("REF", ref), "ppks.yaml")
    assert loaded.topology is not None, loaded.diagnostics
    return [each.code for each in inspect(loaded.topology, base, loaded.source.locate)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PPK, []),
        ("8f3a91c4e7d250b6c1e58a7d03f4b962", ["IP315"]),
        ("clinic123", ["IP310"]),
        ("", ["IP303"]),
        (PSK, ["IP316"]),
    ],
    ids=["good", "short", "weak", "empty", "the PSK"],
)
def test_a_ppk(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert codes(tmp_path, "a.ppk", a_ppk=content) == expected


def test_one_that_is_missing_and_one_that_is_the_psk(tmp_path: Path) -> None:
    assert codes(tmp_path, "none.ppk") == ["IP301"]
    assert codes(tmp_path, "a.psk") == ["IP316"]

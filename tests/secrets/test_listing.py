"""The list of secrets: what is said of each, and what never is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipsecctl.cli.secret import app
from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import generate_psk
from ipsecctl.secrets.listing import fingerprint_key, list_secrets
from ipsecctl.topology import Loaded

from .conftest import TOPOLOGY

KEY, OTHER_KEY = b"k" * 32, b"l" * 32


def private(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o600)


def test_equal_secrets_have_equal_fingerprints_under_one_key(
    load: Callable[[str], Loaded], tmp_path: Path
) -> None:
    topology = load('{psk: "file:{tunnel}.psk"}').topology
    assert topology is not None
    psk = generate_psk()
    for tunnel in topology.tunnels:
        private(tmp_path / f"{tunnel.name}.psk", psk)
    listed = list_secrets(topology, tmp_path, KEY)
    assert [each.tunnels for each in listed] == [(tunnel.name,) for tunnel in topology.tunnels]
    assert len({each.fingerprint for each in listed}) == 1
    assert list_secrets(topology, tmp_path, OTHER_KEY)[0].fingerprint != listed[0].fingerprint
    assert all(each.bits is not None and each.bits > 200 for each in listed)
    assert psk not in repr(listed)


def test_what_is_missing_and_what_is_not_asked_for(load: Callable[[str], Loaded], tmp_path: Path) -> None:
    missing = load('{psk: "file:none.psk"}').topology
    elsewhere = load("{psk: {command: [touch, ran]}}").topology
    assert missing is not None
    assert elsewhere is not None
    (found,) = list_secrets(missing, tmp_path, KEY)
    assert (found.problem, found.fingerprint, found.asked) == ("no such file", None, True)
    assert len(found.tunnels) == 2
    (found,) = list_secrets(elsewhere, tmp_path, KEY)
    assert (found.problem, found.fingerprint, found.asked) == ("", None, False)
    assert not (tmp_path / "ran").exists()
    (found,) = list_secrets(elsewhere, tmp_path, KEY, resolve=True)
    assert (tmp_path / "ran").exists()
    assert found.problem == "empty"


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "fingerprint.key"
    key = fingerprint_key(path)
    assert fingerprint_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["fingerprint.key"]
    path.chmod(0o644)
    with pytest.raises(SecretUnavailable, match="not private"):
        fingerprint_key(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(SecretUnavailable, match="not a key of fingerprints"):
        fingerprint_key(path)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "clinics.yaml"
    group = "t: {hub: dc, spokes: [a, b]}"
    with_ppk = 't: {hub: dc, spokes: [a, b], ppk: {secret: "file:{tunnel}.ppk"}}'
    file.write_text(TOPOLOGY.format(credential='{psk: "file:{tunnel}.psk"}').replace(group, with_ppk))
    assert CliRunner().invoke(app, ["generate", str(file)]).exit_code == 0
    done = CliRunner().invoke(app, ["list", str(file)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ppk", "psk", "ppk", "psk"]
    document = json.loads(CliRunner().invoke(app, ["list", "--json", str(file)]).stdout)
    assert document["schema"] == "ipsecctl/secrets/1"
    for each, line in zip(document["secrets"], lines, strict=True):
        assert each["fingerprint"] in line
    for each in tmp_path.glob("*.p?k"):
        assert each.read_text().strip() not in done.output
        each.unlink()
    assert CliRunner().invoke(app, ["list", str(file)]).exit_code == 1

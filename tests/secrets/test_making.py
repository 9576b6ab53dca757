"""Writing the PSKs that a topology misses."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ipsecctl.cli import main
from ipsecctl.errors import SecretUnavailable
from ipsecctl.secrets import guess_bits, write_missing
from ipsecctl.topology import Loaded, load_text

from .conftest import TOPOLOGY

EACH = '{psk: "file:secrets/deep/{tunnel}.psk"}'


def test_one_file_a_tunnel_for_its_owner_alone(load: Callable[[str], Loaded], tmp_path: Path) -> None:
    topology = load(EACH).topology
    assert topology is not None
    paths = write_missing(topology, tmp_path)
    assert paths == (tmp_path / "secrets/deep/t-a.psk", tmp_path / "secrets/deep/t-b.psk")
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in paths} == {0o700}
    psks = {path.read_text() for path in paths}
    assert len(psks) == 2
    assert all(guess_bits(psk.strip()) > 200 for psk in psks)
    assert sorted(path.name for path in (tmp_path / "secrets/deep").iterdir()) == ["t-a.psk", "t-b.psk"]


def test_what_is_there_is_left_alone(load: Callable[[str], Loaded], tmp_path: Path) -> None:
    topology = load(EACH).topology
    assert topology is not None
    there = tmp_path / "secrets/deep/t-a.psk"
    there.parent.mkdir(parents=True, mode=0o755)
    there.write_text("mine")
    assert [path.name for path in write_missing(topology, tmp_path)] == ["t-b.psk"]
    assert there.read_text() == "mine"
    assert write_missing(topology, tmp_path) == ()


@pytest.mark.parametrize("opened", ["secrets", "secrets/deep"])
def test_none_is_made_where_validate_would_refuse_it(
    load: Callable[[str], Loaded], tmp_path: Path, opened: str
) -> None:
    topology = load(EACH).topology
    assert topology is not None
    (tmp_path / opened).mkdir(parents=True)
    (tmp_path / opened).chmod(0o777)
    with pytest.raises(SecretUnavailable, match=rf"anybody may replace it: .*{opened}, mode 0777") as caught:
        write_missing(topology, tmp_path)
    assert "chmod o-w" in caught.value.hint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / opened).chmod(0o755)
    assert len(write_missing(topology, tmp_path)) == 2


def test_a_dangling_link_is_left_alone(load: Callable[[str], Loaded], tmp_path: Path) -> None:
    topology = load(EACH).topology
    assert topology is not None
    (tmp_path / "secrets/deep").mkdir(parents=True)
    (tmp_path / "secrets/deep/t-a.psk").symlink_to(tmp_path / "vault")
    assert [path.name for path in write_missing(topology, tmp_path)] == ["t-b.psk"]


def test_both_ends_get_the_same_psk_where_they_keep_it_in_two_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        TOPOLOGY.format(credential='{psk: "file:hub/{tunnel}"}')
        .replace(
            "    gateway: 203.0.113.20\n",
            '    gateway: 203.0.113.20\n    credential: {psk: "env:PSK_OF_A"}\n',
        )
        .replace(
            "    gateway: 203.0.113.30\n", '    gateway: 203.0.113.30\n    credential: {psk: "file:b/psk"}\n'
        )
    )
    topology = load_text(text, "t.yaml").topology
    assert topology is not None
    monkeypatch.setenv("PSK_OF_A", "the-one-of-a")
    paths = write_missing(topology, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["b/psk", "hub/t-a", "hub/t-b"]
    assert (tmp_path / "hub/t-a").read_text() == "the-one-of-a\n"
    assert (tmp_path / "hub/t-b").read_text() == (tmp_path / "b/psk").read_text()


def test_what_is_in_the_way_of_one_end_leaves_the_other_without(tmp_path: Path) -> None:
    text = TOPOLOGY.format(credential='{psk: "file:hub/{tunnel}"}').replace(
        "    gateway: 203.0.113.30\n", '    gateway: 203.0.113.30\n    credential: {psk: "file:b/psk"}\n'
    )
    topology = load_text(text, "t.yaml").topology
    assert topology is not None
    (tmp_path / "b/psk").mkdir(parents=True)
    assert write_missing(topology, tmp_path) == (tmp_path / "hub/t-a",)


def test_a_directory_that_cannot_be_written(
    load: Callable[[str], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    topology = load(EACH).topology
    assert topology is not None
    monkeypatch.setattr("ipsecctl.secrets.making.tempfile.mkstemp", refuse)
    with pytest.raises(SecretUnavailable, match="cannot write"):
        write_missing(topology, tmp_path)


def run(
    capsys: pytest.CaptureFixture[str], *arguments: str, command: tuple[str, ...] = ("secret", "generate")
) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([*command, *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


class TestCommand:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "clinics.yaml"
        file.write_text(TOPOLOGY.format(credential=EACH))
        return file

    def test_without_a_file_it_prints_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys)
        assert (status, len(out.strip())) == (0, 43)
        status, out, _ = run(capsys, "--json")
        assert (status, len(json.loads(out)["psk"])) == (0, 43)

    def test_with_a_file_it_lists_paths_and_shows_no_psk(
        self, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, err = run(capsys, str(file))
        directory = file.parent / "secrets/deep"
        assert status == 0
        assert out.splitlines() == [str(directory / "t-a.psk"), str(directory / "t-b.psk")]
        for path in directory.iterdir():
            assert path.read_text().strip() not in out + err
        status, out, err = run(capsys, str(file))
        assert (status, out) == (0, "")
        assert "no PSK file is missing" in err

    def test_json(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = run(capsys, str(file), "--json")
        document = json.loads(out)
        assert status == 0
        assert document["schema"] == "ipsecctl/secrets-written/1"
        assert len(document["written"]) == 2

    @pytest.mark.parametrize(
        "kind", ["dangling", "dangling parent", "directory", "pipe", "file", "empty", "loop"]
    )
    def test_what_is_in_the_way_is_told_as_validate_tells_it(
        self, file: Path, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        place = file.parent / "secrets/deep/t-a.psk"
        outside = file.parent / "outside"
        above = kind in ("dangling parent", "file")
        place.parent.parent.mkdir() if above else place.parent.mkdir(parents=True)
        match kind:
            case "dangling" | "dangling parent":
                (place.parent if above else place).symlink_to(outside)
            case "directory":
                place.mkdir()
            case "pipe":
                os.mkfifo(place)
            case "file":
                place.parent.write_text("mine")
            case "empty":
                place.touch(0o600)
            case "loop":
                place.symlink_to(place)
        status, out, err = run(capsys, str(file))
        assert status == 1
        assert out == ("" if above else f"{place.with_name('t-b.psk')}\n")
        findings = [line for line in err.splitlines() if "error IP3" in line]
        assert findings and all(line.startswith(f"{file}:4:") for line in findings)
        assert not outside.exists(), "nothing is written through a link"
        assert not place.is_file() or not place.read_bytes()
        status, out, _ = run(capsys, str(file), command=("validate",))
        assert status == 1
        assert [line for line in out.splitlines() if "error IP3" in line] == findings
        status, out, _ = run(capsys, str(file), "--json")
        document = json.loads(out)
        assert (status, document["written"]) == (1, [])
        assert [f"error {d['code']}: {d['summary']}" for d in document["diagnostics"]] == [
            line.partition(": ")[2] for line in findings
        ]

    def test_what_cannot_be_read_is_told_and_left_alone(
        self, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(capsys, str(file))
        place = file.parent / "secrets/deep/t-a.psk"
        before, opened = place.read_bytes(), os.open

        def refuse(path: object, *rest: int, **more: int) -> int:
            if path == place:
                raise PermissionError(13, "Permission denied")
            return opened(path, *rest, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refuse)
        status, out, err = run(capsys, str(file))
        assert (status, out) == (1, "")
        assert "error IP302: cannot be read: file:secrets/deep/t-a.psk (Permission denied)" in err
        assert run(capsys, str(file), command=("validate",))[0] == 1
        monkeypatch.undo()
        assert place.read_bytes() == before

    def test_what_is_in_no_file_is_said(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.write_text(TOPOLOGY.format(credential='{psk: "env:PSK_{tunnel}"}'))
        status, _, err = run(capsys, str(file))
        assert status == 0
        assert "env:PSK_t-a, env:PSK_t-b" in err

    def test_a_wrong_topology_and_none_at_all(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file.write_text("ipsecctl: 1\nnmae: x\n")
        status, _, err = run(capsys, str(file))
        assert status == 1
        assert "nmae" in err
        status, _, err = run(capsys, str(file.parent / "none.yaml"))
        assert status == 1
        assert "none.yaml" in err

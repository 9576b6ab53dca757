"""Files as the script writes them that runs on a gateway; here, this machine is the gateway."""

from __future__ import annotations

import asyncio

import pytest

from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import NewFile, files, write_files
from ipsecctl.gateway.local import LocalHost


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "STATE_DIR", str(tmp_path / "state"))

    def write(*new, removed=()):
        asyncio.run(write_files(LocalHost("a"), new, removed))

    return write


def modes(folder):
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o7777 for path in folder.rglob("*")}


def test_files_have_content_and_mode_and_nothing_is_left(tmp_path, write):
    (tmp_path / "old").write_text("old")
    (tmp_path / "gone").write_text("")
    write(
        NewFile(f"{tmp_path}/state/record", b"r", 0o600),
        NewFile(f"{tmp_path}/old", b"new\0\n", 0o644),
        NewFile(f"{tmp_path}/made/deep/a b", b"", 0o755),
        removed=[f"{tmp_path}/gone", f"{tmp_path}/never-there"],
    )
    assert (tmp_path / "old").read_bytes() == b"new\0\n"
    assert modes(tmp_path) == {
        "state": 0o700, "state/record": 0o600, "old": 0o644,
        "made": 0o755, "made/deep": 0o755, "made/deep/a b": 0o755,
    }  # fmt: skip


def test_a_link_in_a_files_place_is_replaced_and_what_it_leads_to_is_not(tmp_path, write):
    (tmp_path / "others").write_text("others")
    for name in ("file", ".file.ipsecctl-new"):
        (tmp_path / name).symlink_to("others")
    write(NewFile(f"{tmp_path}/file", b"ours", 0o600))
    assert (tmp_path / "others").read_text() == "others"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"ours"


@pytest.mark.parametrize("obstacle", ["a file for a directory", "a directory for a file"])
def test_where_one_cannot_be_written_nothing_half_done_is_left(tmp_path, write, obstacle):
    if obstacle == "a file for a directory":
        (tmp_path / "in-the-way").write_text("others")
    else:
        (tmp_path / "in-the-way/deep").mkdir(parents=True)
    before = modes(tmp_path)
    with pytest.raises(ApplyFailed, match="in-the-way"):
        write(
            NewFile(f"{tmp_path}/one", b"secret", 0o600),
            NewFile(f"{tmp_path}/in-the-way/deep", b"secret", 0o600),
            NewFile(f"{tmp_path}/three", b"secret", 0o600),
        )
    after = modes(tmp_path)
    assert {name for name in after if "ipsecctl-new" in name or "stage" in name} == set()
    assert before.items() <= after.items()
    # All are written before the first is renamed; only a rename that fails comes after others.
    assert ("one" in after) is (obstacle == "a directory for a file")
    assert "three" not in after

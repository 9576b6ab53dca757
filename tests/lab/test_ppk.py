"""PPKs (RFC 8784) at strongSwan 5.9.8, 6.0.1 and 6.1.0: mixed in, rotated, refused where the ends differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipsecctl import lab as labs

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("ppk")]

MESH = "mesh: [forky, trixie, bookworm]"
FAR = "bookworm"
NAMES = ("sites-forky-bookworm", "sites-forky-trixie", "sites-trixie-bookworm")


def with_ppks(lab: Any, folder: Path, *, foreign: str = "") -> Any:
    """Return the lab with a PPK for each tunnel, made in ``folder``; ``foreign`` is a site not ours."""

    def change(text: str) -> str:
        text = text.replace(MESH, f"{MESH}, ppk: {{secret: 'file:{folder}/ppks/{{tunnel}}.ppk'}}")
        text = text.replace(f"  {foreign}:\n", f"  {foreign}:\n    managed: false\n") if foreign else text
        address = "198.51.100.51"
        return text.replace(f"gateway: {address}", f"gateway: {{address: {address}, identity: {FAR}}}")

    changed = lab.changed(folder, change)
    lab.without_lab("secret", "generate", changed.file)
    assert {path.stem for path in (folder / "ppks").iterdir()} == {*NAMES}
    return changed


@pytest.fixture(scope="module")
def bare(lab_of) -> Iterator:
    with lab_of(labs.load("mixed-versions").called("ppk")) as running:
        running.apply()
        yield running


@pytest.fixture(scope="module")
def lab(bare, tmp_path_factory: pytest.TempPathFactory):
    """Three tunnels that ran without PPKs and have got them."""
    changed = with_ppks(bare, tmp_path_factory.mktemp("ppk"))
    changed.apply()
    return changed


def tunnels(lab: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in lab.json("status", lab.file, statuses=(0, 1))["tunnels"]}


def ppks(lab: Any) -> set[bool]:
    return {sa["ppk"] for each in tunnels(lab).values() for end in each["ends"] for sa in end["ike_sas"]}


def test_without_there_is_none(bare) -> None:
    assert ppks(bare) == {False}


def test_every_version_mixes_it_in_and_keeps_it_over_rekeys(lab) -> None:
    assert ppks(lab) == {True}
    for name in NAMES:
        lab.sh(name.split("-")[1], f"swanctl --rekey --ike {name}")
    assert {each["verdict"] for each in tunnels(lab).values()} == {"up"}
    assert ppks(lab) == {True}
    assert lab.json("plan", lab.file)["changes"] == []


def test_another_ppk_is_taken_by_new_ike_sas_beside_the_old(bare, lab, tmp_path: Path) -> None:
    """And back again, so that what follows has what ``lab`` says."""
    for there in (with_ppks(bare, tmp_path), lab):
        plan = there.json("plan", there.file)
        changed = {(c["part"], c["name"]): c["disruption"] for c in plan["changes"] if c["part"] != "file"}
        assert changed == {("connection", name): "rekey" for name in NAMES} | {
            ("shared", f"ppk-{name}"): "none" for name in NAMES
        }
        done = there.json("apply", there.file, "--yes")
        assert {each["verdict"] for each in done["tunnels"]} == {"up"}, done
        assert ppks(there) == {True}
        assert there.json("plan", there.file)["changes"] == []


def test_different_ppks_do_not_come_up_and_apply_says_why(bare, lab, tmp_path: Path) -> None:
    """The far end is somebody else's here, who keeps his PPKs."""
    other = with_ppks(bare, tmp_path, foreign=FAR)
    done = other.json("apply", other.file, "--yes", statuses=(1,))
    theirs = {each["name"]: each for each in done["tunnels"] if FAR in each["name"]}
    assert {each["kept"] for each in theirs.values()} == {True}, json.dumps(done["tunnels"], indent=1)
    for each in theirs.values():
        assert "AUTHENTICATION_FAILED" in " ".join(each["causes"]), each
    lab.sh(FAR, f"swanctl --terminate --ike {NAMES[0]} >/dev/null 2>&1; true")
    lab.sh(FAR, f"swanctl --terminate --ike {NAMES[2]} >/dev/null 2>&1; true")
    done = other.json("apply", other.file, "--yes", statuses=(1,))
    found = {each["name"]: each for each in done["tunnels"]}
    assert found[NAMES[1]]["verdict"] == "up"
    for name in (NAMES[0], NAMES[2]):
        assert found[name]["verdict"] == "down", found[name]
        assert "PPKs differ" in " ".join(found[name]["causes"]), found[name]
    again = lab.json("apply", lab.file, "--yes")
    assert {each["verdict"] for each in again["tunnels"]} == {"up"}, again
    assert ppks(lab) == {True}

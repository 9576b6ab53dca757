"""``ipsecctl render``: trees that are whole, private where they must be, and never over anything else."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ipsecctl.cli import main
from ipsecctl.cli._tree import MANIFEST, Tree
from ipsecctl.errors import IpsecctlError
from ipsecctl.render import RenderedFile

TOPOLOGY = Path(__file__).parent / "golden" / "clinic-dc" / "topology.yaml"


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the topology and its PSKs."""
    shutil.copy(TOPOLOGY, tmp_path / "net.yaml")
    (tmp_path / "secrets").mkdir(mode=0o700)
    for clinic in ("a", "b"):
        psk = tmp_path / "secrets" / f"clinics-clinic-{clinic}.psk"
        psk.write_text(f"{clinic}-Yk3wV9qLrT5zXn8mBd2cHs7f\n")
        psk.chmod(0o600)
    return tmp_path


@pytest.fixture
def render(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``ipsecctl render`` on the topology with ``--out place/out`` and the options given."""

    def run(*options: str, out: Path = place / "out") -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main(["render", str(place / "net.yaml"), "--out", str(out), *options])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_line_for_each_gateway_and_the_tree_as_it_will_lie_on_it(place, render):
    outcome = render()
    assert outcome.status == 0
    assert outcome.out.splitlines() == [
        f"{place}/out/clinic-a: 14 files, 1 tunnel, data path kernel",
        f"{place}/out/clinic-b: 14 files, 1 tunnel, data path kernel",
        f"{place}/out/dc: 14 files, 2 tunnels, data path libipsec",
    ]
    assert files_below(place / "out" / "dc") == [
        "etc/NetworkManager/conf.d/60-ipsecctl.conf",
        "etc/ipsecctl/call",
        "etc/ipsecctl/firewall.nft",
        "etc/ipsecctl/guard",
        "etc/ipsecctl/interfaces",
        "etc/ipsecctl/routes",
        "etc/strongswan.d/ipsecctl.conf",
        "etc/swanctl/conf.d/ipsecctl-secrets.conf",
        "etc/swanctl/conf.d/ipsecctl.conf",
        "etc/sysctl.d/60-ipsecctl.conf",
        "etc/systemd/network/05-ipsecctl.network",
        "etc/systemd/networkd.conf.d/60-ipsecctl.conf",
        "etc/systemd/system/ipsecctl-guard.service",
        "etc/systemd/system/strongswan.service.d/60-ipsecctl.conf",
    ]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(place, render, umask):
    before = os.umask(umask)
    try:
        render()
    finally:
        os.umask(before)
    conf = place / "out" / "dc" / "etc" / "swanctl" / "conf.d"
    assert stat.S_IMODE((conf / "ipsecctl-secrets.conf").stat().st_mode) == 0o600
    assert stat.S_IMODE((conf / "ipsecctl.conf").stat().st_mode) == 0o644
    guard = place / "out" / "dc" / "etc" / "ipsecctl" / "guard"
    assert stat.S_IMODE(guard.stat().st_mode) == 0o755


def test_a_second_run_gives_the_same_bytes_and_leaves_nothing_beside(place, render):
    render()
    first = {name: (place / "out" / name).read_bytes() for name in files_below(place / "out")}
    assert render().status == 0
    assert {name: (place / "out" / name).read_bytes() for name in files_below(place / "out")} == first
    assert sorted(path.name for path in place.iterdir()) == ["net.yaml", "out", "secrets"]


def test_a_gateway_that_is_gone_from_the_topology_goes_from_the_tree(place, render):
    render()
    text = (place / "net.yaml").read_text()
    kept, _, rest = text.partition("  clinic-b:\n")
    text = kept + rest.partition("tunnels:")[1] + rest.partition("tunnels:")[2].replace(", clinic-b", "")
    (place / "net.yaml").write_text(text)
    assert render().status == 0
    assert sorted(path.name for path in (place / "out").iterdir()) == [MANIFEST, "clinic-a", "dc"]


def test_one_gateway_alone_leaves_the_others_as_they_are(place, render):
    render()
    render("--gateway", "clinic-a", "--datapath", "libipsec")
    gateways = ("clinic-a", "clinic-b", "dc")
    texts = {name: (place / f"out/{name}/etc/ipsecctl/firewall.nft").read_text() for name in gateways}
    assert {name: 'oifname "ipsec0"' in text for name, text in texts.items()} == {
        "clinic-a": True,
        "clinic-b": False,
        "dc": True,  # its topology says so
    }
    assert render().status == 0


def test_interfaces_need_the_kernels_esp(place, render):
    text = (place / "net.yaml").read_text().replace(", datapath: libipsec", "")
    (place / "net.yaml").write_text(
        text.replace("{credential: clinics}", "{credential: clinics, mode: route}")
    )
    refused = render("--datapath", "libipsec")
    assert refused.status == 2
    assert "gateway 'clinic-a' has tunnels in mode 'route'" in " ".join(refused.err.split())
    assert not (place / "out").exists()
    assert render().status == 0
    assert "ix-" in (place / "out/dc/etc/ipsecctl/interfaces").read_text()


@pytest.mark.parametrize("foreign", ["notes.txt", "dc/etc/notes.txt", "mine/"])
def test_a_directory_with_other_files_is_refused_and_untouched(place, render, foreign):
    render()
    path = place / "out" / foreign
    if foreign.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")
    before = files_below(place / "out")
    outcome = render()
    assert (outcome.status, outcome.out) == (1, "")
    assert f"has files that ipsecctl did not write: {foreign.rstrip('/')}" in outcome.err
    assert files_below(place / "out") == before


def test_a_directory_that_ipsecctl_never_wrote_is_refused(place, render):
    outcome = render(out=place)
    assert outcome.status == 1
    assert "did not write: net.yaml and 2 more" in outcome.err
    assert "choose another --out" in outcome.err


def test_json_lists_what_was_written(place, render):
    document = json.loads(render("--json", "--gateway", "dc").out)
    assert document["schema"] == "ipsecctl/render/1"
    (gateway,) = document["gateways"]
    assert (gateway["name"], gateway["data_path"]) == ("dc", "libipsec")
    modes = {file["path"]: file["mode"] for file in gateway["files"]}
    assert modes["/etc/swanctl/conf.d/ipsecctl-secrets.conf"] == "0600"


@pytest.mark.parametrize(
    ("name", "message"), [("clinic-aa", "Did you mean 'clinic-a'?"), ("zzz", "there is no gateway 'zzz'.")]
)
def test_a_wrong_gateway_is_wrong_usage(render, name, message):
    outcome = render("--gateway", name)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split())


def test_nothing_is_written_when_the_topology_is_refused(place, render):
    (place / "secrets" / "clinics-clinic-a.psk").unlink()
    outcome = render()
    assert outcome.status == 1
    assert sorted(path.name for path in place.iterdir()) == ["net.yaml", "secrets"]


class TestTree:
    FILE = RenderedFile("/etc/x", b"1", 0o600)

    def test_an_error_on_the_way_leaves_what_was_there(self, tmp_path):
        with Tree.open(tmp_path / "out") as tree:
            tree.add("a", [self.FILE])
        with pytest.raises(RuntimeError), Tree.open(tmp_path / "out") as tree:
            tree.add("b", [self.FILE])
            raise RuntimeError
        assert files_below(tmp_path) == [f"out/{MANIFEST}", "out/a/etc/x"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_what_is_half_written_is_for_the_owner_only(self, tmp_path):
        with Tree.open(tmp_path / "out") as tree:
            tree.add("a", [self.FILE])
            (staging,) = tmp_path.iterdir()
            assert stat.S_IMODE(staging.stat().st_mode) == 0o700

    def test_an_empty_directory_may_be_taken(self, tmp_path):
        (tmp_path / "out").mkdir()
        with Tree.open(tmp_path / "out") as tree:
            tree.add("a", [self.FILE])
        assert files_below(tmp_path / "out") == [MANIFEST, "a/etc/x"]

    def test_a_file_in_its_place_is_refused(self, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(IpsecctlError, match="is not a directory"), Tree.open(tmp_path / "out"):
            pass
        assert (tmp_path / "out").read_text() == "mine"

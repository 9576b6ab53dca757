"""What one end alone has changed, key or networks: the SAs run on, and status, plan and apply say what is
not done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsecctl import lab as labs

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("refused")]

KEY = "file:secrets/partner/{tunnel}.psk"
TUNNEL, OURS, THEIRS = "labco", "hq", "labco"


@pytest.fixture(scope="module")
def lab(lab_of) -> Iterator:
    """The example with a partner, whose gateway nobody but he configures: applied, and up."""
    with lab_of(labs.load("partner").called("refused")) as running:
        running.apply()
        yield running


@pytest.fixture(scope="module")
def refused(lab, tmp_path_factory: pytest.TempPathFactory):
    """The topology with a key that the partner does not have."""
    folder: Path = tmp_path_factory.mktemp("refused")
    changed = lab.changed(folder, lambda text: text.replace(KEY, f"file:{folder}/new.psk"))
    lab.without_lab("secret", "generate", changed.file)
    assert (folder / "new.psk").exists()
    return changed


def test_what_the_far_end_refuses_is_told_alike_by_all(lab, refused) -> None:
    (tunnel,) = refused.json("apply", refused.file, "--yes", statuses=(1,))["tunnels"]
    assert (tunnel["verdict"], tunnel["kept"]) == ("up", True), tunnel
    assert "AUTHENTICATION_FAILED" in tunnel["causes"][0]
    (tunnel,) = refused.json("status", refused.file)["tunnels"]
    assert tunnel["verdict"] == "up"
    pending = {end["gateway"]: end["pending_change"] for end in tunnel["ends"]}
    assert "AUTHENTICATION_FAILED" in pending[OURS]["why"]
    assert pending[THEIRS] is None
    assert "earlier configuration" in refused.ipsecctl("status", refused.file).stdout
    changes = refused.json("plan", refused.file)["changes"]
    assert {(c["part"], c["name"], c["cause"]) for c in changes} == {
        ("connection", TUNNEL, "not completed"),
        ("shared", f"ike-{TUNNEL}", "not completed"),
        ("shared", f"ike-{TUNNEL}.next", "not completed"),
    }


def test_the_key_that_both_have_mends_it(lab, refused) -> None:
    lab.apply()
    (tunnel,) = lab.json("status", lab.file)["tunnels"]
    assert (tunnel["verdict"], tunnel["causes"]) == ("up", [])
    assert lab.json("plan", lab.file)["changes"] == []


def test_networks_to_which_the_partner_agrees_in_part_cost_none_that_had_a_tunnel(
    lab, tmp_path: Path
) -> None:
    """Its side has a CHILD_SA for each pair: of one with all networks it takes the first pair alone."""

    def in_one(text: str) -> str:
        flow = "- {name: all, from: [lab-orders, results], to: [intake, reporting]}"
        before, _, rest = text.partition("children: subnet-pair")
        assert rest
        return f"{before}children: flow\n    flows:\n      {flow}\n"

    wide = lab.changed(tmp_path, in_one)
    told = wide.json("apply", wide.file, "--yes", "--allow", TUNNEL, statuses=(1,))
    (tunnel,) = told["tunnels"]
    assert "10.30.2.0/24 === 172.20.9.0/25 would have no tunnel any more" in tunnel["causes"][-1], told
    assert lab.sh("hq-lab-orders", "ping -c 3 -i 0.2 -W 2 172.20.4.10").count("bytes from") == 3
    assert lab.sh("hq-results", "ping -c 3 -i 0.2 -W 2 172.20.9.10").count("bytes from") == 3
    running = lab.sh(OURS, "swanctl --list-sas --raw")
    assert running.count("state=INSTALLED") == 2, running

    lab.apply()
    (tunnel,) = lab.json("status", lab.file)["tunnels"]
    assert (tunnel["verdict"], tunnel["causes"]) == ("up", [])

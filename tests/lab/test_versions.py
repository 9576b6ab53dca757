"""A mesh of three versions of charon: what each says of itself, and that they agree, rekey and refuse.

The tests of every example (test_examples.py) run in the same lab.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.patience import PATIENCE

LAB = "mixed-versions"
VERSIONS = {"bookworm": "5.9.8", "trixie": "6.0.1", "forky": "6.1"}  # forky's may still become newer
LONGEST_S = 30.0 * PATIENCE

pytestmark = [
    pytest.mark.lab,
    pytest.mark.parametrize(
        "running", [pytest.param(LAB, marks=pytest.mark.xdist_group(LAB))], indirect=True, scope="session"
    ),
]
either = pytest.mark.parametrize(
    "mode", ["policy", pytest.param("route", marks=pytest.mark.esp)], indirect=True, scope="session"
)
in_the_vm = pytest.mark.kernel_for(f"{LAB} route")

Pair = tuple[str, str]


def seen(lab, what: str) -> tuple[dict[str, list[Pair]], set[str]]:
    """Return, by tunnel, the SPIs that its ends report: of CHILD_SAs (in, out), or of IKE_SAs.

    And the verdicts that there are, in the same answer.
    """
    found = {}
    tunnels = lab.json("status", lab.file, statuses=(0, 1))["tunnels"]
    for tunnel in tunnels:
        sas = [sa for end in tunnel["ends"] for sa in end["ike_sas"]]
        if what == "child":
            children = [child for sa in sas for child in sa["child_sas"]]
            pairs = [(c["spi_in"], c["spi_out"]) for c in children if c["state"] == "INSTALLED"]
        else:
            pairs = [tuple(sa["spis"].values()) for sa in sas if sa["state"] == "ESTABLISHED"]
        found[tunnel["name"]] = pairs
    return found, {tunnel["verdict"] for tunnel in tunnels}


@either
@in_the_vm
def test_each_gateway_runs_another_version(applied):
    for gateway in applied.json("facts", "--all", applied.file)["gateways"]:
        name, charon = gateway["gateway"], gateway["charon"]
        exact = name != "forky"
        assert charon["version"] == VERSIONS[name] if exact else charon["version_numbers"] >= [6, 1]
        assert gateway["lacks"] == [] and gateway["unknown"] == {}
        can = {"ML_KEM_512", "ML_KEM_768", "ML_KEM_1024"} if name == "forky" else set()
        assert set(charon["ml_kem"]) == can
        assert gateway["firewall"]["sets"]["value"]
        assert applied.sh(name, "nft --version").split()[1] in gateway["firewall"]["nftables"]


@either
@in_the_vm
def test_our_files_have_no_option_that_a_version_does_not_know(applied):
    for name in VERSIONS:
        assert applied.sh(name, "swanctl --load-all 2>&1 >/dev/null") == ""
        file = applied.sh(name, "cat /etc/strongswan.d/ipsecctl.conf")
        libipsec = "kernel-libipsec" in file
        assert ("raw_esp" in file) == (libipsec and name != "bookworm")


@pytest.mark.parametrize("who", list(VERSIONS))
@either
@in_the_vm
def test_whoever_rekeys_the_others_follow(applied, who: str):
    """With PFS: the first time that key exchanges of a CHILD_SA are agreed on at all."""
    rekeyed(applied, who, "child")


@pytest.mark.parametrize("who", list(VERSIONS))
def test_whoever_rekeys_the_ike_sa_the_others_follow(applied, who: str):
    rekeyed(applied, who, "ike")


def rekeyed(applied, who: str, what: str) -> None:
    """Rekey all SAs of a kind at one gateway, and have its peers agree with it."""
    ours = [t.name for t in applied.topology.tunnels if who in (t.left.gateway.name, t.right.gateway.name)]
    before, _ = seen(applied, what)
    applied.sh(who, "; ".join(f"swanctl --rekey --{what} {tunnel}" for tunnel in ours))
    deadline = time.monotonic() + LONGEST_S
    while not renewed((after := seen(applied, what))[0], before, ours, what):
        assert time.monotonic() < deadline, (before, after)
    assert after[1] == {"up"}


def renewed(
    after: dict[str, list[Pair]], before: dict[str, list[Pair]], tunnels: list[str], what: str
) -> bool:
    """Whether the two ends of each of these tunnels agree on one pair of SPIs that was not there before."""
    for tunnel in tunnels:
        pairs = after[tunnel]
        if len(pairs) != 2 or set(pairs) & set(before[tunnel]):
            return False
        left, right = pairs
        if right != (left if what == "ike" else (left[1], left[0])):
            return False
    return True


@either  # not in the virtual machine: who refuses is asked of charon, and no packet is sent
def test_ml_kem_towards_older_versions_is_refused_before_anything_is_pushed(applied, tmp_path: Path):
    topology = Path(applied.file)
    (tmp_path / "pki").symlink_to(topology.parent.absolute() / "pki")
    wanted = tmp_path / topology.name
    wanted.write_text(topology.read_text().replace("profile: modern", "profile: pq-hybrid"))
    before = {name: on_gateway(applied, name) for name in VERSIONS}

    plan = applied.ipsecctl("plan", str(wanted), statuses=(1,))
    for name in ("bookworm", "trixie"):
        assert f"{name}: charon {VERSIONS[name]} cannot do mlkem768 (ML_KEM_768)" in plan.stdout + plan.stderr
    assert "forky: charon" not in plan.stdout + plan.stderr
    refused = applied.ipsecctl("apply", str(wanted), "--yes", statuses=(1,))
    assert "charon 6.0.1 cannot do mlkem768 (ML_KEM_768)" in refused.stdout + refused.stderr

    assert {name: on_gateway(applied, name) for name in VERSIONS} == before
    done = applied.json("apply", applied.file)
    assert done["nothing_to_do"], json.dumps(done)


def on_gateway(lab, name: str) -> dict[str, Any]:
    """Return all of a gateway that a push changes: files, what charon was told, and the running SAs."""
    files = "find /etc/swanctl /etc/ipsecctl /etc/strongswan.d /var/lib/ipsecctl -type f -exec sha256sum {} +"
    conns = lab.sh(name, "swanctl --list-conns --raw")
    return {"files": sorted(lab.sh(name, files).splitlines()), "conns": sorted(conns.splitlines())}

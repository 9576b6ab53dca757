"""Saved plans and the safety stop against real charon: in this order, on a pair of gateways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("plans-pair")]


def ipsecctl(*argv, status=0):
    """Run a command with the limit that users have; there is nobody to ask."""
    environment = {name: value for name, value in os.environ.items() if name != "IPSECCTL_SAFETY_LIMIT"}
    done = subprocess.run(
        [sys.executable, "-m", "ipsecctl", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{done.returncode}\n{said}"
    return said


def saved(pair, file: str, *options):
    """Save the plan of a topology; return the plan's file."""
    out = pair.directory / "saved.plan"
    assert f"Saved to {out}" in ipsecctl("plan", file, "--out", str(out), *options)
    return out


def connections(pair) -> str:
    return pair.on("a", "swanctl", "--list-conns") + pair.on("b", "swanctl", "--list-conns")


def stale(plan, *why: str) -> None:
    said = " ".join(ipsecctl("apply", str(plan), status=1).split())
    assert "is stale: " in said and "Nothing was done. Plan and review again" in said
    for words in why:
        assert words in said


def test_a_saved_plan_is_carried_out_without_asking_and_once(pair):
    plan = saved(pair, pair.topology())
    content = plan.read_text()
    assert plan.stat().st_mode & 0o777 == 0o600
    assert (pair.directory / "t.psk").read_text().strip() not in content
    assert json.loads(content)["schema"] == "ipsecctl/saved-plan/1"
    assert "1 of 1 tunnel up" in ipsecctl("apply", str(plan))
    stale(plan, "a: another apply was there", "b: another apply was there")


def test_what_makes_a_plan_stale_is_named(pair):
    file = Path(pair.topology("nist-800-77"))
    plan, text, before = saved(pair, str(file)), file.read_text(), connections(pair)
    file.write_text(text + "# more\n")
    stale(plan, f"{file} has other text")
    file.write_text(text)
    psk = (pair.directory / "t.psk").read_text()
    pair.psk("t")
    stale(plan, "a secret that the topology refers to is another one")
    (pair.directory / "t.psk").write_text(psk)
    pair.on("a", "nft", "delete", "table", "inet", "ipsecctl")
    stale(plan, "a: what is there has changed: is to be changed")
    pair.on("a", "nft", "-f", "/etc/ipsecctl/firewall.nft")
    assert connections(pair) == before
    pair.charon("b", "stop")
    pair.charon("b", "start")
    stale(plan, "b: charon was started anew")
    file.unlink()
    assert "which is not there" in ipsecctl("apply", str(plan), status=1)
    file.write_text(text)
    plan.write_text(plan.read_text().replace("saved-plan/1", "saved-plan/9"))
    assert "was saved by another version of ipsecctl" in ipsecctl("apply", str(plan), status=1)
    ipsecctl("apply", pair.topology(), "--yes")


def test_options_of_a_saved_plan_are_those_it_was_saved_with(pair):
    plan = saved(pair, pair.topology())
    assert "are as when it was saved" in ipsecctl("apply", str(plan), "--allow", "remove", status=2)
    assert "Nothing to do" in ipsecctl("apply", str(plan))


def test_the_last_tunnel_to_a_partner_is_removed_only_when_that_is_allowed(pair):
    pair.psk("partner")
    ipsecctl("apply", pair.topology(second="partner"), "--yes", "--wait", "1", status=1)  # nobody is there
    before, file = connections(pair), pair.topology()
    plan = ipsecctl("plan", file)
    assert "held back: it removes the last tunnel from b to 192.0.2.3: partner" in plan
    assert "If that is meant, say: --allow partner" in plan
    (stop,) = json.loads(ipsecctl("plan", file, "--json").partition("\n}")[0] + "}")["stops"]
    assert (stop["kind"], stop["tunnels"], stop["allow"]) == ("last", ["partner"], ["partner"])

    refused = ipsecctl("apply", file, "--yes", status=1)
    assert "the safety stop holds this plan back: it removes the last tunnel from b to 192.0.2.3" in refused
    assert "Nothing was done. If that is meant, say: --allow partner" in refused
    assert "--allow partner" in ipsecctl("apply", str(saved(pair, file)), status=1)
    assert "--allow partner" in ipsecctl("apply", file, "--yes", "--allow", "disturb", status=1)
    assert connections(pair) == before

    ipsecctl("apply", str(saved(pair, file, "--allow", "partner")))
    assert "partner" not in connections(pair)
    assert "Nothing to do" in ipsecctl("plan", file)

"""What the gateways of a lab are, as they are asked; and that nobody notices."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.kernel_for("clinic-dc policy")]

_SEEN = "ip -o link; ip xfrm state; ip xfrm policy; nft -s list ruleset; ip route show table all"


def test_facts_of_every_gateway_and_nothing_is_touched(applied):
    """The data path that is reported is the one that tunnels are on, and the asking leaves no trace."""
    before = {name: applied.sh(name, _SEEN) for name in applied.managed}
    document = applied.json("facts", "--all", applied.file)
    assert [gateway["gateway"] for gateway in document["gateways"]] == sorted(applied.managed)
    for gateway in document["gateways"]:
        name, charon = gateway["gateway"], gateway["charon"]
        assert gateway["lacks"] == [] and gateway["unknown"] == {}
        assert charon["version"] in applied.sh(name, "swanctl --version")
        libipsec = "kernel-libipsec" in charon["plugins"]
        assert gateway["data_path"]["value"] == ("libipsec" if libipsec else "kernel")
        esp = gateway["kernel"]["esp"]["value"]
        applied.sh(name, "/usr/lib/ipsecctl-lab/has-esp", statuses=(0 if esp else 1,))
        assert libipsec or esp
        assert {answer["value"] for answer in gateway["kernel"]["suites"].values()} == {esp}
        assert gateway["firewall"]["sets"]["value"] and "inet ipsecctl" in gateway["firewall"]["tables"]
        assert {listener["port"] for listener in gateway["listeners"]} == {500, 4500}
        assert -5 < gateway["clock"]["low_s"] <= gateway["clock"]["high_s"] < 5, "one machine has one clock"
    assert {name: applied.sh(name, _SEEN) for name in applied.managed} == before
    assert (
        "Did you mean"
        in applied.ipsecctl("facts", f"{applied.managed[0]}x", applied.file, statuses=(1,)).stderr
    )

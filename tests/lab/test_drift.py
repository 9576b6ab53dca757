"""Drift of every kind, made by hand on charon 5.9.8, 6.0.1 and 6.1.0: found, named as drift, and mended.

In the lab of mixed versions, in which other tests work, too. On each gateway somebody else's connection is
loaded as well; it is never touched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipsecctl.patience import PATIENCE

LAB = "mixed-versions"
GATEWAYS = ("bookworm", "trixie", "forky")
TUNNELS = {
    "bookworm": ("sites-forky-bookworm", "sites-trixie-bookworm"),
    "trixie": ("sites-forky-trixie", "sites-trixie-bookworm"),
    "forky": ("sites-forky-bookworm", "sites-forky-trixie"),
}
FAR_NETWORK = {"bookworm": "10.52.0.0/24", "trixie": "10.53.0.0/24", "forky": "10.51.0.0/24"}
LONGEST_S = 20.0 * PATIENCE

FILE = "/etc/swanctl/conf.d/ipsecctl.conf"
FOREIGN_FILE = "/etc/swanctl/conf.d/foreign.conf"
FOREIGN = b"""connections { foreign { version = 2
 local_addrs = 127.0.0.1
 remote_addrs = 192.0.2.99
 proposals = aes256gcm16-prfsha256-ecp256
 dpd_delay = 33s
 local { auth = psk
  id = here }
 remote { auth = psk
  id = there }
 children { foreign { remote_ts = 10.99.0.0/24 } } } }
"""
MENDED = "Nothing to do"

pytestmark = [
    pytest.mark.change,
    pytest.mark.lab,
    pytest.mark.parametrize(
        "running", [pytest.param(LAB, marks=pytest.mark.xdist_group(LAB))], indirect=True, scope="session"
    ),
]
on_each_version = pytest.mark.parametrize("who", GATEWAYS)


@pytest.fixture
def lab(applied) -> Iterator[Any]:
    """The lab with somebody else's connection on each gateway, as it was before and has to be afterwards."""
    assert MENDED in applied.ipsecctl("plan", applied.file).stdout
    for gateway in GATEWAYS:
        applied.sh(gateway, f"cat >{FOREIGN_FILE}; swanctl --load-all >/dev/null", FOREIGN)
    before = {gateway: foreign(applied, gateway) for gateway in GATEWAYS}
    try:
        yield applied
        assert {gateway: foreign(applied, gateway) for gateway in GATEWAYS} == before
    finally:
        for gateway in GATEWAYS:
            applied.sh(
                gateway, f"rm -f {FOREIGN_FILE} /etc/swanctl/by-hand.conf; swanctl --load-all >/dev/null"
            )
        applied.apply()


def foreign(lab, gateway: str) -> tuple[str, str]:
    """Return somebody else's connection as charon has it, and the file of it."""
    listed = lab.sh(gateway, "swanctl --list-conns --raw").splitlines()
    (loaded,) = [line for line in listed if "{foreign {" in line]
    return loaded, lab.sh(gateway, f"cat {FOREIGN_FILE}")


def by_hand(lab, gateway: str, script: str) -> None:
    """Have charon load our connections as a sed script alters them, the foreign one beside them."""
    lab.sh(
        gateway,
        f"sed '{script}' {FILE} >/etc/swanctl/by-hand.conf && cat {FOREIGN_FILE} >>/etc/swanctl/by-hand.conf",
    )
    lab.sh(gateway, "swanctl --load-conns --file /etc/swanctl/by-hand.conf")


def only(tunnel: str, script: str) -> str:
    """Return a sed script that works on the connection of one tunnel alone."""
    return f"/^    {tunnel} {{/,/^    }}/ {{ {script} }}"


def planned(lab) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the planned changes by gateway and by part and name in one."""
    changes = lab.json("plan", lab.file)["changes"]
    return {(c["gateway"], f"{c['part']} {c['name']}"): c for c in changes}


def mended(lab) -> None:
    """Want an apply to leave nothing to do, and every tunnel up."""
    done = lab.json("apply", lab.file, "--yes", "--allow", "disturb")
    assert {tunnel["verdict"] for tunnel in done["tunnels"]} == {"up"}, json.dumps(done)
    assert MENDED in lab.ipsecctl("plan", lab.file).stdout


def until(condition, what: str) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline, what


@on_each_version
def test_what_somebody_alters_on_a_gateway(lab, who: str):
    """All at once: nothing hides anything else, and of another gateway nothing is said."""
    unloaded, altered = TUNNELS[who]
    delete = only(unloaded, "d")
    by_hand(lab, who, f"{delete}; {only(altered, 's/dpd_delay = .*/dpd_delay = 77s/')}")
    lab.sh(who, "echo '# by hand' >>/etc/strongswan.d/ipsecctl.conf")
    lab.sh(who, "rm /etc/ipsecctl/interfaces")
    lab.sh(who, "nft add rule inet ipsecctl forward accept")
    lab.sh(who, f"ip route delete unreachable {FAR_NETWORK[who]} proto 213 metric 4278198272")
    lab.sh(who, "ip route add unreachable 10.77.0.0/24 proto 213 metric 77")
    lab.sh(who, "sysctl -qw net.ipv4.conf.all.rp_filter=1")

    changes = planned(lab)
    assert {change["cause"] for change in changes.values()} == {"drift"}
    said = {what: (c["kind"], c["reasons"][0]) for (gateway, what), c in changes.items() if gateway == who}
    assert len(said) == len(changes)
    hand = "altered on the gateway by hand since the last apply"
    gone = "it was applied and is no longer there"
    unloaded_reason = "it was applied and unloaded by hand since: charon runs on and no longer has it"
    assert said == {
        f"connection {unloaded}": ("create", unloaded_reason),
        f"connection {altered}": ("change", hand),
        "file /etc/strongswan.d/ipsecctl.conf": ("change", hand),
        "file /etc/ipsecctl/interfaces": ("create", gone),
        "firewall inet ipsecctl": ("change", hand),
        f"route {FAR_NETWORK[who]}": ("create", gone),
        "route 10.77.0.0/24": ("remove", "it bears our mark, and was not applied: made by hand"),
        "sysctl net.ipv4.conf.all.rp_filter": ("change", "the running value is not the one that was applied"),
    }
    change = changes[who, f"connection {altered}"]
    assert (change["before"], change["after"]) == ({"dpd_delay": "77s"}, {"dpd_delay": "15s"})
    text = lab.ipsecctl("plan", lab.file).stdout
    assert f"8 of these are drift: {who} (8)" in " ".join(text.split())
    mended(lab)
    assert "dpd_delay=15 " in lab.sh(who, "swanctl --list-conns --raw")


@on_each_version
def test_a_flushed_firewall(lab, who: str):
    lab.sh(who, "nft delete table inet ipsecctl")
    (change,) = planned(lab).values()
    assert (change["gateway"], change["part"], change["kind"], change["cause"]) == (
        who,
        "firewall",
        "create",
        "drift",
    )
    assert change["reasons"] == ["the table was applied and is no longer loaded"]
    mended(lab)


@on_each_version
def test_a_charon_that_restarted_and_lost_what_was_pushed(lab, who: str):
    away = "for f in /etc/swanctl/conf.d/ipsecctl*; do mv $f $f.away; done"
    back = "for f in /etc/swanctl/conf.d/ipsecctl*.away; do mv $f ${f%.away}; done"
    lab.charon(who, "stop")
    lab.sh(who, away)
    try:
        lab.charon(who, "start")
    finally:
        lab.sh(who, back)
    lab.sh(who, f"swanctl --load-conns --file {FOREIGN_FILE}")
    changes = planned(lab)
    here = {what: c for (gateway, what), c in changes.items() if gateway == who}
    assert {f"connection {tunnel}" for tunnel in TUNNELS[who]} <= set(here)
    assert {(c["part"], c["kind"], c["cause"]) for c in here.values()} == {
        ("connection", "create", "drift"),
        ("certificate", "create", "drift"),
        ("key", "create", "drift"),
    }
    said = {c["reasons"][0] for c in here.values()}
    assert said == {"charon was started anew since the last apply, and does not have it"}
    mended(lab)


@on_each_version
def test_an_sa_that_keeps_other_lifetimes(lab, who: str):
    """What was loaded when it came up is what it keeps: charon says "loaded", and the SA does not change."""
    tunnel = TUNNELS[who][0]
    by_hand(
        lab,
        who,
        only(tunnel, "s/life_time = .*/life_time = 1980s/; s/rekey_time = 3600s/rekey_time = 1800s/"),
    )
    made_anew(lab, who, tunnel)
    lab.sh(who, "swanctl --load-conns >/dev/null")  # as applied again, all but the SA
    change = planned(lab)[who, f"connection {tunnel}"]
    assert (change["kind"], change["cause"], change["disruption"]) == ("change", "drift", "child restart")
    assert (
        "a running SA keeps another configuration: its CHILD_SA: it lives for 1980 s, declared is 3960 s"
        in (change["reasons"])
    )
    mended(lab)


@pytest.mark.parametrize("ends", [("trixie", "bookworm"), ("forky", "trixie")], ids="-".join)
def test_an_sa_that_keeps_other_algorithms(lab, ends: tuple[str, str]):
    """Where charon does not report proposals, as before 6.1, the SA that came of them still shows it."""
    tunnel = "-".join(("sites", *ends))
    script = "s/esp_proposals = .*/esp_proposals = aes128gcm16-ecp256/"
    script += "; s/ proposals = .*/ proposals = aes128gcm16-prfsha256-ecp256/"
    for end in ends:
        by_hand(lab, end, only(tunnel, script))
    made_anew(lab, ends[0], tunnel)
    for end in ends:
        lab.sh(end, "swanctl --load-conns >/dev/null")
    changes = planned(lab)
    for end in ends:
        change = changes[end, f"connection {tunnel}"]
        assert change["cause"] == "drift"
        ike, child = change["reasons"]
        assert "its IKE_SA: it uses AES_GCM_16-128/" in ike
        assert "its CHILD_SA: it uses AES_GCM_16-128" in child
    mended(lab)


@on_each_version
def test_proposals_that_somebody_alters_are_seen_where_charon_tells_them(lab, who: str):
    """Only 6.1 and later report them; of an older charon docs/plan.md says that it cannot be seen."""
    tunnel = TUNNELS[who][0]
    by_hand(lab, who, only(tunnel, "s/esp_proposals = .*/esp_proposals = aes128gcm16-ecp256/"))
    changes = planned(lab)
    if who == "forky":
        change = changes[who, f"connection {tunnel}"]
        assert change["cause"] == "drift"
        assert change["before"][f"children.{tunnel}.esp_proposals"] == "AES_GCM_16_128-ECP_256"
    else:
        assert changes == {}
        by_hand(lab, who, "")
    mended(lab)


def test_drift_is_told_apart_from_what_is_intended(lab, tmp_path):
    lab.sh("trixie", "nft delete table inet ipsecctl")
    file = f"{tmp_path}/{LAB}.yaml"
    changed = lab.changed(
        tmp_path, lambda text: text.replace("profile: modern", "profile: modern\n  mtu: 1380")
    )
    document = changed.json("plan", changed.file)
    causes = {(c["gateway"], c["part"]): c["cause"] for c in document["changes"]}
    assert causes["trixie", "firewall"] == "drift"
    assert causes["forky", "firewall"] == "intended"
    assert {g["name"]: g["drift"] for g in document["gateways"]} == {"bookworm": 0, "forky": 0, "trixie": 1}
    text = " ".join(changed.ipsecctl("plan", file).stdout.split())
    assert "1 of these is drift: trixie (1)" in text
    assert json.dumps(document).count('"drift"') == 4  # three counts, one cause
    lab.apply()


def made_anew(lab, caller: str, tunnel: str) -> None:
    """End the IKE_SAs of a tunnel and have it come up again, as somebody does by hand."""

    def spis() -> set[str]:
        listed = lab.sh(caller, "swanctl --list-sas --raw").splitlines()
        return {line.split("initiator-spi=")[1].split()[0] for line in listed if f"{{{tunnel} {{" in line}

    before = spis()
    lab.sh(caller, f"swanctl --terminate --ike {tunnel} >/dev/null")
    until(lambda: not before & spis(), f"{tunnel} to go down")
    lab.sh(caller, f"swanctl --initiate --child {tunnel} >/dev/null", statuses=(0, 1))
    until(lambda: "state=INSTALLED" in lab.sh(caller, f"swanctl --list-sas --raw --ike {tunnel}"), "a new SA")

"""What is run on a gateway for a plan; in place of nft, ip and systemctl, programs that note their use."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

import ipsecctl.deploy.activate as activating
from ipsecctl.deploy.activate import activate, in_the_way, retire
from ipsecctl.desired import (
    CHARON_UNIT_FILE,
    NETWORK_MANAGER_FILE,
    NETWORKD_FILE,
    Interface,
    InterfaceKind,
)
from ipsecctl.errors import ApplyFailed
from ipsecctl.gateway import Link, LocalHost
from ipsecctl.plan import Change, GatewayPlan, Kind, Part
from ipsecctl.render import FIREWALL_FILE, SYSCTL_FILE

FAKE = '#!/bin/sh\necho "$(basename "$0") $*" >>"{log}"\n{does}\n'


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a function that makes a program, and one that returns how they were used."""
    log = tmp_path / "log"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(activating, "GUARD_FILE", str(tmp_path / "guard"))
    monkeypatch.setattr(activating, "GUARD_UNIT_FILE", str(tmp_path / "system" / "ipsecctl-guard.service"))

    def make(name, does=":"):
        (tmp_path / name).write_text(FAKE.format(log=log, does=does))
        (tmp_path / name).chmod(0o755)

    for name in ("guard", "ip", "networkctl", "systemctl"):
        make(name)
    make("nft", "[ $1 != -s ] || echo table")
    return make, lambda: log.read_text().splitlines()


def plan(*changes):
    return GatewayPlan("gw", tuple(Change("gw", part, name, kind) for part, name, kind in changes))


def run(made):
    return asyncio.run(activate(LocalHost("gw"), made))


LISTED = "nft -s list table inet ipsecctl"


def test_nothing_to_do(programs):
    assert run(plan((Part.FILE, FIREWALL_FILE, Kind.CREATE))) is None


def test_files_come_into_force_by_the_script_of_the_boot(programs):
    _, used = programs
    made = plan(
        (Part.FIREWALL, "inet ipsecctl", Kind.CREATE),
        (Part.FILE, SYSCTL_FILE, Kind.CHANGE),
        (Part.ROUTE, "10.1.0.0/24", Kind.CREATE),
        (Part.ROUTE, "10.2.0.0/24", Kind.REMOVE),
        (Part.UNIT, "ipsecctl-guard.service", Kind.CREATE),
    )
    assert run(made) == hashlib.sha256(b"table").hexdigest()
    assert used() == [
        "guard routes",
        "guard firewall",
        "guard sysctl",
        "systemctl daemon-reload",
        "systemctl --quiet enable ipsecctl-guard.service",
        "systemctl start ipsecctl-guard.service",
        LISTED,
    ]


def test_what_is_no_longer_wanted(programs, tmp_path):
    make, used = programs
    wants = tmp_path / "system" / "sysinit.target.wants"
    wants.mkdir(parents=True)
    (wants / "ipsecctl-guard.service").symlink_to("../ipsecctl-guard.service")
    (wants / "another.service").symlink_to("../another.service")
    make("nft", "[ $1 != -s ]")
    made = plan(
        (Part.FIREWALL, "inet ipsecctl", Kind.REMOVE),
        (Part.UNIT, "ipsecctl-guard.service", Kind.REMOVE),
    )
    assert run(made) is None
    assert asyncio.run(retire(LocalHost("gw"), made)) == ""
    assert [place.name for place in wants.iterdir()] == ["another.service"]
    assert used() == [
        "nft delete table inet ipsecctl",
        "systemctl stop ipsecctl-guard.service",
        "systemctl daemon-reload",
        LISTED,
    ]


def test_the_first_failure_ends_it_in_its_own_words(programs):
    make, used = programs
    make("guard", "echo 'nft refuses the firewall: no' >&2; exit 1")
    made = plan(
        (Part.FIREWALL, "inet ipsecctl", Kind.CREATE), (Part.UNIT, "ipsecctl-guard.service", Kind.CREATE)
    )
    with pytest.raises(ApplyFailed, match="gw: nft refuses the firewall: no"):
        run(made)
    assert used() == ["guard firewall"]
    make("guard")
    make("systemctl", "[ $1 = daemon-reload ] || { echo masked >&2; exit 1; }")
    with pytest.raises(ApplyFailed, match=r"gw: systemd cannot enable ipsecctl-guard\.service: masked"):
        run(made)


def test_systemd_where_it_runs_reads_what_charons_unit_is_to_do(programs):
    _, used = programs
    run(plan((Part.FILE, CHARON_UNIT_FILE, Kind.CREATE)))
    reads = ["systemctl daemon-reload"] if Path("/run/systemd/system").is_dir() else []
    assert used() == [*reads, LISTED]


def test_ways_come_before_the_firewall_and_go_after_it(programs):
    _, used = programs
    made = plan(
        (Part.FILE, NETWORKD_FILE, Kind.CREATE),
        (Part.FIREWALL, "inet ipsecctl", Kind.CHANGE),
        (Part.INTERFACE, "ix-new", Kind.CREATE),
        (Part.INTERFACE, "lo", Kind.REMOVE),
        (Part.ROUTE, "10.2.0.0/24", Kind.REMOVE),
        (Part.ROUTE, "10.1.0.0/24 dev ix-old metric 50", Kind.REMOVE),
    )
    run(made)
    assert used() == [
        "systemctl is-active --quiet systemd-networkd",
        "systemctl reload systemd-networkd",
        "guard interfaces",
        "guard routes",
        "guard firewall",
        LISTED,
    ]
    asyncio.run(retire(LocalHost("gw"), made))
    assert used()[6:] == [
        "ip route del unreachable 10.2.0.0/24 proto 213",
        "ip route del 10.1.0.0/24 dev ix-old metric 50 proto 213",
        "ip link delete lo",
        LISTED,
    ]


def test_a_table_of_our_own_goes_with_its_rule(programs):
    make, used = programs
    listed = (
        "215:\\tfrom all iif lo goto 218 [unresolved] proto 213\\n"
        "216:\\tfrom all to fd00:1:: lookup 254 suppress_prefixlength 15 proto 213\\n"
        "217:\\tfrom all to fd00:1:: 7 proto 213 \\n"
        "216:\\tfrom all to fd00:1::/64 lookup 254 suppress_prefixlength 15 proto 213\\n"
        "219:\\tnot from all iif lo lookup 213 proto 213\\n220:\\tfrom all lookup 220\\n5:\\tx proto 2130\\n"
    )
    make(
        "ip",
        f"case \"$*\" in *show) printf '{listed}' ;; *-batch*) sed 's/^/ip /' >>$(dirname $0)/log ;; esac",
    )
    made = plan(
        (Part.ROUTE, "fd00:2::/64 table 213", Kind.REMOVE),
        (Part.RULE, "ipv6", Kind.REMOVE),
        (Part.RULE, "ipv6 own packets", Kind.REMOVE),
        (Part.RULE, "ipv6 to fd00:1::/128", Kind.REMOVE),
        (Part.RULE, "ipv4", Kind.CREATE),
    )
    run(made)
    assert used() == ["guard routes", LISTED]
    asyncio.run(retire(LocalHost("gw"), made))
    assert used()[2:] == [
        "ip route del fd00:2::/64 table 213 proto 213",
        "ip -N -6 rule show",
        "ip -6 -force -batch -",
        "ip rule delete pref 219 not from all iif lo lookup 213 proto 213",
        "ip -N -6 rule show",
        "ip -6 -force -batch -",
        "ip rule delete pref 215 from all iif lo goto 218 proto 213",
        "ip -N -6 rule show",
        "ip -6 -force -batch -",
        "ip rule delete pref 216 from all to fd00:1:: lookup 254 suppress_prefixlength 15 proto 213",
        "ip rule delete pref 217 from all to fd00:1:: unreachable proto 213",
        LISTED,
    ]


def test_what_is_gone_already_is_no_failure_and_what_stays_is(programs):
    make, _ = programs
    made = plan((Part.INTERFACE, "ix-gone", Kind.REMOVE), (Part.ROUTE, "10.2.0.0/24", Kind.REMOVE))
    for said in ("RTNETLINK answers: No such process", 'Cannot find device "ix-gone"'):
        make("ip", f"echo '{said}' >&2; exit 2")
        asyncio.run(retire(LocalHost("gw"), made))
    make("ip", "echo 'RTNETLINK answers: Operation not permitted' >&2; exit 2")
    with pytest.raises(
        ApplyFailed, match=r"gw: the route to unreachable 10\.2\.0\.0/24 cannot be removed: RTN"
    ):
        asyncio.run(retire(LocalHost("gw"), made))


def test_an_interface_that_keeps_an_if_id_goes_first(programs):
    _, used = programs
    links = {
        "ix-renamed": Link("ix-renamed", "xfrm", 7, ours=True),
        "ix-kept": Link("ix-kept", "xfrm", 8, ours=True),
        "lo": Link("lo", "xfrm", 9, ours=True),
        "theirs": Link("theirs", "xfrm", 10),
    }
    wanted = {
        "ix-new": Interface("ix-new", 7, 1400, (), "new"),
        "ix-kept": Interface("ix-kept", 8, 1300, (), "kept"),
        "lo": Interface("lo", 11, 1400, (), "changed"),
        "ix-hold": Interface("ix-hold", 0, 65535, (), "", InterfaceKind.DUMMY),
    }
    links["ix-hold"] = Link("ix-hold", "dummy", ours=True)
    made = plan(*((Part.INTERFACE, name, Kind.CHANGE) for name in wanted))
    first = in_the_way(made, wanted, links)
    assert first == ("ix-renamed", "lo")
    asyncio.run(activate(LocalHost("gw"), made, first))
    assert used()[:2] == ["ip link delete lo", "guard interfaces"]


def test_network_manager_reads_that_it_leaves_our_interfaces_alone_before_they_are_there(programs):
    make, used = programs
    made = plan((Part.FILE, NETWORK_MANAGER_FILE, Kind.CREATE), (Part.INTERFACE, "ix-new", Kind.CREATE))
    run(made)
    assert used()[:3] == [
        "systemctl is-active --quiet NetworkManager",
        "systemctl reload NetworkManager",
        "guard interfaces",
    ]
    make("systemctl", "[ $1 != is-active ]")
    run(made)
    assert used()[5:7] == ["systemctl is-active --quiet NetworkManager", "guard interfaces"]


def test_charons_device_and_rules_come_before_the_firewall(programs):
    make, used = programs
    make("ip", 'case $* in *"route show"*) echo 10.2.0.0/24 ;; *rule*) echo File exists >&2; exit 2 ;; esac')
    run(
        plan(
            (Part.DEVICE, "ipsec0", Kind.CHANGE),
            (Part.DEVICE, "rule ipv6 220 lookup 210", Kind.CREATE),
            (Part.FIREWALL, "inet ipsecctl", Kind.CREATE),
        )
    )
    assert used()[:3] == [
        "ip link set dev ipsec0 up",
        "ip route show table all dev ipsec0 proto static",
        "ip -6 rule add pref 220 from all lookup 210",
    ], "one that somebody has made meanwhile is as good"


def test_a_rule_that_cannot_be_made_is_an_error(programs):
    make, _ = programs
    make("ip", "echo Operation not permitted >&2; exit 2")
    with pytest.raises(ApplyFailed, match="charon's rule cannot be made: Operation not permitted"):
        run(plan((Part.DEVICE, "rule ipv4 220 lookup 220", Kind.CREATE)))

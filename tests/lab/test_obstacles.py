"""What stands in the way on a gateway: said by plan and apply, and nothing of anybody's is touched.

Everything here is somebody else's, made by hand before the topology is applied for the first time; it is the
same before and after. One thing is played: that the kernel makes no xfrm or dummy interfaces. Debian's has
both, and to take a module away would end all such interfaces on the machine. So a gateway's ``ip`` says of
them in that lab what it says on a kernel without (as recorded in tests/gateway/recorded/lab-libipsec.txt).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.topology import interface_name

pytestmark = [
    pytest.mark.lab,
    pytest.mark.esp,
    pytest.mark.kernel,
    pytest.mark.untouched,
    pytest.mark.xdist_group("three-sites"),
]

TOPOLOGY = """
ipsecctl: 1
name: three-sites
defaults: {control: lab, mode: MODE, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  a: {networks: {lan: 10.71.0.0/24}, gateway: 198.51.100.71}
  b: {networks: {lan: 10.72.0.0/24}, gateway: 203.0.113.72}
tunnels:
  a-b: {between: [a, b], if_id: 42}
"""
GATEWAYS = ("a", "b")
TABLES = "nft -s list tables; nft -s list ruleset | grep -v counter"
SEEN = (
    f"ip -d link; ip -4 route show table all; ip -6 route show table all; ip rule; ip -6 rule; {TABLES}; "
    "ip xfrm state; ip xfrm policy; iptables-legacy-save | grep -v '^[#:]'; swanctl --list-conns; "
    "find /etc/swanctl /etc/ipsecctl /etc/strongswan.d /etc/sysctl.d /var/lib/ipsecctl -type f 2>/dev/null; "
    "sysctl net.ipv4.ip_forward"
)


@pytest.fixture(scope="module")
def obstacles(three_sites, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return three_sites.changed(
        tmp_path_factory.mktemp("obstacles"), lambda _: TOPOLOGY.replace("MODE", "route")
    )


def in_policy_mode(lab):
    """Return the lab with its topology in policy mode, in a file beside it."""
    file = Path(lab.file).with_name("policy.yaml")
    file.write_text(TOPOLOGY.replace("MODE", "policy").replace(", if_id: 42", ""))
    return replace(lab, topology=replace(lab.topology, file=str(file)))


@contextmanager
def obstacle(lab, gateway: str, made: str, undone: str) -> Iterator[None]:
    """Have something of somebody else's on a gateway as long as the block lasts."""
    lab.sh(gateway, f"set -e; {made}")
    try:
        yield
    finally:
        lab.sh(gateway, undone, statuses=(0, 1, 2))


def refused(lab, *wanted: str) -> None:
    """Want these words from plan and from apply, which both refuse; and all on the gateways as it was."""
    before = {name: lab.sh(name, SEEN, statuses=(0, 1)) for name in GATEWAYS}
    plan = lab.ipsecctl("plan", lab.file, statuses=(1,))
    apply = lab.ipsecctl("apply", lab.file, "--yes", statuses=(1,))
    for words in wanted:
        assert words in plan.stdout
        assert words in apply.stderr
    assert plan.stdout.count("conflict: ") == len(wanted) // 2, plan.stdout
    assert {name: lab.sh(name, SEEN, statuses=(0, 1)) for name in GATEWAYS} == before


def test_interfaces_routes_and_if_ids_of_somebody_elses(obstacles):
    ours = interface_name("a-b")
    with (
        obstacle(
            obstacles,
            "a",
            "ip link add theirs type xfrm if_id 42; ip link set theirs up; "
            "ip route add 10.72.0.0/24 dev theirs metric 20",
            "ip link delete theirs",
        ),
        obstacle(
            obstacles,
            "b",
            f"ip link add {ours} type dummy; ip tuntap add ipsec0 mode tun",
            f"ip link delete {ours}; ip tuntap delete ipsec0 mode tun",
        ),
    ):
        refused(
            obstacles,
            "a: theirs, which ipsecctl did not make, has if_id 0x2a",
            "Give the tunnel 'a-b' an if_id of its own",
            "a: a route to 10.72.0.0/24 that ipsecctl did not make (metric 20) goes to theirs",
            "Remove it, or give it a metric above 50",
            f"b: there is an interface {ours} that ipsecctl did not make",
            f"Remove it (ip link delete {ours})",
            "b: there is an interface ipsec0, and the kernel is to carry ESP",
            "remove it (ip link delete ipsec0)",
        )


def test_without_nft_and_with_rules_and_policies_of_somebody_elses(obstacles):
    """Rules of iptables-legacy that drop all are refused; those that drop or rewrite some are said."""
    selector = "src 10.9.0.0/24 dst 10.8.0.0/24 dir out if_id 42"
    policy = f"ip xfrm policy add {selector} tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel"
    hidden = "mv /usr/sbin/nft /usr/sbin/nft.away"
    drop = "iptables-legacy -P FORWARD DROP"
    with (
        obstacle(obstacles, "a", hidden, "mv /usr/sbin/nft.away /usr/sbin/nft"),
        obstacle(obstacles, "b", drop, "iptables-legacy -P FORWARD ACCEPT"),
        obstacle(obstacles, "b", policy, f"ip xfrm policy delete {selector}"),
    ):
        refused(
            obstacles,
            "a: it has no nftables with sets of address pairs (nft is not installed); it keeps",
            "Install nftables",
            "b: iptables-legacy drops what is forwarded (iptables-legacy -t filter: -P FORWARD DROP)",
            "Let tunnels pass (iptables-legacy -I FORWARD -i ix-+ -j ACCEPT and",
            "b: IPsec policies that are not ipsecctl's use if_id 0x2a",
            "Give the tunnel 'a-b' an if_id of its own",
        )
    rules = "iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE; "
    rules += "iptables-legacy -A FORWARD -s 10.99.0.0/16 -j DROP"
    undone = "iptables-legacy -t nat -F; iptables-legacy -F"
    unread = "mv /usr/sbin/iptables-legacy-save /usr/sbin/iptables-legacy-save.away"
    read = "mv /usr/sbin/iptables-legacy-save.away /usr/sbin/iptables-legacy-save"
    with obstacle(obstacles, "b", rules, undone), obstacle(obstacles, "a", "iptables-legacy -L -n", ":"):
        with obstacle(obstacles, "a", unread, read):
            plan = obstacles.ipsecctl("plan", obstacles.file).stdout
        facts = obstacles.ipsecctl("facts", "b", obstacles.file).stdout
    assert "conflict" not in plan
    assert "note: b: a rule of iptables-legacy may rewrite the source of what goes into tunnels" in plan
    assert "(iptables-legacy -t nat: -A POSTROUTING -o wan -j MASQUERADE)" in plan
    assert (
        "note: b: a rule of iptables-legacy may drop what tunnels carry (iptables-legacy -t filter: " in plan
    )
    assert "Look with 'iptables-legacy-save -t nat'" in plan
    assert "note: a: iptables-legacy is in use (table filter), and its rules cannot be read" in plan
    assert "note: iptables-legacy is in use (ip filter, ip nat; " in facts


KERNEL_WITHOUT = """#!/bin/sh
case " $* " in *" link add "*" type xfrm "* | *" link add "*" type dummy "*)
    echo 'Error: Unknown device type.' >&2; exit 2 ;;
esac
exec /usr/sbin/ip "$@"
"""


def test_a_kernel_without_xfrm_or_dummy_interfaces(obstacles):
    ip = "/usr/local/sbin/ip"
    obstacles.sh("a", "test -x /usr/sbin/ip")
    obstacles.sh("a", f"cat >{ip}; chmod 755 {ip}", KERNEL_WITHOUT.encode())
    try:
        refused(
            obstacles,
            "a: it has no xfrm interfaces (Unknown device type); the topology asks for xfrm interfaces",
            "It takes CONFIG_XFRM_INTERFACE (Linux 4.19)",
        )
        refused(
            in_policy_mode(obstacles),
            "a: it has no dummy interfaces (Unknown device type); in policy mode packets are led to one",
            "It takes CONFIG_DUMMY (modprobe dummy); or take 'mode: route'.",
        )
        facts = obstacles.json("facts", "--all", obstacles.file, statuses=(1,))["gateways"]
        assert {gateway["gateway"]: len(gateway["lacks"]) for gateway in facts} == {"a": 1, "b": 0}
    finally:
        obstacles.sh("a", f"rm {ip}")


def test_and_with_nothing_in_the_way_it_comes_up(obstacles):
    obstacles.apply()
    assert obstacles.xfrm_interfaces("a") == [interface_name("a-b")]

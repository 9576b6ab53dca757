"""Kernel features that a topology can ask for, as the kernel and the wire have them; and those it cannot do.

One lab has them all, each tunnel others: extended sequence numbers with a replay window, and headers that
are not copied (a-b); marks, and DSCP copied inwards only (a-c); an SA for each CPU, in UDP, with headers
copied as by default (b-c). IPv6 goes in IPv4 here; tests/lab/test_mtu.py has IPv4 and IPv6 in IPv6.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.esp, pytest.mark.kernel, pytest.mark.xdist_group("three-sites")]

TOPOLOGY = """
ipsecctl: 1
name: three-sites
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
profiles:
  esn: {based_on: modern, esp: aes256gcm16-x25519-esn}
sites:
  a: {networks: {lan: [10.71.0.0/24, "fd00:71::/64"]}, gateway: 198.51.100.71}
  b: {networks: {lan: [10.72.0.0/24, "fd00:72::/64"]}, gateway: 203.0.113.72}
  c: {networks: {lan: [10.73.0.0/24, "fd00:73::/64"]}, gateway: 192.0.2.73}
tunnels:
  a-b: {between: [a, b], profile: esn, options: {replay_window: 1024, copy_df: false, copy_dscp: "no"}}
  a-c: {between: [a, c], options: {mark_in: 42, mark_out: 42, copy_dscp: in}}
  b-c: {between: [b, c], options: {per_cpu_sas: true, force_udp: true}}
"""
WAN = {"a": "198.51.100.71", "b": "203.0.113.72", "c": "192.0.2.73"}
HOST = {"a": "10.71.0.10", "b": "10.72.0.10", "c": "10.73.0.10"}
HOST6 = {"a": "fd00:71::10", "b": "fd00:72::10", "c": "fd00:73::10"}
EF = 0xB8
"""Expedited forwarding, as the traffic class byte has it."""
MARK = 42
LONGEST_S = 5.0 * PATIENCE


@pytest.fixture(scope="module")
def features(three_sites, tmp_path_factory: pytest.TempPathFactory) -> Any:
    lab = three_sites.changed(tmp_path_factory.mktemp("features"), lambda _: TOPOLOGY)
    lab.apply()
    return lab


def states(lab, here: str, there: str) -> tuple[list[str], list[str]]:
    """Return the kernel's SAs of a tunnel as ``ip xfrm state`` tells them: those out of ``here``, and in.

    Those that only wait for charon to negotiate them have no SPI, and are none.
    """
    listed = re.split(r"(?m)^(?=src )", lab.sh(here, "ip xfrm state"))
    found = [state for state in listed if "proto esp spi 0x00000000" not in state]
    out = [state for state in found if state.startswith(f"src {WAN[here]} dst {WAN[there]}")]
    into = [state for state in found if state.startswith(f"src {WAN[there]} dst {WAN[here]}")]
    return out, into


@contextmanager
def captured(lab, node: str, interface: str, wanted: str, count: int) -> Iterator[list[str]]:
    """Yield a list that has, after the block, what tcpdump says of ``count`` packets, a line each."""
    file = f"/tmp/{interface}.txt"
    lab.sh(
        node,
        f"rm -f {file}; timeout {round(3 * LONGEST_S)} tcpdump -l -n -v -i {interface} -c {count} '{wanted}' "
        f">{file} 2>{file}.err & while ! grep -q listening {file}.err; do sleep 0.1; done",
    )
    lines: list[str] = []
    yield lines
    deadline = time.monotonic() + LONGEST_S
    while len(seen := re.findall(r"(?m)^\S.*\n.*$", lab.sh(node, f"cat {file}"))) < count:
        assert time.monotonic() < deadline, f"{node}, {interface}: {len(seen)} of {count} {wanted}: {seen}"
    lines.extend(seen)


def ping(lab, source: str, target: str, *, count: int = 3, answered: bool = True, options: str = "") -> None:
    """Ping from a site's host, with Don't Fragment, marked for expedited forwarding."""
    lab.sh(
        f"{source}-lan",
        f"ping -n -q -c {count} -i 0.2 -W {round(PATIENCE)} -Q {EF} -M do {options} {target}",
        statuses=(0,) if answered else (1,),
    )


def test_esn_and_a_replay_window_of_ones_own(features):
    for here, there in (("a", "b"), ("b", "a")):
        (out,), (into,) = states(features, here, there)
        for state in (out, into):
            assert re.search(r"(?m)^\s+replay-window 0 flag .*\besn\b", state), state
        assert "replay_window 1024, bitmap-length 32" in into
    assert "ESP:AES_GCM_16-256/ESN" in features.sh("a", "swanctl --list-sas --ike a-b")


def test_what_the_outer_header_takes_over(features):
    """By default Don't Fragment and DSCP are copied outwards; a-b has neither, b-c both."""
    with captured(features, "a", "wan", "ip proto 50 and src host 198.51.100.71", 3) as bare:
        ping(features, "a", HOST["b"])
    assert len(bare) == 3
    assert all("tos 0x0," in line and "flags [none]" in line for line in bare), bare
    # The first packets of a CPU may be lost while its SA is negotiated. Four bytes of zero are IKE's.
    esp_in_udp = "udp port 4500 and src host 203.0.113.72 and udp[8:4] != 0"
    with captured(features, "b", "wan", esp_in_udp, 1) as taken:
        ping(features, "b", HOST["c"])
    assert all(f"tos {EF:#x}," in line and "flags [DF]" in line for line in taken), taken
    (out,), (into,) = states(features, "a", "b")
    assert "nopmtudisc" in out and "decap-dscp" not in into


def test_ipv6_goes_in_ipv4(features):
    with captured(features, "a", "wan", "ip proto 50 and src host 198.51.100.71", 3):
        ping(features, "a", HOST6["b"])


def test_ipv6_that_is_off_on_the_wan_is_said_and_does_drop_it(features):
    features.sh("b", "echo 1 >/proc/sys/net/ipv6/conf/wan/disable_ipv6")
    try:
        ping(features, "a", HOST6["b"], count=1, answered=False)
        plan = features.ipsecctl("plan", features.file)
        assert "b: IPv6 is off on wan (net.ipv6.conf.wan.disable_ipv6 is 1)" in plan.stdout
        assert "Nothing to do" in plan.stdout
    finally:
        features.sh("b", "echo 0 >/proc/sys/net/ipv6/conf/wan/disable_ipv6")
    ping(features, "a", HOST6["b"], count=1)


def test_marks(features):
    """Only what bears the mark finds into the tunnel, and out of it; nothing else leaves in clear."""
    for here, there in (("a", "c"), ("c", "a")):
        (out,), _ = states(features, here, there)
        assert re.search(rf"(?m)^\s+mark {MARK:#x}/0xffffffff", out), out
        policies = re.split(r"(?m)^(?=src )", features.sh(here, "ip xfrm policy"))
        ours = [p for p in policies if f"src {WAN[here]} dst {WAN[there]}" in p and "dir out" in p]
        assert ours and all(f"mark {MARK:#x}/0xffffffff" in policy for policy in ours)
    counter = "nft list counter inet ipsecctl leaving_in_clear"
    before = features.sh("a", counter)
    ping(features, "a", HOST["c"], answered=False)
    assert features.sh("a", counter) != before
    try:
        for gateway, far in (("a", "10.73.0.0/24"), ("c", "10.71.0.0/24")):
            rules = f"ip daddr {far} meta mark set {MARK}\n ip protocol esp meta mark set {MARK}"
            chain = f"chain pre {{ type filter hook prerouting priority mangle;\n {rules}\n }}"
            features.sh(gateway, "nft -f -", f"table inet marks {{\n {chain}\n }}\n".encode())
        # What arrives has the outer header's traffic class, and that is none: it is not copied outwards.
        with captured(features, "c-lan", "lan", f"icmp and dst host {HOST['c']}", 3) as arrived:
            ping(features, "a", HOST["c"])
        assert all("tos 0x0," in line for line in arrived), arrived
        _, (into,) = states(features, "c", "a")
        assert "decap-dscp" in into
    finally:
        for gateway in ("a", "c"):
            features.sh(gateway, "nft delete table inet marks", statuses=(0, 1))


def test_an_sa_for_each_cpu(features, record_property):
    """Traffic from a CPU without an SA of its own makes charon negotiate one; the tunnel stays up."""
    cpus = int(features.sh("b", "nproc"))
    assert cpus > 1, "with one CPU there is nothing to see"
    deadline = time.monotonic() + LONGEST_S
    while len(found := numbered(features)) < cpus:
        assert time.monotonic() < deadline, found
        for cpu in range(cpus):
            features.sh(
                "b", f"taskset -c {cpu} ping -n -q -c 1 -W 1 -I 10.72.0.1 {HOST['c']}", statuses=(0, 1)
            )
    assert found == set(range(cpus))
    record_property("shown", f"per-CPU SAs of b to c: pcpu-num {sorted(found)}")
    out, _ = states(features, "b", "c")
    assert all("encap type espinudp" in state for state in out)
    status = features.json("status", features.file)
    assert {tunnel["verdict"] for tunnel in status["tunnels"]} == {"up"}
    done = features.json("apply", features.file)
    assert done["nothing_to_do"], json.dumps(done)


def numbered(lab) -> set[int]:
    out, _ = states(lab, "b", "c")
    return {int(number) for state in out for number in re.findall(r"pcpu-num (\d+)", state)}


def pushed(lab) -> dict[str, list[str]]:
    """Return by gateway all that a push changes: files, what charon was told, SAs, policies, firewall."""
    told = (
        "find /etc/swanctl /etc/ipsecctl /etc/strongswan.d /var/lib/ipsecctl -type f -exec sha256sum {} +; "
        "swanctl --list-conns --raw; ip xfrm state | grep spi; ip xfrm policy; "
        "nft -s list table inet ipsecctl"
    )
    return {name: sorted(lab.sh(name, told).splitlines()) for name in lab.managed}


def test_what_the_kernel_cannot_do_is_refused_before_anything_is_pushed(features, tmp_path: Path):
    """Debian's kernel is older than IP-TFS, and no card of a container takes ESP over."""
    (tmp_path / "secrets").symlink_to(Path(features.file).parent.absolute() / "secrets")
    wanted = tmp_path / "topology.yaml"
    text = Path(features.file).read_text().replace("per_cpu_sas: true", "iptfs: true")
    text = text.replace("mark_in: 42, mark_out: 42", "hw_offload: crypto")
    wanted.write_text(text)
    before = pushed(features)
    for command in (("plan",), ("apply", "--yes")):
        done = features.ipsecctl(*command, str(wanted), statuses=(1,))
        said = done.stdout + done.stderr
        for gateway, feature in (("b", "IP-TFS"), ("c", "IP-TFS"), ("a", "hardware offload")):
            assert f"{gateway}: it has no {feature} (" in said
        assert "It takes CONFIG_XFRM_IPTFS (Linux 6.14); or leave it out of the topology." in said
        assert "It takes a network card with it" in said
        assert "a: it has no IP-TFS" not in said and "b: it has no hardware" not in said
    assert pushed(features) == before

"""The largest packet that passes, on the kernel's data path, to the byte: what ``crypto.overhead`` computes.

Three suites, ESP by itself and in UDP, are the six tunnels between four sites; IPv4 and IPv6 outside are a
lab each. Inside are IPv4 and IPv6.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from ipsecctl import lab as labs
from ipsecctl.crypto import esp_suites, overhead, parse_esp_proposal

LINK_MTU = 1500
SUITES = {"gcm": "aes256gcm16", "chacha": "chacha20poly1305", "cbc": "aes256-sha256"}
WAYS = [(name, in_udp) for name in SUITES for in_udp in (False, True)]
SITES = {
    4: {"a": "198.51.100.61", "b": "203.0.113.62", "c": "192.0.2.63", "d": "198.51.101.64"},
    6: {"a": "2001:db8:a::61", "b": "2001:db8:b::62", "c": "2001:db8:c::63", "d": "2001:db8:d::64"},
}
PAIRS = dict(zip(combinations("abcd", 2), WAYS, strict=True))
"""Which two sites are joined by which suite, and whether in UDP."""

pytestmark = [pytest.mark.lab, pytest.mark.esp, pytest.mark.kernel]
"""kernel-libipsec has one fixed MTU for all (1400): there is nothing to measure without the kernel's ESP."""


def topology(outer: int) -> str:
    lines = ["ipsecctl: 1", f"name: mtu-{outer}", "defaults:", "  control: lab"]
    lines += ['  credential: {psk: "file:secrets/{tunnel}.psk"}', "profiles:"]
    for name, suite in SUITES.items():
        lines.append(f"  {name}: {{based_on: modern, esp: {suite}-x25519}}")
    lines.append("sites:")
    for number, (site, address) in enumerate(SITES[outer].items(), 61):
        networks = f'{{lan: ["10.{number}.0.0/24", "fd00:{number}::/64"]}}'
        lines.append(f'  {site}: {{networks: {networks}, gateway: "{address}"}}')
    lines.append("tunnels:")
    for (left, right), (suite, in_udp) in PAIRS.items():
        options = ", options: {force_udp: true}" if in_udp else ""
        lines.append(f"  {left}-{right}: {{between: [{left}, {right}], profile: {suite}{options}}}")
    return "\n".join(lines) + "\n"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(4, id="ipv4-outside", marks=pytest.mark.xdist_group("mtu-4")),
        pytest.param(6, id="ipv6-outside", marks=pytest.mark.xdist_group("mtu-6")),
    ],
)
def outer(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version


@pytest.fixture(scope="module")
def measured(outer: int, lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """What the probe says of every tunnel, by name."""
    folder = tmp_path_factory.mktemp("mtu") / f"mtu-{outer}"
    folder.mkdir()
    (folder / "topology.yaml").write_text(topology(outer))
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(folder / "lab.yaml"))) as lab:
        lab.apply()
        report = lab.json("probe", "tunnel", lab.file, "--all", statuses=(0, 1))
        yield {tunnel["name"]: tunnel for tunnel in report["tunnels"]}


def test_the_largest_packet_is_the_computed_one(measured, outer: int, record_property) -> None:
    wrong = []
    for pair, (name, in_udp) in PAIRS.items():
        (suite,) = esp_suites(parse_esp_proposal(SUITES[name]))
        computed = overhead(LINK_MTU, suite, outer=outer, nat_t=in_udp).inner_mtu
        checks = [c for c in measured["-".join(pair)]["checks"] if c["check"] == "mtu"]
        seen = {(c["direction"], c["outcome"], c["expected"], c["measured"]) for c in checks}
        sizes = {size for *_, size in seen}
        how = f"{suite} {'in UDP ' if in_udp else ''}over IPv{outer}"
        record_property("shown", f"MTU of {how}: computed {computed}, measured {sizes or 'nothing'}")
        if len(checks) != 4 or {said[1:] for said in seen} != {("holds", computed, computed)}:
            wrong.append((how, computed, sorted(map(str, checks))))
    assert not wrong


def test_all_else_holds_too(measured) -> None:
    for tunnel in measured.values():
        failed = [check for check in tunnel["checks"] if check["outcome"] != "holds"]
        assert not failed, tunnel["name"]
    encapsulations = {
        name: {c["measured"] for c in tunnel["checks"] if c["check"] == "encapsulation"}
        for name, tunnel in measured.items()
    }
    for pair, (_, in_udp) in PAIRS.items():
        assert len(encapsulations["-".join(pair)]) == 1
        assert ("UDP 4500" in encapsulations["-".join(pair)]) == in_udp

"""The largest packet that passes, on the kernel's data path, to the byte: what ``crypto.overhead`` computes.

Three suites are the three tunnels between three sites, with ESP by itself first and then in UDP; IPv4 outside
is in the lab that other tests have, too, IPv6 in one of its own. Inside are IPv4 and IPv6.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipsecctl import lab as labs
from ipsecctl.crypto import esp_suites, overhead, parse_esp_proposal

LINK_MTU = 1500
SUITES = {"gcm": "aes256gcm16", "chacha": "chacha20poly1305", "cbc": "aes256-sha256"}
SITES = {
    4: {"a": "198.51.100.71", "b": "203.0.113.72", "c": "192.0.2.73"},  # three-sites
    6: {"a": "2001:db8:a::71", "b": "2001:db8:b::72", "c": "2001:db8:c::73"},
}
PAIRS = dict(zip(("a-b", "a-c", "b-c"), SUITES, strict=True))
"""Which two sites are joined by which suite."""
WAYS = [(tunnel, in_udp) for tunnel in PAIRS for in_udp in (False, True)]

pytestmark = [pytest.mark.lab, pytest.mark.esp, pytest.mark.kernel]
"""kernel-libipsec has one fixed MTU for all (1400): there is nothing to measure without the kernel's ESP."""


def topology(outer: int, in_udp: bool) -> str:
    name = "three-sites" if outer == 4 else f"mtu-{outer}"
    lines = ["ipsecctl: 1", f"name: {name}", "defaults:", "  control: lab"]
    lines += ['  credential: {psk: "file:secrets/{tunnel}.psk"}', "profiles:"]
    for name, suite in SUITES.items():
        lines.append(f"  {name}: {{based_on: modern, esp: {suite}-x25519}}")
    lines.append("sites:")
    for number, (site, address) in enumerate(SITES[outer].items(), 71):
        networks = f'{{lan: ["10.{number}.0.0/24", "fd00:{number}::/64"]}}'
        lines.append(f'  {site}: {{networks: {networks}, gateway: "{address}"}}')
    lines.append("tunnels:")
    options = ", options: {force_udp: true}" if in_udp else ""
    for tunnel, suite in PAIRS.items():
        ends = tunnel.replace("-", ", ")
        lines.append(f"  {tunnel}: {{between: [{ends}], profile: {suite}{options}}}")
    return "\n".join(lines) + "\n"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(4, id="ipv4-outside", marks=pytest.mark.xdist_group("three-sites")),
        pytest.param(6, id="ipv6-outside", marks=pytest.mark.xdist_group("mtu-6")),
    ],
)
def outer(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version


@contextmanager
def lab_with(outer: int, request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    """Have the lab that has these addresses outside."""
    if outer == 4:
        yield request.getfixturevalue("three_sites")
        return
    (folder / "topology.yaml").write_text(topology(outer, in_udp=False))
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with request.getfixturevalue("lab_of")(labs.load(str(folder / "lab.yaml"))) as lab:
        yield lab


@pytest.fixture(scope="module")
def measured(
    outer: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict]:
    """What the probe says of every tunnel, by its name and whether it is in UDP."""
    folder = tmp_path_factory.mktemp("mtu") / f"mtu-{outer}"
    folder.mkdir()
    found = {}
    with lab_with(outer, request, folder) as there:
        for in_udp in (False, True):
            text = topology(outer, in_udp)
            lab = there.changed(tmp_path_factory.mktemp("way"), lambda _, text=text: text)
            lab.apply()
            report = lab.json("probe", "tunnel", lab.file, "--all", statuses=(0, 1))
            found |= {(tunnel["name"], in_udp): tunnel for tunnel in report["tunnels"]}
        yield found


def test_the_largest_packet_is_the_computed_one(measured, outer: int, record_property) -> None:
    wrong = []
    for tunnel, in_udp in WAYS:
        (suite,) = esp_suites(parse_esp_proposal(SUITES[PAIRS[tunnel]]))
        computed = overhead(LINK_MTU, suite, outer=outer, nat_t=in_udp).inner_mtu
        checks = [c for c in measured[tunnel, in_udp]["checks"] if c["check"] == "mtu"]
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
    for tunnel, in_udp in WAYS:
        checks = measured[tunnel, in_udp]["checks"]
        (encapsulation,) = {c["measured"] for c in checks if c["check"] == "encapsulation"}
        assert (encapsulation == "UDP 4500") == in_udp

"""What the kernel has of charon's SAs: read from real lists, held against charon's, and asked for twice."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway.device import Device
from ipsecctl.gateway.handle import Completed
from ipsecctl.gateway.kernel_sas import (
    SCRIPT,
    KernelView,
    NotInKernel,
    confirmed,
    not_in_kernel,
    parse_kernel,
)
from ipsecctl.topology import DataPath

IPV6_OFF = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip()
RECORDED = Path(__file__).parent / "recorded"
# `ip xfrm state list nokeys`, an empty line, and `ip xfrm policy`, of gateways with two tunnels each.
RELEASES = ("6.1", "6.15", "7.2")

IP = """#!/bin/sh
case "$*" in
"xfrm state list nokeys") cat {folder}/state; exit {state} ;;
"xfrm policy") cat {folder}/policy; exit {policy} ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def told(tmp_path):
    """Return what the script tells where ``ip`` prints a recorded file, and what is read from that."""

    def run(recorded, state=0, policy=0):
        halves = (RECORDED / recorded).read_text().split("\n\n", 1)
        for name, text in zip(("state", "policy"), halves, strict=True):
            (tmp_path / name).write_text(text.rstrip("\n") + "\n")
        ip = tmp_path / "ip"
        ip.write_text(IP.format(folder=tmp_path, state=state, policy=policy))
        ip.chmod(0o755)
        done = subprocess.run(
            ["sh", "-c", SCRIPT.replace("/sys/class/net/ipsec0", str(tmp_path / "none"))],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, parse(done.stdout)

    return run


def parse(text):
    found = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        found.setdefault(kind, []).append(rest)
    return parse_kernel(found)


SITES = {"6.1": (51, (52, 53)), "6.15": (52, (51, 53)), "7.2": (53, (51, 52))}


@pytest.mark.parametrize("release", RELEASES)
def test_the_lists_of_each_iproute2(told, release):
    text, view = told(f"xfrm-iproute2-{release}.txt")
    assert "Keys" not in text and "aead" not in text
    assert len(view.spis) == 4
    assert {"6.1": "c977c677", "6.15": "ce731cf2", "7.2": "cc3dd230"}[release] in view.spis
    here, others = SITES[release]
    pairs = [
        (f"{net}{here}{size}", f"{net}{far}{size}")
        for far in others
        for net, size in (("10.", ".0.0/24"), ("fd00:", "::/64"))
    ]
    assert view.policies == {
        policy
        for near, far in pairs
        for policy in (("out", near, far, 0), ("in", far, near, 0), ("fwd", far, near, 0))
    }
    assert view.routes is None


def test_if_ids_belong_to_policies(told):
    _, view = told("xfrm-route-mode.txt")
    assert {if_id for *_, if_id in view.policies} == {0x7D2BD737, 0x2FE3E974}
    assert ("out", "10.10.8.0/24", "10.20.2.0/24", 0x7D2BD737) in view.policies
    assert len(view.policies) == 12


def test_where_charon_carries_esp_its_device_is_told_of(tmp_path):
    def told():
        script = SCRIPT.replace("/sys/class/net/ipsec0", str(tmp_path))
        return subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert not any(line.startswith("device ") for line in told())
    (tmp_path / "flags").write_text("0x1091\n")
    assert told()[0] == "device 0x1091"
    assert told()[-2:] == ["device-ipv6 ipsec0 ", f"device-ipv6 all {IPV6_OFF}"]


def test_what_leads_into_it_counts_once_all_routes_of_both_families_were_listed():
    rules = 'rules 4 [{"priority":32766,"src":"all","table":"254"}]'
    lines = [
        "device 0x1091",
        rules,
        "ipsec0-route 10.10.0.0/24 220",
        "ipsec0-route fe80::/64 254",
        "at a 10.1.0.1/24",
        "told 4",
    ]
    assert parse("\n".join(lines)).routes is None
    view = parse("\n".join([*lines, "told 6"]))
    assert view.routes == {IPNetwork("10.10.0.0/24"), IPNetwork("fe80::/64")}
    here = frozenset({IPAddress("10.1.0.1")})
    found = Device(unruled=frozenset({4}), tables=((4, 220),), sources=here)
    assert view.device == found, "of IPv6 nothing was told"
    assert parse("device absent\ntold 4\ntold 6") == KernelView(device=Device(there=False, up=False))


def test_a_list_that_was_not_told_to_its_end_is_not_known(told):
    assert told("xfrm-iproute2-6.1.txt", state=2)[1].spis is None
    _, view = told("xfrm-iproute2-6.1.txt", policy=2)
    assert (view.policies, len(view.spis)) == (None, 4)


def test_nothing_is_something_else_than_not_known():
    assert parse("kernel sas\nkernel policies") == KernelView(frozenset(), frozenset())
    assert parse("") == KernelView()


CHILD = {
    "name": "t",
    "state": "INSTALLED",
    "mode": "TUNNEL",
    "protocol": "ESP",
    "spi-in": "c0ffee01",
    "spi-out": "c0ffee02",
    "local-ts": ["10.1.0.0/24", "fd00:1::/64"],
    "remote-ts": ["10.2.0.0/24", "fd00:2::/64"],
}
PAIRS = (("10.1.0.0/24", "10.2.0.0/24"), ("fd00:1::/64", "fd00:2::/64"))
POLICIES = frozenset(
    policy for a, b in PAIRS for policy in (("out", a, b, 0), ("in", b, a, 0), ("fwd", b, a, 0))
)
SPIS = frozenset({"c0ffee01", "c0ffee02"})
WHOLE = KernelView(SPIS, POLICIES)


def sas(**changes):
    return ({"t": {"state": "ESTABLISHED", "child-sas": {"t-1": {**CHILD, **changes}}}},)


def test_a_kernel_that_has_it_all():
    assert not_in_kernel(sas(), WHOLE) == ()
    assert not_in_kernel(sas(), KernelView()) == ()
    with_ports = {"local-ts": ["10.1.0.0/24[tcp]"], "remote-ts": ["10.2.0.0/24[tcp/443]"]}
    assert not_in_kernel(sas(**with_ports), WHOLE) == ()
    some = {("out", a, b, 0x2A) for a, b in PAIRS}
    others = {(d, b, a, 0x2B) for a, b in PAIRS for d in ("in", "fwd")}
    marked = {"if-id-in": "0000002b", "if-id-out": "0000002a"}
    assert not_in_kernel(sas(**marked), KernelView(SPIS, frozenset(some | others))) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "REKEYING"},
        {"state": "REKEYED"},
        {"state": "DELETING"},
        {"protocol": "AH"},
        {"mode": "TRANSPORT"},
    ],
)
def test_of_what_charon_does_not_call_installed_nothing_is_asked(changes):
    assert not_in_kernel(sas(**changes), KernelView(frozenset(), frozenset())) == ()


def test_lost_sas():
    (lost,) = not_in_kernel(sas(), KernelView(frozenset(), POLICIES))
    assert lost == NotInKernel("t", "t", "c0ffee01", ("inbound c0ffee01", "outbound c0ffee02"))
    (lost,) = not_in_kernel(sas(), KernelView(frozenset({"c0ffee01"}), None))
    assert (lost.sas, lost.dead) == (("outbound c0ffee02",), True)


def test_lost_policies_kill_what_they_are_for():
    one = frozenset({("fwd", "10.2.0.0/24", "10.1.0.0/24", 0)})
    (lost,) = not_in_kernel(sas(), KernelView(SPIS, POLICIES - one))
    assert (lost.policies, lost.dead) == (("fwd 10.2.0.0/24 to 10.1.0.0/24",), False)
    six = frozenset({("in", "fd00:2::/64", "fd00:1::/64", 0)})
    (lost,) = not_in_kernel(sas(), KernelView(SPIS, POLICIES - one - six))
    assert lost.dead
    (lost,) = not_in_kernel(sas(**{"if-id-in": "2a", "if-id-out": "2a"}), WHOLE)
    assert (len(lost.policies), lost.dead) == (6, True)


def test_ranges_have_other_policies_than_their_text_says_and_are_left_out():
    ranges = {"local-ts": ["10.1.0.3..10.1.0.9"], "remote-ts": ["10.2.0.0/24", "dynamic"]}
    assert not_in_kernel(sas(**ranges), KernelView(SPIS, frozenset(), None)) == ()
    (lost,) = not_in_kernel(sas(**ranges), KernelView(routes=frozenset()))
    assert (lost.routes, lost.dead) == (("10.2.0.0/24",), False)


def test_lost_routes():
    def with_routes(*prefixes):
        return not_in_kernel(sas(), KernelView(routes=frozenset(map(IPNetwork, prefixes))))

    assert with_routes("10.2.0.0/24", "fd00:2::/64", "10.9.0.0/24") == ()
    assert with_routes("0.0.0.0/0", "fd00::/16") == ()  # a wider one leads there, too
    (lost,) = with_routes("10.2.0.0/25", "fd00:2::/64")
    assert (lost.routes, lost.dead) == (("10.2.0.0/24",), False)
    (lost,) = with_routes("fe80::/64")
    assert (lost.routes, lost.dead) == (("10.2.0.0/24", "fd00:2::/64"), True)


class Again:
    """A gateway that answers the second look: its kernel's text, and charon's list after that."""

    name = "a"

    def __init__(self, text="", later=(), gone=False):
        self.text, self.later, self.gone, self.asked = text, later, gone, 0

    async def run(self, argv, stdin=b"", *, timeout_s=10.0):
        self.asked += 1
        if self.gone:
            raise GatewayUnreachable("a", "gone")
        return Completed(0, self.text.encode(), b"")

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        async def stream(name, event, message=None):
            return list(self.later)

        yield SimpleNamespace(stream=stream)


NONE_LEFT = "kernel sas\nkernel policies\n"
NEW = {"spi-in": "c0ffee03", "spi-out": "c0ffee04"}


def asked(gateway, kernel, path=DataPath.KERNEL, first=None):
    return asyncio.run(confirmed(gateway, first or sas(), kernel, path, timeout_s=5))


def test_what_is_there_is_not_asked_for_again():
    gateway = Again()
    assert asked(gateway, WHOLE) == ()
    assert gateway.asked == 0


def test_what_is_missing_twice_is_missing():
    gateway = Again(NONE_LEFT, sas())
    (lost,) = asked(gateway, KernelView(frozenset(), frozenset()))
    assert (lost.spi_in, gateway.asked) == ("c0ffee01", 1)


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("kernel-sa c0ffee01\nkernel-sa c0ffee02\nkernel sas\nkernel policies\n", sas()),
        (NONE_LEFT, ()),
        (NONE_LEFT, sas(state="REKEYED")),
        (NONE_LEFT, sas(**NEW)),
    ],
    ids=["installed between the looks", "deleted", "being replaced", "replaced by another"],
)
def test_a_rekey_between_the_looks_is_no_loss(text, later):
    assert asked(Again(text, later), KernelView(frozenset(), POLICIES)) == ()


def test_what_cannot_be_told_is_not_said():
    lost = KernelView(frozenset(), frozenset())
    assert asked(Again(gone=True), lost) is None
    assert asked(Again("", sas()), lost) is None
    assert asked(Again(), KernelView()) is None
    # Lists that say nothing of the data path that the SAs are on.
    assert asked(Again(), lost, DataPath.LIBIPSEC) is None
    assert asked(Again(), KernelView(routes=frozenset()), DataPath.KERNEL) is None
    assert asked(Again(), lost, DataPath.AUTO) is None

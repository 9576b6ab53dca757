"""Two mistakes that have nothing to do with one another are both reported, whichever they are.

A key that is mistyped or missing takes nothing out of the other checks: neither what stands behind it, nor
what stands beside it.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from ipsecctl.errors import Severity
from ipsecctl.secrets import inspect
from ipsecctl.topology import load_text

pytestmark = pytest.mark.slow

T = TypeVar("T")

GOOD = """\
ipsecctl: 1
name: good
defaults:
  credential: clinics
  profile: own
  mtu: 1500
credentials:
  clinics:
    psk: file:secrets/{tunnel}.psk
  certificates:
    certificate: pki/{gateway}.pem
    key: file:pki/{gateway}.key
    ca: pki/ca.pem
profiles:
  own:
    based_on: modern
    ike: [aes256gcm16-prfsha384-x25519, aes256-sha256-modp3072]
    esp: [aes256gcm16-x25519, aes256-sha256-modp3072]
    ike_rekey: 4h
    ike_life: 5h
    esp_rekey: 1h
    esp_life: 70m
sites:
  dc:
    networks:
      servers: [10.10.0.0/24, "fd00:10::/64"]
      imaging: 10.10.8.0/24
    gateways:
      dc-1:
        address: 198.51.100.10
        identity: dc-1.example.org
      dc-2:
        address: 198.51.100.11
  clinic-a:
    networks:
      lan: [10.20.1.0/24, "fd00:20:1::/64"]
    gateway: 203.0.113.20
  clinic-b:
    networks:
      lan: 10.20.2.0/24
      dmz: 10.30.2.0/24
    gateway:
      address: dynamic
      behind_nat: true
  north:
    networks:
      lan: 10.40.1.0/24
    gateway: {address: 203.0.113.30, mtu: 1480}
  south:
    networks:
      lan: 10.40.2.0/24
    gateway: {address: 203.0.113.31}
  west:
    networks:
      lan: 10.40.3.0/24
    profile: own
    gateway: {address: west.example.org}
  lab:
    managed: false
    networks:
      hl7: 192.168.77.0/24
    gateway: {address: 192.0.2.77, identity: lab.example.org}
tunnels:
  clinics:
    hub: dc/dc-1
    spokes: [clinic-a, clinic-b]
    flows:
      - {name: web, from: lan, to: servers, protocol: tcp, port: 443}
      - {from: clinic-b.dmz, to: dc.imaging}
  mesh:
    mesh: [north, south, west]
  partner:
    between: [dc/dc-2, lab]
    profile: legacy-partner
    flows:
      - {from: imaging, to: hl7, protocol: tcp, port: 2575}
      - {from: dc.servers, to: lab.hl7}
"""

# What stands in the file, and the mistake in its place: no two of them at one place.
MISTAKES = {
    "psk: file:secrets/{tunnel}.psk": "psk: hunter2",
    "based_on: modern": "based_on: modren",
    "ike: [aes256gcm16-": "ike: [aes256gcm16-aes256gmc16-",
    "prfsha384-": "prfsha384-prfmd5-",
    "x25519, aes256-sha256-modp3072]\n    esp": "x25519, aes256-sha256-modp3073]\n    esp",
    "esp: [aes256gcm16-x25519": "esp: [aes256gcm16",
    "aes256-sha256-modp3072]\n    ike_rekey": "aes256-sha256-sha1-modp3072]\n    ike_rekey",
    "ike_life: 5h": "ike_life: 4h",
    "imaging: 10.10.8.0/24": "imaging: 10.10.8.1/24",
    "address: 198.51.100.10\n": "address: 198.51.100.300\n",
    "address: 198.51.100.11\n": "address: 198.51.100.11\n        identity: lab.example.org\n",
    "gateway: 203.0.113.20\n": "gateway: 203.0.113.20\n    gateways: {x: 203.0.113.99}\n",
    "behind_nat: true": "behind_nat: 'yes'",
    "address: 203.0.113.30": 'address: "2001:db8::30"',
    "lan: 10.40.2.0/24": "lan: 10.40.1.0/24",
    "    profile: own\n    gateway": "    profile: owm\n    gateway",
    "from: lan,": "from: lam,",
    "port: 443": "port: 99999",
    "from: clinic-b.dmz": "from: clinic-b.dmx",
    "mesh: [north, south, west]": "mesh: [north, south, west]\n    initiator: north",
    "profile: legacy-partner": "profile: legacy-partner\n    credential: nobody",
    "lab.hl7}": "lab.hl8}",
}


def findings(text: str) -> set[tuple[str, str]]:
    """Return code and summary of every error and warning; lines move with the mistakes."""
    found = load_text(text, "t.yaml").diagnostics
    return {(d.code, re.sub(r"\d+\)", "N)", d.summary)) for d in found if d.severity is not Severity.INFO}


def some(cases: Iterable[T]) -> list[T]:
    """Return all cases, or where `make test-unit` takes few examples one of three, others each time."""
    every = [*cases]
    quick = settings.default.max_examples < 100
    return every[random.randrange(min(3, len(every))) :: 3] if quick else every


ROUTED = """\
ipsecctl: 1
name: routed
defaults:
  control: lab
  credential: {psk: "env:PSK_{tunnel}"}
  datapath: kernel
sites:
  dc:
    networks: {servers: 10.10.0.0/24, imaging: 10.10.8.0/24}
    gateway:
      address: 198.51.100.10
      mode: route
      inside: 10.10.0.1
  a:
    networks: {lan: 10.20.1.0/24}
    gateway:
      address: 203.0.113.5
      mode: auto
      inside: 10.20.1.1
  b:
    networks: {lan: 10.20.2.0/24}
    gateway: 203.0.113.6
  c:
    networks: {lan: 10.20.3.0/24}
    gateway: {address: 203.0.113.7, datapath: kernel}
tunnels:
  one:
    between: [a, dc]
    mode: route
    selectors: any
    if_id: 42
    addresses:
      a: 169.254.10.1/30
      dc: 169.254.10.2/30
    routes: [10.10.0.0/20, 10.20.1.0/24]
    options:
      replay_window: 64
      copy_df: true
  two:
    between: [b, dc]
    mode: route
    if_id: 43
    addresses: {dc: 169.254.11.1/30}
    flows:
      - {from: lan, to: imaging}
  three:
    between: [c, dc]
    mode: policy
"""
ROUTED_MISTAKES = {
    "  datapath: kernel\n": "  datapath: kernle\n",
    "10.10.8.0/24}": "10.10.8.0/24, spare: 10.20.3.0/25}",
    "address: 198.51.100.10": "adress: 198.51.100.300",
    "inside: 10.10.0.1": "inside: 10.11.0.1",
    "mode: auto": "mode: automatic",
    "gateway: 203.0.113.6": "gw: 203.0.113.6",
    "203.0.113.7, datapath: kernel}": "203.0.113.5, datapath: kernel}",
    "between: [a, dc]": "betwen: [a, dc]",
    "selectors: any": "selectors: all",
    "if_id: 42": "if_id: 43",
    "a: 169.254.10.1/30": "a: 169.254.12.1/30",
    "      dc: 169.254.10.2/30": "      dc: 169.254.10.2/30\n      b: 169.254.10.3/30",
    "routes: [10.10.0.0/20, ": "routes: [10.99.0.0/16, 10.10.0.0/25, ",
    "replay_window: 64": "replay_window: 9999",
    "addresses: {dc: 169.254.11.1/30}": "addresses: {dc: 10.20.2.1/30}",
    "to: imaging}": "to: scanners}",
    "mode: policy": "mode: policy\n    if_id: 44",
}


@pytest.mark.parametrize(
    ("good", "mistakes"), [(GOOD, MISTAKES), (ROUTED, ROUTED_MISTAKES)], ids=["policy", "route"]
)
def test_of_two_mistakes_none_hides_the_other(good: str, mistakes: dict[str, str]) -> None:
    usual = findings(good)
    alone = {right: findings(good.replace(right, wrong)) - usual for right, wrong in mistakes.items()}
    assert [right for right, found in alone.items() if not found] == []
    hidden: list[tuple[str, str, tuple[str, str]]] = []
    for one, other in some(itertools.combinations(mistakes, 2)):
        both = findings(good.replace(one, mistakes[one]).replace(other, mistakes[other]))
        for mistake, beside in ((one, other), (other, one)):
            hidden += [(mistake, beside, finding) for finding in alone[mistake] - both]
    assert hidden == []


KEYED = """\
ipsecctl: 1
name: keyed
defaults:
  credential: ours
  profile: own
  mtu: 1500
credentials:
  ours:
    psk: file:strong.psk
  theirs:
    psk: file:{tunnel}.psk
profiles:
  own:
    based_on: modern
    ike: [aes256gcm16-prfsha384-x25519]
    esp: [aes256gcm16-x25519]
    ike_rekey: 4h
    ike_life: 5h
    esp_rekey: 1h
    esp_life: 70m
sites:
  dc:
    networks:
      servers: [10.10.0.0/24, "fd00:10::/64"]
      imaging: 10.10.8.0/24
    gateways:
      dc-1:
        address: 198.51.100.10
        identity: dc.example.org
        mtu: 1500
      dc-2:
        address: 198.51.100.11
  clinic-a:
    networks:
      lan: [10.20.1.0/24, "fd00:20::/64"]
    gateway:
      address: 203.0.113.20
      identity: a.example.org
  clinic-b:
    networks: {lan: 10.20.2.0/24}
    gateway: 203.0.113.21
  lab:
    managed: false
    networks: {hl7: 192.168.77.0/24}
    gateway: 192.0.2.77
tunnels:
  clinics:
    hub: dc/dc-1
    spokes: [clinic-a]
    flows:
      - from: lan
        to: servers
  backup:
    mesh: [clinic-a, clinic-b]
    credential: theirs
  partner:
    between: [dc/dc-2, lab]
    credential: theirs
    flows:
      - from: dc.imaging
        to: lab.hl7
        protocol: tcp
        port: 2575
"""

# What stands in the file, what is wrong instead, and the finding that must be there whatever else is.
CONSEQUENCES = {
    "overlap with the hub": ("lan: [10.20.1.0/24", "lan: [10.10.0.0/25", "IP113"),
    "overlap in the mesh": ("{lan: 10.20.2.0/24}", "{lan: 10.20.1.128/25}", "IP113"),
    "overlap with the partner": ("hl7: 192.168.77.0/24", "hl7: 10.10.8.128/25", "IP113"),
    "weak PSK": ("psk: file:strong.psk", "psk: file:weak.psk", "IP310"),
    "readable PSK": ("psk: file:strong.psk", "psk: file:readable.psk", "IP302"),
    "no PSK for the partner": ("psk: file:{tunnel}.psk", "psk: file:{tunnel}.none", "IP301"),
    "lifetimes": ("ike_life: 5h", "ike_life: 4h", "IP209"),
    "broken algorithm": ("prfsha384", "prfmd5", "IP204"),
    "MTU": ("mtu: 1500\n      dc-2", "mtu: 1300\n      dc-2", "IP170"),
    "identity": ("identity: a.example.org", "identity: dc.example.org", "IP124"),
}
FREE = {"ours", "theirs", "own", "dc", "dc-1", "dc-2", "servers", "imaging", "clinic-a", "clinic-b", "lan"}
FREE |= {"lab", "hl7", "clinics", "backup", "partner"}


def slips(key: str) -> Iterator[str]:
    """Yield a key with a letter too many, one too few, another one, and two in each other's place."""
    half = len(key) // 2
    yield key[:half] + key[half - 1] + key[half:]
    if len(key) > 2:
        yield key[:half] + key[half + 1 :]
        yield key[:half] + "q" + key[half + 1 :]
        yield key[: half - 1] + key[half] + key[half - 1] + key[half + 1 :]


MISTYPED = [
    (f"{match[2]} on line {KEYED.count(chr(10), 0, match.start(2)) + 1} as {slip}", match.span(2), slip)
    for match in re.finditer(r"^( *(?:- )?)([a-z0-9_-]+):", KEYED, re.MULTILINE)
    if match[2] not in FREE
    for slip in slips(match[2])
    if slip != match[2]
]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    strong = {name: f"{name}:PZk3w8mVQ1tYx7Lr5HcN9bDfJ2sG6aKe".encode() for name in ("a", "b", "c")}
    files = {"strong": strong["a"], "backup-clinic-a-clinic-b": strong["b"], "partner": strong["c"]}
    for name, content in {**files, "weak": b"secret1", "readable": strong["a"]}.items():
        (tmp_path / f"{name}.psk").write_bytes(content)
        (tmp_path / f"{name}.psk").chmod(0o644 if name == "readable" else 0o600)
    return tmp_path


def all_findings(text: str, base: Path) -> set[tuple[str, str]]:
    """Return code and summary of every error and warning, those about secrets included."""
    loaded = load_text(text, "t.yaml")
    found = list(loaded.diagnostics)
    if loaded.known is not None:
        found += inspect(loaded.known, base, loaded.source.locate, also=loaded.unplaced)
    return {
        (d.code, re.sub(r"line \d+", "line N", d.summary)) for d in found if d.severity is not Severity.INFO
    }


def with_key(span: tuple[int, int], instead: str, right: str, wrong: str) -> str:
    """Return the text with another key at one place, and with what is wrong in place of what is right."""
    key = KEYED[slice(*span)]
    text = KEYED[: span[0]] + "\0" + KEYED[span[1] :]
    text = text.replace(right.replace(f"{key}:", "\0:"), wrong.replace(f"{key}:", "\0:"))
    return text.replace(right, wrong).replace("\0", instead)


def test_without_mistakes_nothing_is_found(secrets: Path) -> None:
    assert all_findings(KEYED, secrets) == set()


@pytest.mark.parametrize("consequence", CONSEQUENCES)
def test_a_mistyped_key_hides_nothing(consequence: str, secrets: Path) -> None:
    right, wrong, code = CONSEQUENCES[consequence]
    alone = all_findings(KEYED.replace(right, wrong), secrets)
    assert code in {found for found, _ in alone}
    assert len(MISTYPED) > 100
    faults = []
    # A third of the slips for each consequence: every key with each, every slip with three or four.
    for name, span, slip in some(MISTYPED[[*CONSEQUENCES].index(consequence) % 3 :: 3]):
        found = all_findings(with_key(span, slip, right, wrong), secrets)
        faults += [(name, "hides", each) for each in sorted(alone - found)]
        faults += [(name, "brings", each) for each in sorted(found - alone) if each[0] != "IP011"]
        if "IP011" not in {code for code, _ in found}:
            faults.append((name, "is not reported", ("", "")))
    assert faults == []


# A value as it is written right, and as it can only mean the same; with the finding that it brings.
SAME = {
    "host bits": (r"\b(\d+\.\d+\.\d+\.\d*)[08]/(2\d)\b", r"\g<1>9/\2", "IP111"),
    "host bits of IPv6": (r"::/64\b", "::1:2/64", "IP111"),
    "netmask": (r"\b(\d+\.\d+\.\d+\.0)/24", r"\1/255.255.255.0", "IP110"),
    "address with a length": (r"((?:address|gateway): \d+\.\d+\.\d+\.\d+)\n", r"\1/24\n", "IP120"),
    "boolean as text": (r"managed: false", "managed: 'no'", "IP013"),
    "number as text": (r"mtu: (\d+)", r'mtu: "\1"', "IP013"),
    "time in words": (r": (\d+)h\n", r": \1 hours\n", "IP014"),
    "time in capitals": (r": (\d+)([hm])\n", lambda found: f": {found[1]}{found[2].upper()}\n", "IP014"),
    "protocol in capitals": (r"protocol: tcp", "protocol: TCP", "IP014"),
    "choice in capitals": (r"datapath: auto", "datapath: Auto", "IP014"),
}


@pytest.mark.parametrize("consequence", CONSEQUENCES)
@pytest.mark.parametrize("same", SAME)
def test_a_value_with_an_evident_meaning_hides_nothing(same: str, consequence: str, secrets: Path) -> None:
    """Whatever is found of a value is found of it when it is written so that only its form is wrong."""
    pattern, instead, code = SAME[same]
    text = KEYED.replace("  mtu: 1500\ncred", "  mtu: 1500\n  datapath: auto\ncred").replace(
        *CONSEQUENCES[consequence][:2]
    )
    alone = all_findings(text, secrets)
    places = [*re.finditer(pattern, text)]
    assert places
    for place in some(places):
        written = text[: place.start()] + re.sub(pattern, instead, place[0]) + text[place.end() :]
        found = all_findings(written, secrets)
        assert alone - found == set(), place
        assert {each[0] for each in found - alone} == {code}, place


def test_ports_the_wrong_way_round_are_the_same_ports() -> None:
    loaded = load_text(KEYED.replace("port: 2575", "port: 8080-8000"), "t.yaml")
    assert [d.code for d in loaded.diagnostics if d.severity is Severity.ERROR] == ["IP014"]
    assert loaded.known is not None
    (partner,) = (tunnel for tunnel in loaded.known.tunnels if tunnel.name == "partner")
    assert {flow.left_ports or flow.right_ports for flow in partner.flows} == {(8000, 8080)}


# What cannot be found without the value of a key: it is a matter of that value.
NEEDED = {
    "credentials": {"weak PSK", "readable PSK", "no PSK for the partner"},
    "psk": {"weak PSK", "readable PSK", "no PSK for the partner"},
    "credential": {"no PSK for the partner"},
    "profiles": {"lifetimes", "broken algorithm", "MTU"},
    "ike": {"broken algorithm"},
    "ike_life": {"lifetimes"},
    "sites": CONSEQUENCES.keys() - {"weak PSK", "readable PSK", "lifetimes", "broken algorithm"},
    "networks": {"overlap with the hub", "overlap in the mesh", "overlap with the partner", "MTU"},
    "gateways": {"MTU", "identity"},
    "gateway": {"identity"},
    "identity": {"identity"},
    "mtu": {"MTU"},
    "tunnels": CONSEQUENCES.keys()
    - {"weak PSK", "readable PSK", "lifetimes", "broken algorithm", "identity"},
    "hub": {"overlap with the hub", "MTU"},
    "spokes": {"overlap with the hub", "MTU"},
    "mesh": {"overlap in the mesh", "no PSK for the partner"},
    "between": {"overlap with the partner", "no PSK for the partner"},
    "from": {"MTU"},
    "to": {"MTU"},
}


@pytest.mark.parametrize("consequence", CONSEQUENCES)
def test_a_key_like_no_other_hides_only_what_needs_it(consequence: str, secrets: Path) -> None:
    right, wrong, _ = CONSEQUENCES[consequence]
    alone = all_findings(KEYED.replace(right, wrong), secrets)
    hidden = []
    for span in some(dict.fromkeys(span for _, span, _ in MISTYPED)):
        if consequence not in NEEDED.get(KEYED[slice(*span)], set()):
            found = all_findings(with_key(span, "xyzzy", right, wrong), secrets)
            hidden += [(KEYED[slice(*span)], each) for each in sorted(alone - found)]
    assert hidden == []

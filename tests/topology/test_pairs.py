"""Two mistakes that have nothing to do with one another are both reported, whichever they are."""

from __future__ import annotations

import itertools
import re

from ipsecctl.errors import Severity
from ipsecctl.topology import load_text

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


def test_of_two_mistakes_none_hides_the_other() -> None:
    usual = findings(GOOD)
    alone = {right: findings(GOOD.replace(right, wrong)) - usual for right, wrong in MISTAKES.items()}
    assert [right for right, found in alone.items() if not found] == []
    hidden = []
    for one, other in itertools.combinations(MISTAKES, 2):
        both = findings(GOOD.replace(one, MISTAKES[one]).replace(other, MISTAKES[other]))
        for mistake, beside in ((one, other), (other, one)):
            hidden += [(mistake, beside, finding) for finding in alone[mistake] - both]
    assert hidden == []

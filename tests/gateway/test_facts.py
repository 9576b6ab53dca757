"""What a gateway's shell tells, parsed."""

from __future__ import annotations

import base64

import pytest

from ipsecctl.gateway import FileSeen, Record
from ipsecctl.gateway.observe import parse_facts


def test_nothing_there():
    facts = parse_facts([])
    assert (facts.files, facts.record, facts.firewall, facts.routes) == ({}, None, "", frozenset())


def test_all_of_it():
    record = Record.fresh()
    facts = parse_facts(
        [
            f"record {base64.b64encode(record.to_json()).decode()}",
            "mode 600 /etc/swanctl/conf.d/ipsecctl-secrets.conf",
            "mode 644 /etc/ipsecctl/with space",
            "sha256 aa  /etc/swanctl/conf.d/ipsecctl-secrets.conf",
            "sha256 bb  /etc/ipsecctl/with space",
            "firewall cc",
            "sysctl net.ipv4.conf.*.send_redirects 1",
            "sysctl net.ipv4.conf.*.send_redirects 0",
            "sysctl net.ipv4.conf.*.send_redirects 1",
            "sysctl net.ipv4.ip_local_port_range 32768 60999",
            "route 10.1.0.0/24",
            "route 10.2.0.1",
            "route fd00:0:0:1::/64",
        ]
    )
    assert facts.record == record
    assert facts.files == {
        "/etc/swanctl/conf.d/ipsecctl-secrets.conf": FileSeen("aa", 0o600),
        "/etc/ipsecctl/with space": FileSeen("bb", 0o644),
    }
    assert facts.firewall == "cc"
    assert facts.sysctls == {
        "net.ipv4.conf.*.send_redirects": ("0", "1"),
        "net.ipv4.ip_local_port_range": ("32768 60999",),
    }
    assert facts.routes == {"10.1.0.0/24", "10.2.0.1/32", "fd00:0:0:1::/64"}


def test_a_damaged_record_is_an_error():
    with pytest.raises(ValueError, match="not a record"):
        parse_facts([f"record {base64.b64encode(b'half a rec').decode()}"])

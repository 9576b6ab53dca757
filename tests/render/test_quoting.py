"""Filters: what they let through is read back as it was, and everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from netaddr import IPNetwork

from ipsecctl.desired import TrafficSelector
from ipsecctl.errors import CannotQuote
from ipsecctl.render.quoting import (
    bare,
    decimal,
    file_name,
    identity,
    listed,
    prefix,
    quoted,
    secret,
    section,
    selectors,
)

nasty = st.text(st.sampled_from("\"\\#{}=,;:$`'%\n\r\t ainclude\0é€\u2028\ud800")) | st.text()


@given(nasty)
@example("include /etc/shadow")
@example("}\nconnections { evil { remote_addrs = %any } }")
@example('\\"')
@example("ends with backslash\\")
@example("$(reboot)")
def test_a_quoted_string_is_read_back_unchanged_or_refused(parse_settings, text):
    try:
        written = quoted(text)
    except CannotQuote:
        assert any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029" for char in text) or any(
            "\ud800" <= char <= "\udfff" for char in text
        )
        return
    document = f"a {{\n  id = {written}\n  next = 1\n}}\n"
    assert parse_settings(document) == {"a": {"id": text, "next": "1"}}
    assert document.encode().decode() == document


@given(nasty)
@example("include")
def test_the_name_of_a_section_is_read_back_or_refused(parse_settings, text):
    try:
        written = section(text)
    except CannotQuote:
        return
    assert parse_settings(f"{written} {{\n}}\n") == {text: {}}


@given(st.lists(nasty, max_size=4))
def test_a_list_is_split_back_into_its_items_or_refused(parse_settings, items):
    try:
        written = listed(items)
    except CannotQuote:
        return
    value = parse_settings(f"proposals = {written}\nnext = 1\n")
    assert value["next"] == "1"
    assert [item.strip() for item in value["proposals"].split(",") if item] == items


@given(st.binary(min_size=1))
@example(b"0xabc")
@example(b'0s\0\n"}')
def test_any_secret_is_read_back_unchanged(parse_settings, swanctl_load_all, value):
    entry = f"ike-x {{\n id-1 = a\n secret = {secret(value)}\n}}"
    files = {
        "/etc/swanctl/conf.d/ipsecctl.conf": b"connections {\n}\n",
        "/etc/swanctl/conf.d/ipsecctl-secrets.conf": f"secrets {{\n{entry}\n}}\n".encode(),
    }
    assert swanctl_load_all(files)["shared"]["ike-x"]["data"] == value


@pytest.mark.parametrize(
    "name",
    [
        "dc",
        "clinic-a.example.org",
        'C=DE, O=Hospital "North", CN=gw',
        "admin@example.org",
        "192.0.2.1",
        "fd00::1",
        "dc-1",
        "a/b",
        "10.0.0.1-static.example.net",
    ],
)
def test_an_identity_of_one_peer_passes(parse_settings, name):
    assert parse_settings(f"id = {identity(name)}\n") == {"id": name}


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        " ",
        "%any",
        "%any6",
        "0.0.0.0",
        "::",
        "0::0",
        "*",
        "*.example.org",
        "C=DE, CN=*",
        "10.0.0.0/8",
        "fd00::/8",
        "10.0.0.1-10.0.0.9",
        "IPv4Net:10.0.0.0/8",
        "{0}:anybody",
        "fqdn:^.*$",
        "^gw[0-9]+$",
        "a\nb",
        "klinik-köln",
        "a" * 256,
    ],
)
def test_an_identity_that_matches_several_peers_is_refused(pattern):
    with pytest.raises(CannotQuote):
        identity(pattern)


def test_a_section_called_include_is_refused_and_a_word_is_not():
    with pytest.raises(CannotQuote):
        section("include")
    assert bare("include") == "include"


def test_a_refusal_names_the_value_and_says_why():
    with pytest.raises(CannotQuote, match="'a b' cannot be written to a configuration file") as refused:
        bare("a b")
    assert refused.value.hint == "a name may hold letters, digits, '_' and '-' only"


def test_selectors_carry_numbers_because_small_systems_have_no_etc_protocols():
    lan = IPNetwork("10.1.0.0/24")
    assert (
        selectors(
            [
                TrafficSelector(lan),
                TrafficSelector(lan, 6),
                TrafficSelector(lan, 6, (104, 104)),
                TrafficSelector(lan, 17, (1000, 1010)),
            ]
        )
        == "10.1.0.0/24, 10.1.0.0/24[6], 10.1.0.0/24[6/104], 10.1.0.0/24[17/1000-1010]"
    )


def test_numbers_and_paths_are_written_in_one_form():
    assert (decimal(1400, 1000), decimal(130, 100), decimal(2000, 1000)) == ("1.4", "1.3", "2")
    assert prefix(IPNetwork("fd00:1:0:0::/64")) == "fd00:1::/64"
    assert file_name("x509ca/ipsecctl-ca.pem") == "ipsecctl-ca.pem"

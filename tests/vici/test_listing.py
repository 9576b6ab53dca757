"""Connections that are decoded when they are asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import ViciError
from ipsecctl.vici import Listing, encode_message
from ipsecctl.vici.codec import decode_text

NAMES = st.text("abcdefgh-0123", min_size=1, max_size=12)
VALUES = st.one_of(st.text(max_size=8), st.lists(st.text(max_size=4), max_size=3))
SECTIONS = st.dictionaries(NAMES, st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=3)), max_size=4)


@given(st.dictionaries(NAMES, SECTIONS, max_size=5))
def test_it_has_what_decoding_gives(connections):
    listing = Listing(encode_message({name: section}) for name, section in connections.items())
    assert dict(listing) == connections
    listing.decode_all()
    for name, section in connections.items():
        assert listing[name] == decode_text(encode_message({name: section}))[name]


@given(st.dictionaries(NAMES, SECTIONS, min_size=1, max_size=5), st.data())
def test_bytes_that_are_equal_are_reports_that_are_equal(connections, data):
    name = data.draw(st.sampled_from(sorted(connections)))
    other = connections | {name: data.draw(SECTIONS)}
    one, two = (
        Listing(encode_message({n: section}) for n, section in some.items()) for some in (connections, other)
    )
    assert one.same(name, two) == (list(connections[name].items()) == list(other[name].items()))
    if connections != other:
        assert one.reported(connections) != two.reported(other)
    assert one.reported({*connections, "not there"}) is None


def test_order_and_others_connections_change_nothing():
    events = [encode_message({name: {"version": "IKEv2"}}) for name in ("b", "foreign", "a")]
    assert Listing(events).reported({"a", "b"}) == Listing(events[::-1]).reported(["b", "a"])


@pytest.mark.parametrize(
    "event",
    [b"", b"\x01", b"\x01\x01a", b"\x03\x01a\x00\x01b", b"\x01\xff" + b"a" * 9, b"\x01\x01\xff\x02"],
    ids=["nothing", "a start", "no end", "a value", "a name cut short", "a name not in UTF-8"],
)
def test_an_event_that_is_no_section_is_garbled(event):
    with pytest.raises(ViciError, match="garbled"):
        Listing([event])


def test_what_is_garbled_inside_is_told_when_it_is_asked_for():
    listing = Listing([b"\x01\x01a\x03\x01k\x00\x09v\x02"])
    assert "a" in listing and [*listing] == ["a"]
    with pytest.raises(ViciError, match="garbled"):
        listing["a"]
    with pytest.raises(ViciError, match="garbled"):
        listing.decode_all()

"""The codec: nothing slips through silently, in either direction."""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vici.protocol import FiniteStream, Message

from ipsecctl.errors import ViciError
from ipsecctl.vici import encode_message, text
from ipsecctl.vici.codec import decode_message, request_packet

NAMES = (
    st.text(min_size=1, max_size=20)
    .filter(lambda name: len(name.encode(errors="ignore")) > 0)
    .filter(lambda name: not any(0xD800 <= ord(c) <= 0xDFFF for c in name))
)
VALUES = st.binary(max_size=30)
MESSAGES = st.recursive(
    st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3), max_size=3),
    lambda sections: st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3) | sections, max_size=4),
    max_leaves=8,
)


def plain(value):
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message):
    assert plain(decode_message(encode_message(message))) == message


@given(MESSAGES)
def test_it_is_what_the_vici_package_makes_and_reads(message):
    data = encode_message(message)
    assert data == Message.serialize(message)
    assert decode_message(data) == plain(Message.deserialize(FiniteStream(data)))


@given(MESSAGES)
def test_every_truncation_is_noticed(message):
    """A message cut anywhere is an error, or a shorter message that is whole in itself."""
    data = encode_message(message)
    for length in range(len(data)):
        try:
            decoded = decode_message(data[:length])
        except ViciError:
            continue
        assert encode_message(decoded) == data[:length]


@given(st.binary(max_size=60))
def test_any_bytes_give_a_message_or_a_vici_error(data):
    with contextlib.suppress(ViciError):
        decode_message(data)


@pytest.mark.parametrize(
    "value", [None, True, 5, 1.5, ("a", "b"), {"a"}, [None], [5], [("a",)], ["a", ["b"]]]
)
def test_other_types_are_refused_by_name(value):
    with pytest.raises(TypeError, match=r"children\.x\.local_ts"):
        encode_message({"children": {"x": {"local_ts": value}}})


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_names_that_do_not_fit_are_refused(name):
    with pytest.raises(ViciError):
        encode_message({name: "value"})


def test_a_name_must_be_text():
    with pytest.raises(TypeError):
        encode_message({5: "value"})


def test_a_value_that_is_too_long_is_refused_by_name():
    with pytest.raises(ViciError, match="data"):
        encode_message({"data": b"x" * 65_536})
    assert encode_message({"data": b"x" * 65_535})


def test_a_message_larger_than_a_frame_is_refused():
    with pytest.raises(ViciError, match="larger than charon takes"):
        request_packet("load-conn", {"list": ["x" * 60_000] * 9})


def test_the_package_would_have_sent_none_as_text():
    """Why the check is there: the package turns anything into text."""
    assert b"None" in Message.serialize({"id": None})


def test_text_keeps_what_is_not_utf8_visible():
    message = OrderedDict(a=b"x", b=[b"\xff"], c=OrderedDict(d="é".encode()))
    assert text(message) == {"a": "x", "b": ["\\xff"], "c": {"d": "é"}}

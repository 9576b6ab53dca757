"""Frames and packets, without any I/O."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import ViciError
from ipsecctl.vici.codec import MAX_FRAME_BYTES, encode_message
from ipsecctl.vici.protocol import Kind, Receiver


def frame(packet: bytes) -> bytes:
    return struct.pack("!I", len(packet)) + packet


def response(message) -> bytes:
    return frame(bytes([Kind.RESPONSE]) + encode_message(message))


def event(name: str, message) -> bytes:
    return frame(bytes([Kind.EVENT, len(name)]) + name.encode() + encode_message(message))


STREAM = event("list-sa", {"a": {"state": "x"}}) + event("log", {"msg": "m"}) + response({"success": "yes"})


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_however_the_bytes_come_the_packets_are_the_same(cuts):
    bounds = sorted({0, len(STREAM), *cuts})
    receiver = Receiver()
    packets = [p for start, end in itertools.pairwise(bounds) for p in receiver.feed(STREAM[start:end])]
    assert [(p.kind, p.event) for p in packets] == [
        (Kind.EVENT, "list-sa"),
        (Kind.EVENT, "log"),
        (Kind.RESPONSE, ""),
    ]


def test_the_end_between_packets_and_in_the_middle_of_one():
    assert "closed the connection" in Receiver().eof().summary
    for length in range(1, len(STREAM)):
        receiver = Receiver()
        receiver.feed(STREAM[:length])
        assert "charon" in receiver.eof().summary
    receiver = Receiver()
    receiver.feed(response({})[:4] + b"")
    assert "in the middle of a packet, after 4 bytes of 5" in receiver.eof().summary


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 0x48545450])
def test_an_impossible_length_is_refused_at_once(length):
    with pytest.raises(ViciError, match=str(length)):
        Receiver().feed(struct.pack("!I", length))


def test_the_largest_frame_is_taken():
    value = {"data": "x" * 60_000}
    packet = bytes([Kind.RESPONSE]) + encode_message({f"n{i}": value for i in range(8)})
    padding = MAX_FRAME_BYTES - len(packet) - len(encode_message({"pad": ""}))
    packet += encode_message({"pad": "x" * padding})
    assert len(packet) == MAX_FRAME_BYTES
    assert len(Receiver().feed(frame(packet))) == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"\x08",
        b"\x00",
        b"\x03",
        bytes([Kind.EVENT]),
        bytes([Kind.EVENT, 0]),
        bytes([Kind.EVENT, 9]) + b"log",
        bytes([Kind.RESPONSE, 9]),
        bytes([Kind.RESPONSE, 3, 4]) + b"na",
        bytes([Kind.RESPONSE, 3, 1]) + b"n\x00\x09x",
        bytes([Kind.RESPONSE, 1, 1]) + b"s",
        bytes([Kind.RESPONSE, 2]),
        bytes([Kind.RESPONSE, 4, 1]) + b"l\x05\x00\x01x",
        bytes([Kind.RESPONSE, 3, 1]) + b"\xff\x00\x01x",
    ],
)
def test_garbled_packets(packet):
    with pytest.raises(ViciError):
        Receiver().feed(frame(packet))

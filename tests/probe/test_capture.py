"""Captures, with a "docker" that does as a test says: what ends before it is told to proves nothing."""

from __future__ import annotations

import asyncio

import pytest

from ipsecctl.probe.capture import captures
from ipsecctl.probe.scene import Tap

TAP = Tap("gw", "c-gw", "wan")
UNTIL_TOLD = "cat >/dev/null; echo '0 packets dropped by kernel' >&2"


@pytest.fixture
def docker(tmp_path, monkeypatch, pcap):
    """Return what makes ``docker`` a program that writes a capture with one packet, then runs a script."""

    def make(script):
        (tmp_path / "pcap").write_bytes(pcap(bytes(64)))
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\ncat '{tmp_path}/pcap'\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return make


async def record(meanwhile=None):
    async with captures() as listening:
        await listening.start([TAP], bytes(16))
        if meanwhile is not None:
            await meanwhile()
        await listening.stop()
    return listening.recordings[TAP]


def test_a_capture_that_ends_when_told_is_trusted(docker):
    docker(UNTIL_TOLD)
    recording = asyncio.run(record(lambda: asyncio.sleep(0.1)))
    assert (len(recording.packets), recording.dropped, recording.why_not()) == (1, 0, "")


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_capture_that_ends_early_is_not(docker, status):
    docker(f"echo '0 packets dropped by kernel' >&2; exit {status}")
    recording = asyncio.run(record(lambda: asyncio.sleep(0.2)))
    assert recording.dropped == 0
    assert recording.why_not() == "capture at gw:wan: the capture ended early"


def test_nor_one_whose_stream_alone_ends(docker):
    docker(f"exec >&-; {UNTIL_TOLD}")
    recording = asyncio.run(record(lambda: asyncio.sleep(0.2)))
    assert recording.why_not() == "capture at gw:wan: the capture ended early"

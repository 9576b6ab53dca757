"""Real faults while a change is applied: one line says what and why, and the other gateway is done.

The tests run in this order on one pair of gateways; ``a`` has the fault.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("weather-pair")]

PROFILES = ("modern", "nist-800-77")


def apply(pair, profile: str, status: int = 0) -> str:
    argv = [sys.executable, "-m", "ipsecctl", "apply", pair.topology(profile), "--yes", "--wait", "10"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def as_host(pair, script: str) -> None:
    """Run a script on ``a`` with rights that its own root has not, as to mount something."""
    argv = ["docker", "exec", "--privileged", pair.container("a"), "sh", "-ec", script]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


@contextmanager
def fault(made: str, mended: str, on) -> Iterator[None]:
    on(made)
    try:
        yield
    finally:
        on(mended)


def ping(pair) -> None:
    pair.on("a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "-I", "10.1.0.1", "10.2.0.1")


def failed_with(out: str, *words: str) -> None:
    """Want one line of failure, with these words, of ``a`` alone."""
    (line,) = [line for line in out.splitlines() if line.startswith("failed  ")]
    assert line.startswith("failed  a: ")
    for word in words:
        assert word in line
    assert "done    b: " in out
    assert "Failed: a; the others are done." in out


FULL = (
    "cp -a /var/lib/ipsecctl /tmp/kept; mount -t tmpfs -o size=128k tmpfs /var/lib/ipsecctl; "
    "cp -a /tmp/kept/. /var/lib/ipsecctl/; dd if=/dev/zero of=/var/lib/ipsecctl/full bs=1k || true"
)
READ_ONLY = (
    "mount --bind /etc/swanctl/conf.d /etc/swanctl/conf.d; mount -o remount,bind,ro /etc/swanctl/conf.d"
)
DISKS = {
    "full": (
        FULL,
        "umount /var/lib/ipsecctl; rm -rf /tmp/kept",
        "No space left on device",
        "Its disk is full",
    ),
    "read-only": (
        READ_ONLY,
        "umount /etc/swanctl/conf.d",
        "Read-only file system",
        "It is mounted read-only there",
    ),
}


@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_takes_nothing(pair, disk: str):
    made, mended, says, remedy = DISKS[disk]
    apply(pair, PROFILES[0])
    ping(pair)
    with fault(made, mended, lambda script: as_host(pair, script)):
        out = apply(pair, PROFILES[1], status=1)
        failed_with(out, "files cannot be written: ", says)
        assert remedy in out
        assert "left as it runs: a could not be changed" in out
        ping(pair)
    assert "1 of 1 tunnel up" in apply(pair, PROFILES[1])
    ping(pair)


def test_a_charon_that_hangs(pair):
    apply(pair, PROFILES[0])
    signal = "pkill -{} charon-systemd".format
    with fault(signal("STOP"), signal("CONT"), lambda script: pair.on("a", "sh", "-c", script)):
        failed_with(apply(pair, PROFILES[1], status=1), "charon did not answer")
    assert "1 of 1 tunnel up" in apply(pair, PROFILES[1])
    ping(pair)


def test_a_charon_that_dies_in_the_middle(pair):
    """It is killed when the record says that a change has begun, before charon is told anything."""
    apply(pair, PROFILES[0])
    record = "/var/lib/ipsecctl/applied.json"
    pair.on(
        "a",
        "sh",
        "-c",
        f"(before=$(stat -c %i {record}); while [ $(stat -c %i {record}) = $before ]; do :; done; "
        "pkill -KILL charon-systemd) >/dev/null 2>&1 &",
    )
    try:
        failed_with(apply(pair, PROFILES[1], status=1), "charon")
    finally:
        pair.charon("a", "start")
    assert "1 of 1 tunnel up" in apply(pair, PROFILES[1])
    ping(pair)

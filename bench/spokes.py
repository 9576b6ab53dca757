"""From ``apply`` to traffic on all spokes of a hub, against what charon alone needs for the same.

Both begin with gateways on which charon runs and nothing was done. On one side it is ``ipsecctl apply``. On
the other the files that ``ipsecctl render`` writes lie there already, and ``swanctl --load-all`` is run on
all gateways side by side, then ``swanctl --initiate`` on all spokes side by side. The hub meanwhile pings all
spokes ten times a second, from network to network: what counts is the moment when the last has answered.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from typing import IO

from nodes import Bench, lab_up

from ipsecctl.patience import PATIENCE

__all__ = ["CLEAN", "MOST_RATIO", "START", "measure_spokes", "rendered", "topology"]

SPOKES, ROUNDS = 20, 5
_LONGEST_S = 60.0 * PATIENCE
MOST_RATIO = 1.5
"""Promised: from apply to traffic takes at most this many times what charon alone needs."""

# What the first process of a node does, without the guard: nothing of ours is left, and charon is new.
CLEAN = r"""
/usr/lib/ipsecctl-lab/charon stop
nft delete table inet ipsecctl 2>/dev/null
for family in -4 -6; do
    for p in $(ip $family rule show | sed -n '/ proto 213 *$/s/:.*//p'); do
        ip $family rule del pref "$p"
    done
    ip $family route flush table all proto 213 2>/dev/null
done
for link in $(ip -o link show | sed -n 's/^[0-9]*: \(ix-[^:@]*\)[:@].*/\1/p'); do ip link delete "$link"; done
ip xfrm state flush; ip xfrm policy flush
rm -rf /var/lib/ipsecctl /etc/ipsecctl /etc/sysctl.d/60-ipsecctl.conf /etc/swanctl/conf.d/*ipsecctl* \
    /etc/strongswan.d/*ipsecctl.conf /etc/systemd/network/*ipsecctl* /etc/systemd/networkd.conf.d/*ipsecctl*
"""
START = "/usr/lib/ipsecctl-lab/charon start"
_UNPACK = "tar -x -C /"

# pinger SOURCE DESTINATION...: says "ready", pings all at once until each has answered, says "all" and ends.
_PINGER = r"""
import os, select, socket, struct, sys, time
source, *others = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.bind((source, 0))
def echo(number):
    head = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 65535, number)
    total = sum(struct.unpack("!4H", head))
    total = (total & 65535) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 65535) + head[4:]
print("ready", flush=True)
waiting, again = set(others), 0.0
while waiting:
    if time.monotonic() >= again:
        for number, address in enumerate(sorted(waiting)):
            try:
                s.sendto(echo(number), (address, 0))
            except OSError:
                pass
        again = time.monotonic() + 0.1
    if select.select([s], [], [], max(0, again - time.monotonic()))[0]:
        packet, (address, _) = s.recvfrom(2048)
        if packet[20] == 0:
            waiting.discard(address)
print("all", flush=True)
"""


def topology(spokes: int = SPOKES) -> str:
    """Return a hub with ``spokes`` spokes, each behind a public address and with a network of its own."""
    lines = [
        "ipsecctl: 1",
        "name: bench-spokes",
        'defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}, control: lab}',
        "sites:",
        "  hub: {networks: {lan: 10.0.0.0/24}, gateway: 198.51.100.10}",
    ]
    for n in range(1, spokes + 1):
        lines.append(f"  {_spoke(n)}: {{networks: {{lan: 10.1.{n}.0/24}}, gateway: 203.0.{n}.10}}")
    lines += ["tunnels:", *(f"  {_spoke(n)}: {_pair(n)}" for n in range(1, spokes + 1))]
    return "\n".join(lines) + "\n"


def _spoke(number: int) -> str:
    return f"spoke-{number:02d}"


def _pair(number: int) -> str:
    return f"{{between: [hub, {_spoke(number)}], initiator: {_spoke(number)}}}"


def measure_spokes(rounds: int = ROUNDS) -> float:
    """Print what each round took; return the median of the rounds' ratios."""
    with lab_up("bench-spokes", topology(), hosts=False) as bench:
        files = rendered(bench, bench.file, bench.folder / "rendered")
        ratios = []
        for number in range(rounds):
            sides = (_by_apply, _by_charon) if number % 2 else (_by_charon, _by_apply)
            took = {side: side(bench, files) for side in sides}
            ratios.append(took[_by_apply] / took[_by_charon])
            print(
                f"  round {number + 1}: apply {took[_by_apply]:.2f} s, charon alone {took[_by_charon]:.2f} s,"
                f" ratio {ratios[-1]:.2f}",
                flush=True,
            )
    return median(ratios)


def rendered(bench: Bench, file: str, out: Path) -> dict[str, bytes]:
    """Return by gateway a tar archive of what is rendered of a topology file, into the folder ``out``."""
    path = "kernel" if bench.kernel_esp else "libipsec"
    bench.ipsecctl("render", file, "--out", str(out), "--datapath", path)
    return {name: _tar(out / name) for name in bench.gateways if (out / name).is_dir()}


def _tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, "", filter=_roots)
    return buffer.getvalue()


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _by_apply(bench: Bench, files: dict[str, bytes]) -> float:
    del files
    bench.everywhere(dict.fromkeys(bench.gateways, CLEAN + START))
    with _traffic(bench) as until:
        bench.ipsecctl("apply", bench.file, "--lab", bench.lab.name, "--yes", *bench.store)
    return until[0]


def _by_charon(bench: Bench, files: dict[str, bytes]) -> float:
    bench.everywhere(dict.fromkeys(bench.gateways, f"{CLEAN}{_UNPACK}\n{START}"), files)
    with _traffic(bench) as until:
        bench.everywhere(dict.fromkeys(bench.gateways, "swanctl --load-all"))
        spokes = [name for name in bench.gateways if name != "hub"]
        bench.everywhere({name: f"swanctl --initiate --ike {name} --child {name}" for name in spokes})
    return until[0]


@contextmanager
def _traffic(bench: Bench) -> Iterator[list[float]]:
    """Have the hub ping all spokes; the list gets the seconds until the last one has answered."""
    hub = str(bench.lab.node("hub").address(interface="lan-lan"))
    spokes = [
        str(bench.lab.node(name).address(interface="lan-lan")) for name in bench.gateways if name != "hub"
    ]
    argv = ["docker", "exec", "-i", bench.lab.container("hub"), "python3", "-c", _PINGER, hub, *spokes]
    until: list[float] = []
    moments: list[float | None] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as pinger:
        if pinger.stdout is None or pinger.stdout.readline() != "ready\n":
            raise SystemExit("hub: no ping can be sent")
        watch = Thread(target=lambda: moments.append(_moment_of("all\n", pinger.stdout)))
        watch.start()
        began = time.monotonic()
        try:
            yield until
            watch.join(_LONGEST_S)
        finally:
            pinger.kill()
            watch.join()
    if moments[0] is None:
        raise SystemExit("not all spokes answer")
    until.append(moments[0] - began)


def _moment_of(line: str, output: IO[str] | None) -> float | None:
    return next((time.monotonic() for said in output or () if said == line), None)

"""Throughput through tunnels that ipsecctl set up, against one set up by hand with ``ip xfrm``.

One lab has three pairs of gateways with a host behind each: ipsecctl sets one up in mode policy and one in
mode route; the third has the same suite by hand, no charon and no rules of ours. They are measured in turns,
in an order that changes from round to round. TCP has the same MSS everywhere, that of our firewall.

What is compared is bytes for each second of processor time. All of it is software on one machine, which its
processors hold back, so that is throughput, less what other work on the machine takes away: measured by the
clock, the same tunnel gave 3 to 14 Mbit/s in an emulated machine on a busy one. For a virtual machine it is
the time of QEMU's process, which is all that the guest costs; else that of all processors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import median

from nodes import Bench, cpu_s, lab_up

from ipsecctl.crypto import esp_suites, overhead, parse_esp_proposal

__all__ = ["LEAST_RATIO", "measure_throughput"]

LEAST_RATIO = 0.97
"""Promised: a tunnel of ours carries at least this much of what one by hand does."""
ROUNDS, MEBIBYTES = 9, 4
SUITE = "aes256gcm16"
LINK_MTU = 1500
BY_HAND = "hand"
WAYS = ("policy", "route", BY_HAND)
_SALT_AND_KEY = 36  # bytes: RFC 4106, section 8.1


def topology() -> str:
    """Return three pairs of sites, ``WAY-1`` and ``WAY-2``; what is done by hand is somebody else's."""
    lines = [
        "ipsecctl: 1",
        "name: bench-throughput",
        'defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}, control: lab, profile: bench}',
        f"profiles: {{bench: {{based_on: modern, esp: {SUITE}-x25519}}}}",
        "sites:",
    ]
    for number, way in enumerate(WAYS):
        for end in (1, 2):
            whose = "managed: false, " if way == BY_HAND else ""
            networks = f"networks: {{lan: {_network(number, end)}}}"
            lines.append(f"  {way}-{end}: {{{whose}{networks}, gateway: {_outer(number, end)}}}")
    lines.append("tunnels:")
    lines += [f"  {way}: {{between: [{way}-1, {way}-2], mode: {way}}}" for way in WAYS if way != BY_HAND]
    return "\n".join(lines) + "\n"


def _outer(number: int, end: int) -> str:
    return f"203.0.{10 * number + end}.10"


def _network(number: int, end: int) -> str:
    return f"10.{number + 1}.{end}.0/24"


def measure_throughput(rounds: int = ROUNDS) -> dict[str, float]:
    """Print what each round brought; return for each of our ways the median of the rounds' ratios."""
    with lab_up("bench-throughput", topology(), hosts=True) as bench:
        _set_up_by_hand(bench)
        bench.ipsecctl("apply", bench.file, "--lab", bench.lab.name, "--yes", *bench.store)
        bench.everywhere({f"{way}-2-lan": "iperf3 --server --daemon" for way in WAYS})
        ratios: dict[str, list[float]] = {way: [] for way in WAYS if way != BY_HAND}
        for way in WAYS:
            _bytes_per_cpu_s(bench, way)  # addresses and routes are learned, caches warm
        for number in range(rounds):
            turn = number % len(WAYS)
            order = (*WAYS[turn:], *WAYS[:turn])
            seen = {way: _bytes_per_cpu_s(bench, way) for way in (order if number % 2 else reversed(order))}
            for way, found in ratios.items():
                found.append(seen[way][0] / seen[BY_HAND][0])
            print(f"  round {number + 1}: {_told(seen)}", flush=True)
        _check_esp(bench)
    return {way: median(found) for way, found in ratios.items()}


def _told(seen: Mapping[str, tuple[float, float]]) -> str:
    def one(way: str) -> str:
        figure, megabits = seen[way]
        return f"{way} {figure / 1e6:.2f} MB/CPU-s ({figure / seen[BY_HAND][0]:.3f}; {megabits:.1f} Mbit/s)"

    return ", ".join(map(one, WAYS))


def _mss() -> int:
    (suite,) = esp_suites(parse_esp_proposal(SUITE))
    return overhead(LINK_MTU, suite, outer=4, nat_t=False).mss_ipv4


def _bytes_per_cpu_s(bench: Bench, way: str) -> tuple[float, float]:
    """Send some mebibytes; return bytes for each second of processor time, and Mbit/s by the clock."""
    server = bench.lab.node(f"{way}-2-lan").address()
    client = f"iperf3 --client {server} --bytes {MEBIBYTES}M --set-mss {_mss()} --json"
    before = cpu_s()
    said = bench.sh(f"{way}-1-lan", client)
    spent = cpu_s() - before
    received = json.loads(said)["end"]["sum_received"]
    return float(received["bytes"]) / spent, float(received["bits_per_second"]) / 1e6


def _set_up_by_hand(bench: Bench) -> None:
    """Make SAs and policies between the gateways of the pair that is not ours, as one would by hand."""
    number = WAYS.index(BY_HAND)
    outer = [_outer(number, end) for end in (1, 2)]
    inner = [_network(number, end) for end in (1, 2)]
    scripts = {}
    for end in (0, 1):
        here, far = end, 1 - end
        lines = ["/usr/lib/ipsecctl-lab/charon stop"]
        for source, target in ((here, far), (far, here)):
            key = f"{source + 1:02x}" * _SALT_AND_KEY
            lines.append(
                f"ip xfrm state add src {outer[source]} dst {outer[target]} proto esp spi 0x100{source}"
                f" reqid 1 mode tunnel replay-window 32 aead 'rfc4106(gcm(aes))' 0x{key} 128"
            )
            for direction in ("out",) if source == here else ("in", "fwd"):
                lines.append(
                    f"ip xfrm policy add src {inner[source]} dst {inner[target]} dir {direction}"
                    f" tmpl src {outer[source]} dst {outer[target]} proto esp reqid 1 mode tunnel"
                )
        scripts[f"{BY_HAND}-{end + 1}"] = "set -e\n" + "\n".join(lines)
    bench.everywhere(scripts)


def _check_esp(bench: Bench) -> None:
    """End the run when what was measured did not go through SAs of this suite, or some without a tunnel."""
    for way in WAYS:
        for end in (1, 2):
            listed = bench.sh(f"{way}-{end}", "ip -s xfrm state | grep -E 'rfc4106|\\(bytes\\), [1-9]'")
            if listed.count("rfc4106(gcm(aes))") < 2 or listed.count("(bytes)") < 2:
                raise SystemExit(f"{way}-{end}: its traffic was not in ESP with {SUITE}:\n{listed}")

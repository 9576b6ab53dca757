"""Speed with thousands of connections on one charon, and of a hundred gateways, as ratios in one run.

``ipsecctl`` as the user runs it, start of Python included, against ``swanctl`` on the gateway with the very
files that ``ipsecctl render`` writes; in turns, wall time, medians of rounds. (What works on a gateway is no
child of ours, so its processor time cannot be told.) The partners of the one charon are not there, and it is
they who call: ``swanctl`` waits for no tunnel either, and an apply is measured until its gateway is done. A
plan is measured when one before it had nothing to do either, as of a timer; the first one is told, too. It
needs Docker and some minutes, and exits with 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from nodes import Bench, cpu_s, lab_up
from spokes import CLEAN, START, rendered

from ipsecctl.patience import PATIENCE

CONNECTIONS, GATEWAYS, ROUNDS = 5_000, 100, 2
MOST_FIRST_LOAD, MOST_PLAN, MOST_CHANGE, MOST_FLEET = 0.7, 1.5, 0.05, 3.0
_LONGEST_S = 180.0 * PATIENCE
_PARTNER = "203.0.113.1"
_CLEAN = CLEAN.replace("charon stop", "charon kill")
"""One with thousands of connections takes longer to end in good order than the lab waits for."""

# What is printed of a profile: where the time of a command goes, each part with what it calls.
_PARTS = (
    ("_find_and_load", "modules imported"),
    ("load_with_text", "topology read and checked, secrets looked at"),
    ("poll", "nothing to do but wait for gateways"),
    ("compile_observed", "compiled"),
    ("_read_all", "secrets read"),
    ("render_files", "files rendered"),
    ("render_messages", "messages rendered"),
    ("plan_gateway", "desired against observed"),
    ("decode_text", "VICI messages decoded"),
    ("from_json", "records read"),
)
_PROFILED = r"""
import cProfile, pstats, sys
from ipsecctl.__main__ import main
profile = cProfile.Profile()
try:
    profile.runcall(main)
except SystemExit:
    pass
spent = {}
for (_, _, name), (_, calls, _, total, _) in pstats.Stats(profile).stats.items():
    name = "poll" if name.startswith("<method 'poll'") else name
    spent[name] = (max(calls, spent.get(name, (0, 0))[0]), max(total, spent.get(name, (0, 0))[1]))
for name in PARTS:
    if name in spent:
        print(name, *spent[name], file=sys.stderr)
"""


def one_gateway(connections: int, *, changed: bool = False) -> str:
    """Return a gateway with partners that call it, each with a key of its own; one of them may be changed."""
    lines = [
        "ipsecctl: 1",
        "name: bench-scale",
        'defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}, control: lab}',
        "profiles: {other: {based_on: modern, dpd_delay: 25s}}",
        "sites:",
        "  hub: {networks: {lan: 10.0.0.0/24}, gateway: 198.51.100.10}",
    ]
    for n in range(connections):
        block = n + (32 << 8)
        network, address = (
            f"10.{block >> 8}.{block & 255}.0/24",
            f"203.{n >> 14}.{n >> 6 & 255}.{(n & 63) + 1}",
        )
        lines.append(f"  {_clinic(n)}: {{managed: false, networks: {{lan: {network}}}, gateway: {address}}}")
    lines.append("tunnels:")
    for n in range(connections):
        profile = ", profile: other" if changed and n == connections // 2 else ""
        lines.append(f"  {_clinic(n)}: {{between: [hub, {_clinic(n)}], initiator: {_clinic(n)}{profile}}}")
    return "\n".join(lines) + "\n"


def fleet(gateways: int) -> str:
    """Return so many gateways, each with a tunnel to the same partner, who calls."""
    lines = [
        "ipsecctl: 1",
        "name: bench-fleet",
        'defaults: {credential: {psk: "file:secrets/{tunnel}.psk"}, control: lab}',
        "sites:",
        f"  partner: {{managed: false, networks: {{lan: 10.0.0.0/24}}, gateway: {_PARTNER}}}",
    ]
    for n in range(gateways):
        lines.append(f"  g{n:03d}: {{networks: {{lan: 10.1.{n}.0/24}}, gateway: 198.51.{n}.10}}")
    lines += ["tunnels:"]
    lines += [f"  g{n:03d}: {{between: [partner, g{n:03d}], initiator: partner}}" for n in range(gateways)]
    return "\n".join(lines) + "\n"


def _clinic(number: int) -> str:
    return f"c{number:05d}"


class Timed:
    """``ipsecctl`` and ``swanctl`` against the gateways of a lab, in seconds."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def swanctl(self, argument: str) -> float:
        began = time.monotonic()
        self.bench.sh("hub", f"swanctl {argument} >/dev/null")
        return time.monotonic() - began

    def plan(self, file: str) -> float:
        """Plan with nothing to do; end the run when there is something."""
        began = time.monotonic()
        self._run("plan", file, "--lab", self.bench.lab.name, "--detailed-exitcode")
        return time.monotonic() - began

    def apply(self, file: str) -> float:
        """Apply until the gateway is done; then wait for the end, which comes when no partner has called."""
        argv = ["apply", file, "--lab", self.bench.lab.name, "--yes", "--wait", "0", *self.bench.store]
        began = time.monotonic()
        with subprocess.Popen(
            _ours(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            said, done_s = [], None
            for line in running.stdout or ():
                said.append(line)
                if line.startswith("done ") and done_s is None:
                    done_s = time.monotonic() - began
            errors = running.stderr.read() if running.stderr else ""
        if done_s is None:
            sys.exit(f"ipsecctl {argv}: {''.join(said[:5])}\n{errors}")
        return done_s

    def profile(self, *arguments: str) -> None:
        """Print where the time of a command goes; the profiler itself makes it longer."""
        code = _PROFILED.replace("PARTS", repr([name for name, _ in _PARTS]))
        argv = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        lines = (line.split() for line in done.stderr.splitlines())
        spent = {words[0]: words[1:] for words in lines if len(words) == 3}
        for name, what in _PARTS:
            if name in spent:
                calls, seconds = spent[name]
                print(f"    {float(seconds):6.2f} s  {what} ({name}, called {calls} times)", flush=True)

    def _run(self, *arguments: str) -> None:
        argv = _ours(*arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        if done.returncode:
            said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            sys.exit(f"ipsecctl {arguments}: status {done.returncode}\n{said}")


def _ours(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ipsecctl", *arguments]


def told(name: str, ratios: list[float], limit: float) -> bool:
    figure = median(ratios)
    holds = figure <= limit
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    verdict = "holds" if holds else "FAILS"
    print(f"{name}: {figure:.3f} (limit {limit}) {verdict}; rounds {rounds}", flush=True)
    return holds


@contextmanager
def _gateways_only(name: str, topology: str) -> Iterator[Bench]:
    with lab_up(name, topology, hosts=False) as bench:
        yield bench


def report_connections(connections: int, rounds: int) -> bool:
    """Print what a gateway with so many connections takes, against swanctl; return whether limits hold."""
    with _gateways_only("bench-scale", one_gateway(1)) as bench:
        timed = Timed(bench)
        file, other = bench.folder / "many.yaml", bench.folder / "changed.yaml"
        file.write_text(one_gateway(connections))
        other.write_text(one_gateway(connections, changed=True))
        bench.ipsecctl("secret", "generate", str(file))
        archive = rendered(bench, str(file), bench.folder / "rendered")["hub"]
        first, again, plans, changes = [], [], [], []
        for number in range(rounds):
            took: dict[str, float] = {}
            for side in ("apply", "swanctl") if number % 2 else ("swanctl", "apply"):
                if side == "swanctl":
                    bench.sh("hub", f"{_CLEAN}tar -x -C /\n{START}", archive)
                    took["load"] = timed.swanctl("--load-all")
                else:
                    bench.sh("hub", f"{_CLEAN}{START}")
                    took["apply"] = timed.apply(str(file))
                    # While it is as it was applied. Of the one that is there already swanctl makes less work.
                    took["first plan"] = timed.plan(str(file))
                    took["list"], took["plan"] = timed.swanctl("--list-conns"), timed.plan(str(file))
                    took["again"], took["change"] = timed.swanctl("--load-all"), timed.apply(str(other))
            first.append(took["apply"] / took["load"])
            again.append(took["first plan"] / took["list"])
            plans.append(took["plan"] / took["list"])
            changes.append(took["change"] / took["again"])
            print(
                "  round", number + 1, {name: round(seconds, 2) for name, seconds in took.items()}, flush=True
            )
        print("  a plan spends in our own process (under the profiler):", flush=True)
        timed.profile("plan", str(other), "--lab", bench.lab.name)
    print(f"  the first plan after an apply, which compiles: {median(again):.2f} times swanctl --list-conns")
    of = f"{connections} connections"
    return all(
        [
            told(f"first apply of {of}, times swanctl --load-all", first, MOST_FIRST_LOAD),
            told(f"plan with still nothing to do, {of}, times swanctl --list-conns", plans, MOST_PLAN),
            told(f"apply of one changed of {of}, times swanctl --load-all", changes, MOST_CHANGE),
        ]
    )


def report_fleet(gateways: int, rounds: int) -> bool:
    """Print what a plan of so many gateways takes, against that of one; return whether the limit holds."""
    with _gateways_only("bench-fleet", fleet(gateways)) as bench:
        timed = Timed(bench)
        one = bench.folder / "one.yaml"
        one.write_text(fleet(1))
        argv = _ours("apply", bench.file, "--lab", bench.lab.name, "--yes", "--wait", "0", *bench.store)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        if done.stdout.count("done ") != gateways:
            sys.exit(f"{argv}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        ratios, used = [], []
        for file in (str(one), bench.file):
            print(
                f"  the first plan of {Path(file).name}, which compiles: {timed.plan(file):.2f} s", flush=True
            )
        for number in range(rounds):
            took = {}
            for file in (str(one), bench.file) if number % 2 else (bench.file, str(one)):
                before = cpu_s()
                took[file] = timed.plan(file)
                used.append(cpu_s() - before) if file == bench.file else None
            ratios.append(took[bench.file] / took[str(one)])
            print(
                f"  round {number + 1}: all {took[bench.file]:.2f} s, one {took[str(one)]:.2f} s", flush=True
            )
        cores, busy_s = os.cpu_count() or 1, median(used)
        print(
            f"  all {gateways} take {busy_s:.1f} s of processor time, with what others do on this machine: on"
            f" {cores} processors {busy_s / cores:.1f} s at best. In our own process (under the profiler):",
            flush=True,
        )
        timed.profile("plan", bench.file, "--lab", bench.lab.name)
    return told(f"plan with still nothing to do, {gateways} gateways, times one", ratios, MOST_FLEET)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("connections", "fleet"), help="measure one of the two")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    holds = []
    if options.only != "fleet":
        holds.append(report_connections(options.connections, options.rounds))
    if options.only != "connections":
        holds.append(report_fleet(options.gateways, options.rounds))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())

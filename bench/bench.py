"""Speed of start-up, validate, compile and render, as ratios within a run; exits with 1 when one is broken.

Each figure is the best of several rounds in a process of its own (CPU time, so that other work on the machine
counts little), and what is compared is measured in turns in the same process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from typing import Any
from unittest import mock

from estate import hub_and_spoke

from ipsecctl.desired import compile_topology
from ipsecctl.render import render_files
from ipsecctl.render.files import template_values, templates
from ipsecctl.topology import load_text, loading

CLINICS = 2_000
SIZES = (1_250, 2_500, 5_000, 10_000)
MOST_RATIO = 3.0
"""Promised: validate, compile and render take at most this many times what jinja2 alone takes."""
MOST_START_UP = 1.5
"""Promised: ``ipsecctl --help`` takes at most this many times what importing typer takes."""
SLACK = 1.15
"""What a growth may exceed n log n by before it counts as broken: caches of the machine, garbage
collection."""


class _Secrets(dict[Any, bytes]):
    """A PSK for every reference: reading files is not what is measured."""

    def __missing__(self, reference: object) -> bytes:
        return b"0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Times:
    """Seconds of CPU; ``jinja2_s`` for the templates alone, from ready data."""

    validate_s: float
    compile_s: float
    render_s: float
    jinja2_s: float
    overlaps_s: float
    peak_mib: float

    @property
    def total_s(self) -> float:
        return self.validate_s + self.compile_s + self.render_s


class Stopwatch:
    """CPU seconds by step, one figure for each round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[float]] = defaultdict(list)

    def new_round(self) -> None:
        for step in ("validate", "compile", "render", "jinja2"):
            self.rounds[step].append(0.0)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        started = process_time()
        yield
        self.rounds[step][-1] += process_time() - started

    def best(self, step: str) -> float:
        return min(self.rounds[step])


def measure(clinics: int, rounds: int) -> Times:
    """Measure an estate of ``clinics`` with two hubs in this process: the best of ``rounds`` for each."""
    text = hub_and_spoke(clinics)
    secrets = _Secrets()
    ready = templates()  # read and compiled once, as in one run of the command
    watch = Stopwatch()
    for _ in range(rounds):
        watch.new_round()
        with watch.timing("validate"):
            loaded = load_text(text, "estate.yaml")
        topology = loaded.topology or sys.exit(str(loaded.diagnostics[:3]))
        with watch.timing("compile"):
            states = compile_topology(topology)
        for state in states:
            with watch.timing("render"):
                render_files(state, secrets, {})
            values = template_values(state, secrets)
            with watch.timing("jinja2"):
                for _, template, _ in ready:
                    template.render(values)
    return Times(
        validate_s=watch.best("validate"),
        compile_s=watch.best("compile"),
        render_s=watch.best("render"),
        jinja2_s=watch.best("jinja2"),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        overlaps_s=measure_overlaps(clinics, rounds),
    )


def measure_overlaps(clinics: int, rounds: int) -> float:
    """Return the CPU seconds of the overlap check alone, on an estate where something does overlap."""
    text = hub_and_spoke(clinics, twins=True)
    seconds = []
    check = loading.check_overlaps  # type: ignore[attr-defined]

    def timed(*arguments: Any) -> None:
        started = process_time()
        check(*arguments)
        seconds.append(process_time() - started)

    with mock.patch.object(loading, "check_overlaps", timed):
        for _ in range(rounds):
            load_text(text, "estate.yaml")
    return min(seconds)


def apart(clinics: int, rounds: int) -> Times:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(clinics), "--rounds", str(rounds)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return Times(**json.loads(answer))


def report_ratio(times: Times) -> bool:
    """Print what the promised ratio is made of; return whether it holds."""
    ratio = times.total_s / times.jinja2_s
    print(
        f"{CLINICS} clinics, 2 hubs, against jinja2 alone rendering the same templates from ready data (= 1):"
    )
    for name, value in (
        ("validate", times.validate_s),
        ("compile", times.compile_s),
        ("render", times.render_s),
    ):
        print(f"  {name:<10} {value / times.jinja2_s:5.2f}")
    print(f"  {'in all':<10} {ratio:5.2f}   at most {MOST_RATIO:g}: {verdict(ratio <= MOST_RATIO)}")
    print(f"  peak memory {times.peak_mib:.0f} MiB (the interpreter, all states and all files' text in turn)")
    return ratio <= MOST_RATIO


def report_growth(name: str, seconds: dict[int, float]) -> bool:
    """Print how a time grows with the clinics, n log n beside it; return whether it keeps within."""
    first, first_s = next(iter(seconds.items()))
    print(f"{name}: time per clinic against that of {first} clinics, and what n log n would be")
    holds = True
    for clinics, value in seconds.items():
        grown = value / first_s / (clinics / first)
        allowed = math.log(clinics) / math.log(first)
        fine = grown <= allowed * SLACK
        holds = holds and fine
        print(f"  {clinics:>6}  {grown:5.2f}   n log n: {allowed:5.2f}   {verdict(fine)}")
    return holds


def report_start_up(rounds: int = 15) -> bool:
    """Print what ``ipsecctl --help`` takes against the import of typer alone; return whether it holds."""
    commands = {"help": ["-m", "ipsecctl", "--help"], "typer": ["-c", "import typer"]}
    # What is compiled is kept, as in an installation that has been used once.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    best = dict.fromkeys(commands, math.inf)
    for _ in range(rounds):
        for name, command in commands.items():
            before = os.times()
            subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, check=True)
            after = os.times()
            spent = (
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            best[name] = min(best[name], spent)
    ratio = best["help"] / best["typer"]
    print(
        f"ipsecctl --help against `import typer` (= 1): {ratio:.2f}   "
        f"at most {MOST_START_UP:g}: {verdict(ratio <= MOST_START_UP)}"
    )
    return ratio <= MOST_START_UP


def verdict(holds: bool) -> str:
    return "holds" if holds else "BROKEN"


def checks() -> Iterator[bool]:
    yield report_start_up()
    yield report_ratio(apart(CLINICS, rounds=5))
    grown = {clinics: apart(clinics, rounds=3) for clinics in SIZES}
    yield report_growth("Validate, compile and render", {n: times.total_s for n, times in grown.items()})
    yield report_growth("The overlap check alone", {n: times.overlaps_s for n, times in grown.items()})
    print("Peak memory: " + ", ".join(f"{n} clinics {times.peak_mib:.0f} MiB" for n, times in grown.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=int, metavar="CLINICS", help="measure one size here, print JSON")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.rounds).__dict__))
        return 0
    print(f"Python {platform.python_version()} on {platform.machine()}")
    return 0 if all(list(checks())) else 1


if __name__ == "__main__":
    sys.exit(main())

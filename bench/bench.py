"""Speed of start-up, validate, compile and render, as ratios within a run; exits with 1 when one is broken.

What is compared is measured in turns, round by round, in CPU time, and the figure is the median of the
rounds' ratios: other work on the machine hits both sides alike, and a round that it spoils does not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from time import process_time
from typing import Any
from unittest import mock

from estate import hub_and_spoke

from ipsecctl.desired import compile_topology
from ipsecctl.render import render_files
from ipsecctl.render.files import template_values, templates
from ipsecctl.topology import load_text, loading

CLINICS = 2_000
SIZES = {1_250: 4, 2_500: 2, 5_000: 1, 10_000: 1}
"""Clinics, and how often they are measured in a round: what is short is measured more often."""
RATIO_ROUNDS, GROWTH_ROUNDS, START_UP_ROUNDS = 7, 3, 21
MOST_RATIO = 3.0
"""Promised: validate, compile and render take at most this many times what jinja2 alone takes."""
MOST_START_UP = 1.5
"""Promised: ``ipsecctl --help`` takes less than this many times what importing typer takes."""
SLACK = 1.15
"""What a growth may exceed n log n by before it counts as broken: caches of the machine, garbage
collection."""
OVERLAPS_S = 0.5
"""For how long the overlap check, a matter of milliseconds, is called again and again."""
STEPS = ("validate", "compile", "render")


class _Secrets(dict[Any, bytes]):
    """A PSK for every reference: reading files is not what is measured."""

    def __missing__(self, reference: object) -> bytes:
        return b"0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Round:
    """CPU seconds of each step for one estate; ``jinja2`` for the templates alone, from ready data."""

    validate: float
    compile: float
    render: float
    jinja2: float

    @property
    def total(self) -> float:
        return self.validate + self.compile + self.render


@dataclass(frozen=True)
class Measured:
    """What one process found out about an estate of one size; ``overlaps_s`` is the overlap check alone."""

    rounds: tuple[Round, ...]
    overlaps_s: float
    peak_mib: float

    @property
    def total_s(self) -> float:
        return median(each.total for each in self.rounds)


class Stopwatch:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys((*STEPS, "jinja2"), 0.0)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        started = process_time()
        yield
        self.spent[step] += process_time() - started


def measure(clinics: int, rounds: int) -> Measured:
    """Measure an estate of ``clinics`` with two hubs in this process, without the overlap check alone."""
    text = hub_and_spoke(clinics)
    measured = tuple(_round(text) for _ in range(rounds))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(measured, overlaps_s(clinics), peak_mib)


def _round(text: str) -> Round:
    secrets = _Secrets()
    ready = templates()  # read and compiled once, as in one run of the command
    watch = Stopwatch()
    gc.collect()  # what the round before left behind is not this one's to clear away
    with watch.timing("validate"):
        loaded = load_text(text, "estate.yaml")
    topology = loaded.topology or sys.exit(str(loaded.diagnostics[:3]))
    with watch.timing("compile"):
        states = compile_topology(topology)
    for number, state in enumerate(states):
        values = template_values(state, secrets)

        def ours(state: Any = state) -> None:
            with watch.timing("render"):
                render_files(state, secrets, {})

        def theirs(values: Any = values) -> None:
            with watch.timing("jinja2"):
                for _, template, _ in ready:
                    template.render(values)

        # In turns: who comes second finds the machine's caches warm.
        for part in (ours, theirs) if number % 2 else (theirs, ours):
            part()
    return Round(**watch.spent)


def overlaps_s(clinics: int) -> float:
    """Return the CPU seconds of the overlap check alone, on an estate where something does overlap."""
    calls: list[Callable[[], None]] = []
    check = loading.check_overlaps  # type: ignore[attr-defined]

    def kept(*arguments: Any) -> None:
        calls.append(lambda: check(*arguments))

    with mock.patch.object(loading, "check_overlaps", kept):
        load_text(hub_and_spoke(clinics, twins=True), "estate.yaml")
    (call,) = calls
    seconds: list[float] = []
    while sum(seconds) < OVERLAPS_S or len(seconds) < 3:
        started = process_time()
        call()
        seconds.append(process_time() - started)
    return median(seconds)


def apart(clinics: int, rounds: int) -> Measured:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(clinics), "--rounds", str(rounds)]
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Measured(**answer | {"rounds": tuple(Round(**each) for each in answer["rounds"])})


def start_up_ratio() -> float:
    """Return how many times the import of typer alone ``ipsecctl --help`` takes."""
    commands = (["-m", "ipsecctl", "--help"], ["-c", "import typer"])
    # The first round is no figure: it keeps what it compiles, as an installation does that was used once.
    ratios = [_child_s(commands[0]) / _child_s(commands[1]) for _ in range(START_UP_ROUNDS + 1)]
    return median(ratios[1:])


def _child_s(command: list[str]) -> float:
    """Return the CPU seconds of Python with ``command``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def told(name: str, figure: float, limit: float, holds: bool) -> bool:
    print(f"{name}: {figure:.2f} (limit {limit:.4g}) {'holds' if holds else 'FAILS'}", flush=True)
    return holds


def report_start_up() -> bool:
    ratio = start_up_ratio()
    return told("ipsecctl --help, times `import typer`", ratio, MOST_START_UP, holds=ratio < MOST_START_UP)


def report_ratio() -> bool:
    """Print what the promised ratio is made of; return whether it holds."""
    measured = apart(CLINICS, RATIO_ROUNDS)
    ratio = median(each.total / each.jinja2 for each in measured.rounds)
    parts = (
        f"{step} {median(getattr(each, step) / each.jinja2 for each in measured.rounds):.2f}"
        for step in STEPS
    )
    name = f"validate + compile + render of {CLINICS} clinics x 2 hubs, times jinja2 alone"
    holds = told(name, ratio, MOST_RATIO, holds=ratio <= MOST_RATIO)
    print(f"  of this: {', '.join(parts)} (jinja2 alone = 1, {measured.rounds[0].jinja2:.2f} s of CPU here)")
    return holds


def report_growth() -> bool:
    """Print how times grow with the clinics, and the memory; return whether n log n is kept."""
    rounds = [
        {clinics: apart(clinics, times) for clinics, times in SIZES.items()} for _ in range(GROWTH_ROUNDS)
    ]
    first, *larger = SIZES
    holds = True
    for name, part in (("validate + compile + render", "total_s"), ("overlap check alone", "overlaps_s")):
        for clinics in larger:
            grown = median(getattr(each[clinics], part) / getattr(each[first], part) for each in rounds)
            limit = SLACK * clinics * math.log(clinics) / (first * math.log(first))
            holds &= told(f"{name}, {clinics} clinics, times {first}", grown, limit, holds=grown <= limit)
    print(f"  limits: n log n, and {SLACK - 1:.0%} for garbage collection and the machine's caches")
    memory = (f"{n} clinics {median(each[n].peak_mib for each in rounds):.0f} MiB" for n in SIZES)
    print(
        f"peak memory (interpreter, topology, all states, one gateway's files at a time): {', '.join(memory)}"
    )
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=int, metavar="CLINICS", help="measure one size here, print JSON")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asdict(measure(options.measure, options.rounds))))
        return 0
    print(f"Python {platform.python_version()} on {platform.machine()}", flush=True)
    return 0 if all([report_start_up(), report_ratio(), report_growth()]) else 1


if __name__ == "__main__":
    sys.exit(main())

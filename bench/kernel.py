"""Speed of what only a kernel with ESP shows, as ratios within a run; exits with 1 when one is broken.

It runs on this machine where its kernel has ESP, else in the virtual machine (labs/vm/vm), which is booted
for it. ``--here`` says this engine, whatever its kernel: without ESP, throughput is left out, as charon would
carry it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from spokes import MOST_RATIO, SPOKES, measure_spokes
from throughput import LEAST_RATIO, measure_throughput

from ipsecctl import lab as labs

VM = Path(__file__).parent.parent / "labs/vm/vm"
KINDS = ("throughput", "spokes")


def kernel_has_esp() -> bool:
    """Whether the kernel under the labs can carry ESP, by the lab image's own test."""
    argv = ["docker", "run", "--rm", "--cap-add", "NET_ADMIN", "--network", "none"]
    argv += ["--entrypoint", "/usr/lib/ipsecctl-lab/has-esp", labs.image_name()]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def told(name: str, figure: float, limit: str, *, holds: bool) -> bool:
    print(f"{name}: {figure:.3f} (limit {limit}) {'holds' if holds else 'FAILS'}", flush=True)
    return holds


def report_throughput(rounds: int) -> bool:
    ratios = measure_throughput(rounds)
    limit = f"at least {LEAST_RATIO}"
    holds = True
    for way, ratio in ratios.items():
        name = f"throughput in mode {way}, times by hand"
        holds &= told(name, ratio, limit, holds=ratio >= LEAST_RATIO)
    return holds


def report_spokes(rounds: int) -> bool:
    ratio = measure_spokes(rounds)
    name = f"from apply to traffic on {SPOKES} spokes, times charon alone"
    return told(name, ratio, f"at most {MOST_RATIO}", holds=ratio <= MOST_RATIO)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=KINDS, help="measure one of the two")
    parser.add_argument("--here", action="store_true", help="not in the virtual machine")
    parser.add_argument("--throughput-rounds", type=int, default=7)
    parser.add_argument("--spokes-rounds", type=int, default=3)
    options = parser.parse_args()
    esp = kernel_has_esp()
    if not esp and not options.here:
        environment = {"IPSECCTL_PATIENCE": "8", **os.environ}
        argv = [str(VM), "run", sys.executable, __file__, "--here", *sys.argv[1:]]
        return subprocess.run(argv, env=environment, check=False).returncode
    kinds = (options.only,) if options.only else KINDS
    holds = []
    if "throughput" in kinds and esp:
        holds.append(report_throughput(options.throughput_rounds))
    if "spokes" in kinds:
        print(f"data path: {'the kernel' if esp else 'kernel-libipsec'}", flush=True)
        holds.append(report_spokes(options.spokes_rounds))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Labs of the benchmarks' own, and commands in their nodes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ipsecctl import lab as labs
from ipsecctl.gateway.process import run as run_child
from ipsecctl.lab import Lab, Role
from ipsecctl.patience import PATIENCE

__all__ = ["Bench", "cpu_s", "lab_up"]

_HAS_ESP = "/usr/lib/ipsecctl-lab/has-esp"
_LONGEST_S = 120.0 * PATIENCE


def cpu_s() -> float:
    """Return the seconds of processor time so far: of the virtual machine that has the labs, or of all.

    labs/vm/vm keeps the number of the machine's process beside the engine's socket; QEMU is its child.
    """
    tick = os.sysconf("SC_CLK_TCK")
    engine = Path(os.environ.get("DOCKER_HOST", "").removeprefix("unix://"))
    if (keeper := engine.parent / "pid").is_file():
        pid = keeper.read_text().strip()
        (qemu,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        user, system = Path(f"/proc/{qemu}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / tick
    user, nice, system, _idle, _wait, irq, softirq = Path("/proc/stat").read_text().split()[1:8]
    return sum(map(int, (user, nice, system, irq, softirq))) / tick


@dataclass(frozen=True)
class Bench:
    """A lab that is up; ``folder`` is empty but for the lab's files and goes with it."""

    lab: Lab
    folder: Path

    @property
    def file(self) -> str:
        return self.lab.topology.file

    @property
    def store(self) -> tuple[str, str]:
        """The options that keep the history of these runs out of the user's own."""
        return ("--store", str(self.folder / "store.sqlite"))

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.lab.with_role(Role.GATEWAY))

    @property
    def kernel_esp(self) -> bool:
        return not self.everywhere({self.gateways[0]: _HAS_ESP}, statuses=(0, 1))[self.gateways[0]][0]

    def sh(self, node: str, script: str, stdin: bytes = b"") -> str:
        """Run a shell command in a node and return what it printed; end the run when it fails."""
        return self.everywhere({node: script}, {node: stdin})[node][1]

    def everywhere(
        self,
        scripts: Mapping[str, str],
        stdin: Mapping[str, bytes] | None = None,
        statuses: tuple[int, ...] = (0,),
    ) -> dict[str, tuple[int, str]]:
        """Run a shell command in each of some nodes, side by side; return status and output by node."""
        return asyncio.run(self._everywhere(scripts, stdin or {}, statuses))

    async def _everywhere(
        self, scripts: Mapping[str, str], stdin: Mapping[str, bytes], statuses: tuple[int, ...]
    ) -> dict[str, tuple[int, str]]:
        async def one(node: str, script: str) -> tuple[int, str]:
            argv = ["docker", "exec", "-i", self.lab.container(node), "sh", "-c", script]
            done = await run_child(argv, stdin.get(node, b""), timeout_s=_LONGEST_S)
            if done.status not in statuses:
                sys.exit(f"{node}: {script}: status {done.status}\n{done.stderr.decode()}")
            return done.status, done.stdout.decode()

        answers = await asyncio.gather(*(one(node, script) for node, script in scripts.items()))
        return dict(zip(scripts, answers, strict=True))

    def ipsecctl(self, *arguments: str) -> None:
        """Run ``ipsecctl ARGUMENTS``; end the run when it fails."""
        argv = [sys.executable, "-m", "ipsecctl", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        if done.returncode:
            sys.exit(f"ipsecctl {arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}")


@contextmanager
def lab_up(name: str, topology: str, *, hosts: bool) -> Iterator[Bench]:
    """Have a lab of a topology, given as text, up as long as the context lasts.

    Without ``hosts`` it has gateways alone, which stand for their networks.
    """
    with TemporaryDirectory(prefix="ipsecctl-bench-") as made:
        folder = Path(made)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # what these runs remember is theirs alone
        (folder / "topology.yaml").write_text(topology)
        (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
        lab = labs.load(str(folder / "lab.yaml")).called(name)
        if not hosts:
            lab = replace(lab, nodes=tuple(node for node in lab.nodes if node.role is not Role.HOST))
        labs.down(name)  # what a run that was killed may have left
        began = time.monotonic()
        try:
            labs.up(lab)
            print(f"  {len(lab.nodes)} nodes up in {time.monotonic() - began:.0f} s", flush=True)
            yield Bench(lab, folder)
        finally:
            labs.down(name)

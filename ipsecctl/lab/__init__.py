"""Run a topology against real strongSwan in containers.

::

    find.load(NAME) -> Lab        a topology and a lab file, wired: nodes, links, addresses; no Docker
    up(lab), down(NAME)           the same through Docker, to the end or not at all
    reboot(lab, NODE)             a node's power is cut, and it starts again
    run(lab, NODE, argv)          a command in a node
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from ipsecctl.errors import LabError
from ipsecctl.gateway.handle import Completed
from ipsecctl.interrupt import complete
from ipsecctl.lab.compose import project_name
from ipsecctl.lab.control import (
    Rebooted,
    Removed,
    Up,
    bring_up,
    compose_document,
    furnish,
    image_name,
    restart,
    take_down,
)
from ipsecctl.lab.docker import containers
from ipsecctl.lab.find import check_name, known, load
from ipsecctl.lab.graph import GraphFormat, draw
from ipsecctl.lab.observe import LabStatus, NodeStatus, look, look_all
from ipsecctl.lab.wiring import (
    INTERNET,
    Init,
    Interface,
    Lab,
    Link,
    LinkKind,
    Node,
    NodeRoute,
    Release,
    Role,
    interface_name,
)
from ipsecctl.patience import PATIENCE

__all__ = [
    "INTERNET",
    "GraphFormat",
    "Init",
    "Interface",
    "Lab",
    "LabStatus",
    "Link",
    "LinkKind",
    "Node",
    "NodeRoute",
    "NodeStatus",
    "Rebooted",
    "Release",
    "Removed",
    "Role",
    "Up",
    "bring_up",
    "check_name",
    "complete",
    "compose_document",
    "containers",
    "down",
    "draw",
    "furnish",
    "image_name",
    "interface_name",
    "known",
    "load",
    "look",
    "look_all",
    "project_name",
    "reboot",
    "run",
    "take_down",
    "up",
]


def up(lab: Lab, *, recreate: bool = False, say: Callable[[str], None] = lambda _: None) -> Up:
    """Bring a lab up and wait; see ``bring_up``. Signals are obeyed: nothing is left, then ``SystemExit``."""
    return complete(bring_up(lab, recreate=recreate, say=say))


def down(name: str) -> Removed:
    """Take a lab down and wait; see ``take_down``."""
    return complete(take_down(name))


def reboot(lab: Lab, node: str) -> Rebooted:
    """Cut a node's power, start it again and wait; see ``restart``."""
    return complete(restart(lab, node))


def run(
    lab: Lab, node: str, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
) -> Completed:
    """Run a command in a node and wait; any exit status is an answer.

    Raises ``LabError`` when there is no such node in the lab, or the command takes longer than ``timeout_s``
    seconds.
    """
    command = ["docker", "exec", "-i", lab.container(lab.node(node).name), *argv]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise LabError(f"{node}: '{argv[0]}' did not end within {timeout_s:.3g} s") from None
    return Completed(done.returncode, done.stdout, done.stderr)

"""What a node says of itself: who carries ESP on a gateway is found out, not believed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ipsecctl.cli.lab import _carriers
from ipsecctl.lab import LabStatus, NodeStatus
from ipsecctl.lab.script import LOOK, read_look

LOADED = "loaded plugins: vici kernel-netlink openssl"
ADDRESSES = "[]"


def look(place: Path, stats: str, added: str) -> str:
    """Return the data path that LOOK finds: swanctl prints ``stats``, ``added`` is what adds an SA."""
    tools = {
        "swanctl": f"echo '{stats}'",
        "ip": f"""case "$*" in
            *address*) echo '{ADDRESSES}' ;;
            'xfrm state add'*) {added} ;;
            *) echo "$*" >>{place}/calls ;;
        esac""",
    }
    for name, script in tools.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    environment = {"PATH": f"{place}:{os.environ['PATH']}"}
    command = ["sh", "-eu", "-s", "gateway"]
    done = subprocess.run(
        command,
        input=LOOK,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return read_look(done.stdout).data_path


@pytest.mark.parametrize(
    ("stats", "added", "data_path"),
    [
        (LOADED, "true", "kernel"),
        (LOADED, "echo 'Error: Requested type not found.' >&2; exit 2", "none"),
        (LOADED, "echo 'RTNETLINK answers: File exists' >&2; exit 2", "kernel"),
        (f"{LOADED} kernel-libipsec", "exit 9", "libipsec"),
    ],
)
def test_who_carries_esp(tmp_path: Path, stats: str, added: str, data_path: str) -> None:
    assert look(tmp_path, stats, added) == data_path
    left = added == "true" and (tmp_path / "calls").read_text().startswith("xfrm state delete ")
    assert left == (added == "true"), "the SA that was tried is taken away, and no other"


def test_where_nobody_carries_esp_that_is_said() -> None:
    def node(name: str, data_path: str) -> NodeStatus:
        return NodeStatus(name, "gateway", "running", "running", data_path)

    nodes = (node("dc", "libipsec"), node("c", "none"), NodeStatus("h", "host", "running", "-", "-"))
    carried, warning, hint = _carriers(LabStatus("x", nodes))
    assert carried == "charon itself (kernel-libipsec) carries ESP on dc"
    assert warning == "warning: nothing carries ESP on c: it is left to the kernel, which has none here"
    assert "datapath: auto" in hint

"""The demo, on a copy of its lab, so that one somebody works in is left alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ipsecctl.lab import down
from ipsecctl.patience import PATIENCE
from ipsecctl.resources import resource_dir

from .conftest import LABS

NAME = f"{LABS}-demo"

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("demo")]


def test_the_demo_proves_every_row(tmp_path: Path, docker: None) -> None:
    (tmp_path / "topologies").mkdir()
    shutil.copy(resource_dir("topologies") / "clinic-dc.yaml", tmp_path / "topologies")
    lab = shutil.copytree(resource_dir("labs") / "clinic-dc", tmp_path / "labs" / NAME)
    command = [sys.executable, "-m", "ipsecctl", "lab", "demo", str(lab), "--out", str(tmp_path / "out")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180 * PATIENCE, check=False)
    finally:
        down(NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ ipsecctl")]
    commands = ["lab up", "validate", "render", "plan", "apply", "apply", "status", "probe tunnel"]
    for line, command_line in zip(shown, commands, strict=False):
        assert line.startswith(f"$ ipsecctl {command_line} ")
    assert "FAILS" not in done.stdout
    assert "22 of 22 hold" in done.stdout
    for family in ("-4", "-6"):  # the firewall is proven alone
        assert f"-- ip {family} route flush table all proto 213" in done.stdout
    assert "packets that this firewall dropped" in done.stdout
    assert "holding routes that the apply put back" in done.stdout

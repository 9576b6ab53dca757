"""What holds for all tests: labs need Docker, and their lack is a failure, never a skip."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import scapy.interfaces  # noqa: F401 - it makes conf.ifaces
from hypothesis import HealthCheck, settings
from scapy.config import conf

import ipsecctl

# scapy reads the routes and interfaces of this machine when it is imported: slow where labs run, and no test
# asks for them.
conf.route_autoload = False
conf.route6_autoload = False
conf.ifaces.reload = lambda: None

# How long an example takes says how busy the machine is, not whether the code is right. `make test-unit` is
# to be over soon and takes a quarter of the examples, others each time; `make test` takes all of them.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any-machine", _ANY_MACHINE)
settings.register_profile("quick", _ANY_MACHINE, max_examples=25)
settings.load_profile("quick" if os.environ.get("IPSECCTL_TEST_QUICK") else "any-machine")

# What tests apply is no part of anybody's history.
_STATE = tempfile.TemporaryDirectory(prefix="ipsecctl-test-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name
os.environ.pop("IPSECCTL_STORE", None)
# Nor do they remember what was settled in an earlier run.
os.environ["XDG_CACHE_HOME"] = f"{_STATE.name}/cache"

_GARBAGE = 50_000
"""So many new objects make a collection of garbage due: with Python's 700 it takes a tenth of all time."""

# Most tests are not about the safety stop, and labs are small: what is, says its own limit.
os.environ["IPSECCTL_SAFETY_LIMIT"] = "100%"

LEFT_OUT = pytest.StashKey[int]()
"""How many tests were left out because they need a kernel with ESP (tests/lab/conftest.py)."""

SHOWN = "shown"
"""Name of the property of a test's report that is printed at the end of the run."""

LEAK_CASE = "leak case"
"""... of the one that is a line, in JSON by column, of the table of leak cases."""

LOSS_ROW = "loss row"
"""... of the table of what changes cost."""

_NO_DOCKER = """this test runs a lab, and Docker Engine, Compose v2 or the lab image is missing, or cannot be
used. Get them: labs/setup (it says first what it installs). Tests that need none of them: make test-unit"""


def pytest_report_header() -> str:
    return f"ipsecctl {ipsecctl.__version__} from {Path(ipsecctl.__file__).parent}"


def pytest_sessionstart() -> None:
    """The Makefile says when the wheel is meant; then the checkout must not be what is tested."""
    if os.environ.get("IPSECCTL_TEST_WHEEL") and "site-packages" not in ipsecctl.__file__:
        pytest.exit(f"the installed wheel is to be tested, and this is {ipsecctl.__file__}", returncode=1)


def pytest_collection_finish() -> None:
    """Take what is loaded by now out of garbage collection: it stays, and is large to look through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


def _docker_is_usable() -> bool:
    from ipsecctl import lab

    image = ["docker", "image", "inspect", lab.image_name()]
    for command in (["docker", "info"], ["docker", "compose", "version"], image):
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode:
            return False
    return True


def _data_path() -> str:
    """Return what carries ESP in labs on this machine: what was said, or what its kernel can."""
    from ipsecctl import lab

    if said := os.environ.get("IPSECCTL_TEST_DATA_PATH"):
        return said
    there = ["docker", "run", "--rm", "--network", "none", "--cap-add", "NET_ADMIN", "--entrypoint"]
    try:
        done = subprocess.run(
            [*there, "/usr/lib/ipsecctl-lab/has-esp", lab.image_name()],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "libipsec"  # without Docker every lab fails, and says why
    return "kernel" if done.returncode == 0 else "libipsec"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel cannot carry; keep a lab's tests together, and in it those of a mode."""
    if any(item.get_closest_marker("esp") for item in items) and _data_path() != "kernel":
        left_out = [item for item in items if item.get_closest_marker("esp")]
        items[:] = [item for item in items if not item.get_closest_marker("esp")]
        config.hook.pytest_deselected(items=left_out)
        config.stash[LEFT_OUT] = len(left_out)
    items.sort(key=_lab_and_mode)


def _lab_and_mode(item: pytest.Item) -> tuple[str, ...]:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return (str(params["running"]), str(params["mode"])) if {"running", "mode"} <= params.keys() else ()


@pytest.fixture(scope="session")
def data_path(docker: None) -> str:
    """What carries ESP in labs on this machine: ``kernel`` or ``libipsec``."""
    return _data_path()


@pytest.fixture(scope="session")
def docker() -> None:
    """Fail, with what to do, where a lab is needed and cannot be had."""
    if not _docker_is_usable():
        pytest.fail(_NO_DOCKER, pytrace=False)


@pytest.fixture(autouse=True)
def _docker_for_labs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("lab"):
        request.getfixturevalue("docker")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # a worker of pytest-xdist
        output["left out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker collects the same tests."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", 0)


def _table(reports: list[Any], name: str, title: str) -> list[str]:
    """Return the lines of a table of the rows that tests have left as a property: none, where none has."""
    rows = [json.loads(v) for report in reports for key, v in report.user_properties if key == name]
    if not rows:
        return []
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [title, *("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for report in terminalreporter.getreports("passed"):
        for text in (value for name, value in report.user_properties if name == SHOWN):
            terminalreporter.write_line(text)
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    leaks = "Marked packets, both ways, while the tunnel was being broken, and what the captures saw:"
    losses = "What changes cost, in packets of 500 a second each way:"
    for line in _table(reports, LEAK_CASE, leaks) + _table(reports, LOSS_ROW, losses):
        terminalreporter.write_line(line)
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{left_out} tests need a kernel with ESP, and this one has none: `make test-kernel` runs them"
        )

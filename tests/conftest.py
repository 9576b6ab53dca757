"""What holds for all tests: labs need Docker, and their lack is a failure, never a skip."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from scapy.config import conf

import ipsecctl

# scapy reads the routes of this machine when it is imported: slow where labs run, and no test asks for them.
conf.route_autoload = False
conf.route6_autoload = False

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

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


@pytest.fixture(scope="session")
def docker() -> None:
    """Fail, with what to do, where a lab is needed and cannot be had."""
    if not _docker_is_usable():
        pytest.fail(_NO_DOCKER, pytrace=False)


@pytest.fixture(autouse=True)
def _docker_for_labs(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("lab"):
        request.getfixturevalue("docker")

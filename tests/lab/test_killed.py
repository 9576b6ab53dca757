"""kill -9 of whoever applies, at every step: the next apply makes it right, and nobody else is harmed.

All operations on gateways are counted in one apply that is left alone; then applies are killed at some of
them, spread over all, in turn before an operation and in its middle. ``IPSECCTL_KILL_ALL=1`` takes all.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsecctl import lab as labs
from ipsecctl.patience import PATIENCE

pytestmark = [pytest.mark.lab, pytest.mark.change, pytest.mark.xdist_group("killed")]

KILLED = Path(__file__).with_name("killed.py")
POINTS = {"first": 5, "change": 9}
"""How many of the steps are taken; the time that a run of the tests may take decides."""

TOPOLOGY = """\
ipsecctl: 1
name: killed
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  a: {networks: {lan: [10.1.0.0/24]}, gateway: 198.51.100.10}
  b: {networks: {lan: [10.2.0.0/24]}, gateway: 203.0.113.20}
tunnels:
  t: {between: [a, b]}
"""
FOREIGN = """\
connections { somebodys { version = 2
  remote_addrs = 192.0.2.77
  local { auth = psk
    id = here }
  remote { auth = psk
    id = there }
  children { somebodys { local_ts = 10.77.0.0/24
    remote_ts = 10.78.0.0/24 } } } }
secrets { ike-somebodys { secret = "not ours" } }
"""
# As if nothing had ever been applied.
RESET = """
rm -rf /var/lib/ipsecctl /etc/ipsecctl /run/ipsecctl.lock
find /etc -name 'ipsecctl*' -exec rm -rf {} + ; find /etc -name '*-ipsecctl.*' -exec rm -f {} +
nft delete table inet ipsecctl 2>/dev/null
for family in -4 -6; do
    ip $family route flush table all proto 213
    for rule in $(ip $family rule show | sed -n '/ proto 213/s/:.*//p'); do
        ip $family rule delete pref $rule
    done
done
for link in /sys/class/net/ix-*; do [ ! -e $link ] || ip link delete ${link##*/}; done
/usr/lib/ipsecctl-lab/charon stop; /usr/lib/ipsecctl-lab/charon start
swanctl --load-all >/dev/null 2>&1
"""


@pytest.fixture(scope="module")
def lab(lab_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    folder = tmp_path_factory.mktemp("killed") / "killed"
    folder.mkdir()
    (folder / "topology.yaml").write_text(TOPOLOGY)
    (folder / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(folder / "lab.yaml"))) as running:
        for gateway in running.managed:
            running.sh(gateway, "cat >/etc/swanctl/conf.d/somebody.conf", FOREIGN.encode())
            running.sh(gateway, "swanctl --load-all >/dev/null 2>&1")
        running.sh("b", "ip address add 10.22.0.1/24 dev lan-lan")  # of a network added later
        yield running


@pytest.fixture(scope="module")
def other(lab, tmp_path_factory: pytest.TempPathFactory):
    """The topology with all that can differ: proposals, networks, key, times, and a tunnel more."""
    changed = lab.changed(
        tmp_path_factory.mktemp("other"),
        lambda text: (
            text.replace("10.2.0.0/24", "10.2.0.0/24, 10.22.0.0/24")
            .replace("{control: lab,", "{control: lab, profile: nist-800-77,")
            .replace("{tunnel}.psk", "other.psk")
        ),
    )
    changed.without_lab("secret", "generate", changed.file)
    return changed


def killed_at(lab, number: int, when: str, log: Path) -> list[str]:
    """Apply, killed at an operation; return those that were begun."""
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, str(KILLED), str(number), when, str(log)),
            *("apply", lab.file, "--yes", "--lab", lab.lab.name),
        ],
        capture_output=True,
        text=True,
        timeout=120 * PATIENCE,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if number else 0), f"{number}: {done.stdout}\n{done.stderr}"
    return log.read_text().splitlines()


def points(total: int, some: int) -> list[tuple[int, str]]:
    """Return which operations are killed, and how."""
    step = 1 if os.environ.get("IPSECCTL_KILL_ALL") else max(1, total // some)
    print(f"{total} operations, every {step}. is killed")
    return [*zip(range(1, total + 1, step), itertools.cycle(("before", "during")))]


# What charon has, what it has once it was told what is in the files, and what is left of files under way.
AGREES = """
swanctl --list-conns >/tmp/has
swanctl --load-all --clear >/tmp/told 2>&1 || cat /tmp/told
grep -i -e failed -e unload /tmp/told | grep -v -e ' 0 failed' -e ' 0 unloaded'
swanctl --list-conns | diff /tmp/has - || echo 'charon and files differ'
grep -q '^somebodys:' /tmp/has || echo 'the foreign connection is gone'
find /var/lib/ipsecctl /etc -name '*ipsecctl-new' -o -path '/var/lib/ipsecctl/undo*'
"""


def is_right(lab) -> None:
    """What the topology says is there, for charon and in the files alike; somebody's connection is there."""
    assert "Nothing to do: 2 gateways" in lab.ipsecctl("plan", lab.file).stdout
    assert {gateway: lab.sh(gateway, AGREES, statuses=(0, 1)) for gateway in lab.managed} == {
        "a": "",
        "b": "",
    }


def test_a_first_apply_is_killed(lab, tmp_path: Path) -> None:
    total = len(killed_at(lab, 0, "before", tmp_path / "log"))
    is_right(lab)
    for number, when in points(total, POINTS["first"]):
        for gateway in lab.managed:
            lab.sh(gateway, RESET)
        begun = killed_at(lab, number, when, tmp_path / "log")
        print(f"killed {when} {number}: {begun[-1]}")
        lab.apply()
        is_right(lab)


def test_a_change_is_killed(lab, other, tmp_path: Path) -> None:
    lab.apply()
    total = len(killed_at(other, 0, "before", tmp_path / "log"))
    is_right(other)
    for (number, when), now in zip(points(total, POINTS["change"]), itertools.cycle((lab, other))):
        # The number of the last operations differs from one apply to the next: tunnels are waited for.
        begun = killed_at(now, number, when, tmp_path / "log")
        print(f"killed {when} {number}: {begun[-1]}")
        now.apply()
        is_right(now)

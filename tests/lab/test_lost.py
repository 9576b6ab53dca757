"""What is taken from under charon, untold: ``status`` finds out, ``apply`` mends it; a rekey is none.

On both data paths: the kernel's policies, or charon's routes to its own device.
"""

from __future__ import annotations

from typing import Any

import pytest

LAB = "clinic-dc"
TUNNEL, CALLS, CALLED = "clinics-clinic-a", "clinic-a", "dc"
TAKEN = {
    "kernel": ("ip xfrm policy flush", "the kernel does not have the IPsec policies of its SAs"),
    "libipsec": ("ip route flush table 220", "charon's routes through ipsec0 are not there"),
}
LOOKS = {"kernel": 5, "libipsec": 10}
"""How often ``status`` is asked while SAs are rekeyed; where the kernel has them, it is an emulated one."""

pytestmark = [
    pytest.mark.lab,
    pytest.mark.parametrize(
        "running", [pytest.param(LAB, marks=pytest.mark.xdist_group(LAB))], indirect=True, scope="session"
    ),
]


def tunnels(lab) -> dict[str, Any]:
    told = lab.json("status", lab.file, statuses=(0, 1, 3))["tunnels"]
    return {tunnel["name"]: tunnel for tunnel in told}


def arrives(lab) -> bool:
    """Whether hosts behind the two gateways reach each other."""
    done = lab.sh(f"{CALLS}-lan", "ping -c 3 -i 0.2 -W 2 10.10.8.104 >/dev/null && echo yes", statuses=(0, 1))
    return "yes" in done


# In the virtual machine the end that calls loses all it has in test_kernel.py.
@pytest.mark.parametrize("gateway", [CALLS, pytest.param(CALLED, marks=pytest.mark.kernel)])
def test_what_charon_is_not_told_of(applied, data_path: str, gateway: str):
    command, says = TAKEN[data_path]
    assert arrives(applied)
    try:
        applied.sh(gateway, command)
        found = tunnels(applied)[TUNNEL]
        assert (found["verdict"], arrives(applied)) == ("down", False)
        assert f"{gateway}: {says}" in found["causes"][0]
        planned = applied.json("plan", applied.file)["changes"]
        changed = {(c["gateway"], c["name"], c["disruption"]) for c in planned}
        assert (gateway, TUNNEL, "child restart") in changed
    finally:
        applied.apply()
    assert {tunnel["verdict"] for tunnel in tunnels(applied).values()} == {"up"}
    assert arrives(applied)
    assert "Nothing to do" in applied.ipsecctl("plan", applied.file).stdout


@pytest.mark.kernel
def test_status_is_up_during_rekeys(applied, data_path: str):
    rekey = f"swanctl --rekey --child {TUNNEL} >>/tmp/rekeys 2>&1"
    applied.sh(
        CALLS,
        f"rm -f /tmp/enough /tmp/rekeys; (while [ ! -e /tmp/enough ]; do {rekey}; done) >/dev/null 2>&1 &",
    )
    try:
        told = [tunnels(applied)[TUNNEL] for _ in range(LOOKS[data_path])]
    finally:
        applied.sh(CALLS, "touch /tmp/enough")
    assert [(tunnel["verdict"], tunnel["causes"]) for tunnel in told] == [("up", [])] * LOOKS[data_path]
    assert int(applied.sh(CALLS, "grep -c 'completed successfully' /tmp/rekeys")) >= LOOKS[data_path]

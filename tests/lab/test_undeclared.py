"""Traps and CHILD_SAs of children that are not declared: none is left behind, and any that is there is found.

charon keeps a trap under the name of the child that it was installed for, whatever is loaded later with
another name and the same body (gateway/traps.py). A ping through what is no longer declared tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipsecctl import lab as labs

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("undeclared")]

CLINIC = """\
ipsecctl: 1
name: undeclared
defaults: {control: lab, credential: {psk: "file:secrets/{tunnel}.psk"}}
sites:
  dc: {networks: {servers: 10.10.0.0/24, imaging: 10.10.8.0/24}, gateway: 198.51.100.10}
  a: {networks: {lan: 10.20.1.0/24, xray: 10.20.9.0/24}, gateway: 203.0.113.20}
tunnels:
  t:
    between: [a, dc]
    children: subnet-pair
    flows:
      - {name: orders, from: lan, to: servers}
      - {name: results, from: imaging, to: xray}
"""


@dataclass(frozen=True)
class Scene:
    """A lab with a tunnel of two flows, the gateway that calls, and a packet of each flow: from and to."""

    lab: Any
    caller: str
    tunnel: str
    orders: tuple[str, str]
    results: tuple[str, str]
    folder: Path

    def apply(self, *lines: str) -> Any:
        """Apply the topology with only those ``lines`` of flows; return the lab with it."""

        def flows(text: str) -> str:
            head, _, _ = text.partition("    flows:\n")
            return f"{head}    flows:\n" + "".join(f"      - {line}\n" for line in lines)

        folder = self.folder / str(sum(1 for _ in self.folder.iterdir()))
        folder.mkdir()
        lab = self.lab.changed(folder, flows)
        done = lab.json("apply", lab.file, "--yes", "--allow", self.tunnel)
        assert [tunnel["verdict"] for tunnel in done["tunnels"]] == ["up"], done
        assert "Nothing to do" in lab.ipsecctl("plan", lab.file, "--detailed-exitcode").stdout
        return lab

    def traps(self) -> set[str]:
        listed = self.lab.sh(self.caller, "swanctl --list-pols --trap").splitlines()
        return {line.partition(",")[0].partition("/")[2] for line in listed if ", reqid" in line}

    def sas(self) -> dict[str, str]:
        """Return the SPI of each CHILD_SA that is installed, by its child."""
        listed = self.lab.sh(self.caller, "swanctl --list-sas").splitlines()
        found, child = {}, ""
        for line in listed:
            if ", INSTALLED" in line:
                child = line.strip().partition(":")[0]
            elif line.startswith("    in "):
                found[child] = line.split()[1].rstrip(",")
        return found

    def arrives(self, flow: tuple[str, str]) -> bool:
        host, address = flow
        command = f"ping -c 4 -i 0.2 -W 1 {address} | grep -q ' [1-4] received' && echo yes"
        return "yes" in self.lab.sh(host, command, statuses=(0, 1))


@pytest.fixture(scope="module", params=["partner", "clinic"])
def scene(request: pytest.FixtureRequest, lab_of: Any, tmp_path_factory: Any) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("undeclared")
    (changed := folder / "changed").mkdir()
    if request.param == "partner":
        with lab_of(labs.load("partner").called("undeclared-partner")) as lab:
            orders, results = ("hq-lab-orders", "172.20.4.10"), ("hq-results", "172.20.9.10")
            yield Scene(lab, "hq", "labco", orders, results, changed)
        return
    (own := folder / "undeclared").mkdir()
    (own / "topology.yaml").write_text(CLINIC)
    (own / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    with lab_of(labs.load(str(own / "lab.yaml"))) as lab:
        yield Scene(lab, "a", "t", ("a-lan", "10.10.0.10"), ("a-xray", "10.10.8.10"), changed)


def lines(scene: Scene, *, orders: str = "orders") -> tuple[str, str]:
    text = Path(scene.lab.topology.file).read_text()
    first, second = (line.strip()[2:] for line in text.splitlines() if line.strip().startswith("- {name"))
    return first.replace("name: orders", f"name: {orders}"), second


def test_a_flow_that_was_renamed_and_then_removed_leaves_no_trap(scene: Scene) -> None:
    first, second = lines(scene)
    scene.apply(first, second)
    assert (scene.arrives(scene.orders), scene.arrives(scene.results)) == (True, True)
    (old,) = {child for child in scene.traps() if "orders-" in child and "samples" not in child} - {
        child for child in scene.traps() if "-results-" in child
    }
    scene.apply(*lines(scene, orders="samples"))
    assert old not in scene.traps()
    before = scene.sas()
    scene.apply(second)
    (left,) = scene.traps()
    assert scene.sas() == {left: before[left]}, "what stays declared keeps its name, and its SA"
    assert (scene.arrives(scene.orders), scene.arrives(scene.results)) == (False, True)
    assert scene.sas() == {left: before[left]}


def test_one_flow_after_the_other_takes_the_place_of_both(scene: Scene) -> None:
    first, second = lines(scene)
    scene.apply(first, second)
    both = scene.traps()
    scene.apply(second)
    (results,) = scene.traps()
    scene.apply(first)
    assert scene.traps() == both - {results}
    assert (scene.arrives(scene.orders), scene.arrives(scene.results)) == (True, False)
    scene.apply(second)
    assert scene.traps() == {results}
    assert (scene.arrives(scene.orders), scene.arrives(scene.results)) == (False, True)


STRAY = """
file=/etc/swanctl/conf.d/ipsecctl.conf; kept=$(mktemp); cp "$file" "$kept"
swanctl --uninstall --ike {ike} --child {child}
sed -i 's/{child} {{/stray-child {{/' "$file"; grep -q 'stray-child {{' "$file"
swanctl --load-conns; swanctl --install --ike {ike} --child stray-child
cat "$kept" >"$file"; rm "$kept"; swanctl --load-conns
"""
"""A trap under another name, as what charon itself does when a child is renamed."""


def test_a_stray_trap_and_what_it_has_brought_up_are_named_and_taken_away(scene: Scene) -> None:
    first, second = lines(scene)
    lab = scene.apply(first, second)
    declared = scene.traps()
    (child,) = {c for c in declared if f"{scene.tunnel}-orders-" in c}
    lab.sh(scene.caller, f"set -e{STRAY.format(ike=scene.tunnel, child=child)}")
    assert scene.traps() == declared - {child} | {"stray-child"}
    plan = lab.json("plan", lab.file)
    (change,) = plan["changes"]
    assert (change["cause"], change["disruption"]) == ("drift", "none")
    reasons = "; ".join(change["reasons"])
    assert "a trap for stray-child, which is not declared" in reasons
    assert f"the trap of {child} is not there" in reasons
    assert causes(lab) == [f"{scene.caller} would call for what is not declared (stray-child)"]
    before = scene.sas()
    lab.ipsecctl("apply", lab.file, "--yes")
    assert (scene.traps(), scene.sas()) == (declared, before)
    assert causes(lab) == []

    lab.sh(scene.caller, f"set -e{STRAY.format(ike=scene.tunnel, child=child)}")
    lab.sh(scene.caller, f"swanctl --terminate --child {child} --force")
    assert scene.arrives(scene.orders), "the stray trap calls"
    assert "stray-child" in scene.sas()
    assert f"{scene.caller} lets through what is not declared (stray-child)" in causes(lab)
    lab.ipsecctl("apply", lab.file, "--yes", "--allow", scene.tunnel)
    assert (scene.traps(), scene.sas().keys()) == (declared, declared)
    assert causes(lab) == []
    assert "Nothing to do" in lab.ipsecctl("plan", lab.file, "--detailed-exitcode").stdout
    assert (scene.arrives(scene.orders), scene.arrives(scene.results)) == (True, True)


def causes(lab: Any) -> list[str]:
    (tunnel,) = lab.json("status", lab.file, statuses=(0, 1))["tunnels"]
    return [cause.removesuffix(": apply the topology") for cause in tunnel["causes"]]

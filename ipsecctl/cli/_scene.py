"""A lab as the scene of a probe: where it can send, and where it can listen."""

from __future__ import annotations

from pathlib import Path

from ipsecctl.errors import CannotTell, LabError
from ipsecctl.lab import INTERNET, Lab, Role, complete, containers, known, load
from ipsecctl.lab.find import LAB_FILE, is_path
from ipsecctl.probe import Host, Scene, WanLink
from ipsecctl.topology import ControlKind, Topology

__all__ = ["lab_of", "lab_that_is_up", "scene_of"]


def lab_of(topology: Topology, name: str | None) -> Lab:
    """Return the lab called ``name``, or without a name the one that the topology's gateways are in.

    One that is up is found wherever its folder is. Else it is looked for in this installation, beside the
    topology file, and in ``labs/`` beside its folder.

    Raises ``CannotTell`` when they are in none, ``LabError`` when there is no such lab.
    """
    if name is None:
        controls = [g.control for g in topology.gateways() if g.managed and g.control.kind is ControlKind.LAB]
        if not controls:
            raise CannotTell(
                f"the gateways of {topology.name} are in no lab, and this version probes in labs only",
                "Use --lab NAME, or 'control: lab' in the topology.",
            )
        name = controls[0].target or topology.name
    if is_path(name):
        return load(name)
    if running := lab_that_is_up(name):
        return running
    if name in known():
        return load(name)
    here = Path(topology.file).absolute().parent
    for folder in (here if here.name == name else here / name, here.parent / "labs" / name):
        if (folder / LAB_FILE).is_file():
            return load(str(folder.absolute()))
    # A lab of this topology that runs under another name.
    return load(topology.name if topology.name in known() else name).called(name)


def lab_that_is_up(name: str) -> Lab | None:
    """Return a lab that has containers, from the folder that they say it was made from.

    ``None`` when there is none, its folder has gone, or Docker does not say. Raises ``TopologyRefused`` when
    what is in the folder is wrong by now.
    """
    try:
        folders = {Path(c.folder) for c in complete(containers(name)) if c.folder}
    except LabError:
        return None
    folder = next((folder for folder in sorted(folders) if (folder / LAB_FILE).is_file()), None)
    return load(str(folder)).called(name) if folder else None


def scene_of(lab: Lab) -> Scene:
    """Return a lab's hosts, and the WAN link of each of its gateways up to the internet."""
    hosts = [
        Host(node.name, lab.container(node.name), tuple(a.ip for a in node.interface("lan").addresses))
        for site in lab.topology.sites
        for node in lab.hosts(site.name)
    ]
    links = {}
    for node in lab.with_role(Role.GATEWAY):
        near = (node.name, lab.container(node.name), "wan")
        far = (INTERNET, lab.container(INTERNET), lab.internet_interface(node.name))
        links[node.name] = WanLink.between(near, far)
    return Scene(tuple(hosts), links)

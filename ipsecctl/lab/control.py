"""Bring labs up and take them down. Nothing is ever left half made.

``bring_up`` that fails or is interrupted removes all that it began: by label, so whatever Compose and Docker
were doing when it ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipsecctl.errors import LabError
from ipsecctl.gateway.handle import Completed
from ipsecctl.interrupt import complete
from ipsecctl.lab import docker
from ipsecctl.lab.compose import (
    LABEL_DIGEST,
    LABEL_FOLDER,
    LABEL_PARTS,
    choose_subnets,
    document,
    network_name,
)
from ipsecctl.lab.credentials import make_missing
from ipsecctl.lab.files import node_files
from ipsecctl.lab.find import known
from ipsecctl.lab.firewall import machine_rules, no_machine_rules
from ipsecctl.lab.image import image_names
from ipsecctl.lab.observe import LabStatus, NodeStatus, look, node_status, shell, side_by_side
from ipsecctl.lab.script import LOOK, check, configure
from ipsecctl.lab.wiring import Lab, Node, Release
from ipsecctl.patience import PATIENCE

__all__ = [
    "Rebooted",
    "Removed",
    "Up",
    "bring_up",
    "compose_document",
    "furnish",
    "image_name",
    "restart",
    "take_down",
]

_CONFIGURE_S = 30.0 * PATIENCE
_ROUNDS = 30
_SETTLED = 3
_PAUSE_S = 0.2


def image_name(release: Release = Release.FORKY) -> str:
    """Return the image that nodes of a release are made of: its id, or its name where there is none."""
    return complete(_image_or_name(release))


async def _image_or_name(release: Release = Release.FORKY) -> str:
    try:
        return await docker.image_id(image_names(release))
    except LabError:
        return image_names(release)[0]


async def _images(lab: Lab) -> dict[Release, str]:
    """Return the ids of the images that a lab needs; raises ``LabError`` when one, or Docker, is missing."""
    return {
        release: await docker.image_id(
            image_names(release), "" if release is Release.FORKY else docker.OLDER_IMAGES
        )
        for release in lab.releases
    }


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Up:
    """What ``bring_up`` did; ``created`` is false if the lab was up already, ``made`` are new credentials."""

    status: LabStatus
    created: bool
    made: tuple[Path, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Removed:
    """How many containers and networks ``take_down`` removed, and how long it took."""

    containers: int
    networks: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebooted:
    """What ``restart`` found when the node was there again, and the seconds from power cut to that."""

    status: NodeStatus
    seconds: float


async def bring_up(lab: Lab, *, recreate: bool = False, say: Callable[[str], None] = _silent) -> Up:
    """Bring a lab up: containers, links, addresses, charon in each gateway, a first packet on each link.

    A lab that is up, healthy and made from the same files stays as it is; anything else that is there is an
    error, unless ``recreate``. ``say`` hears of interruptions. Raises ``LabError``; after that, or when
    cancelled, nothing is left.
    """
    began = time.monotonic()
    with _alone(lab.name):
        images = await _images(lab)
        image, labels = images[Release.FORKY], _labels(lab, images)
        if not recreate and (standing := await _standing(lab, labels)):
            return Up(standing, False, (), time.monotonic() - began)
        made = make_missing(lab.topology)
        try:
            await _clear(lab.name, settled=1)
            subnets = choose_subnets(lab, await docker.subnets())
            await docker.compose_up(lab.name, document(lab, images, subnets, labels))
            nodes = await _furnish(lab, image, say)
        except BaseException as exc:
            if isinstance(exc, asyncio.CancelledError):
                say(f"interrupted: removing lab {lab.name}")
            await _clear(lab.name, settled=_SETTLED)
            await docker.machine_nft(lab.name, image, no_machine_rules(lab.name))
            raise
    return Up(LabStatus(lab.name, nodes), True, made, time.monotonic() - began)


async def compose_document(lab: Lab) -> dict[str, Any]:
    """Return a lab's Compose document, for those who run Compose themselves; ``furnish`` does the rest."""
    images = await _images(lab)
    subnets = choose_subnets(lab, await docker.subnets())
    return document(lab, images, subnets, _labels(lab, images))


async def furnish(lab: Lab, *, say: Callable[[str], None] = _silent) -> LabStatus:
    """Make containers that run, and that nothing was done to yet, the nodes of a lab; raises ``LabError``."""
    with _alone(lab.name):
        make_missing(lab.topology)
        return LabStatus(lab.name, await _furnish(lab, await docker.image_id(image_names()), say))


async def _furnish(lab: Lab, image: str, say: Callable[[str], None]) -> tuple[NodeStatus, ...]:
    """Make containers nodes, and have a first packet on each link."""
    await _prepare_machine(lab, image, say)
    nodes = await _configure_all(lab)
    await _check_all(lab)
    return nodes


async def _standing(lab: Lab, labels: Mapping[str, str]) -> LabStatus | None:
    """Return the status of a lab that is up and right, ``None`` if there is none; else raise ``LabError``."""
    there = await docker.containers(lab.name)
    if not there and not await docker.networks(lab.name):
        return None
    place = lab.name if lab.name in known() else Path(lab.file).parent.absolute()
    anew = f"ake it down (ipsecctl lab down {lab.name}), or make it anew: ipsecctl lab up {place} --recreate"
    remedy = f"T{anew}"
    if {c.node for c in there} != {n.name for n in lab.nodes}:
        raise LabError(f"lab {lab.name} is there, but not whole", remedy)
    if stopped := [container.node for container in there if not container.running]:
        what = f"lab {lab.name} is there, but not all of it runs: {', '.join(stopped)}"
        raise LabError(what, f"{_started(lab, stopped)}; or t{anew}")
    if any(container.digest != labels[LABEL_DIGEST] for container in there):
        raise LabError(f"lab {lab.name} is up, but {_changed(there, labels)} since", remedy)
    status = await look(lab.name)
    if not status.healthy:
        broken = ", ".join(node.name for node in status.nodes if not node.healthy)
        restart = _started(lab, [node.name for node in status.nodes if not node.healthy])
        raise LabError(f"lab {lab.name} is up, but not well: {broken}", f"{restart}; or t{anew}")
    return status


def _started(lab: Lab, nodes: Iterable[str]) -> str:
    """Return as a hint how nodes are started again, each with its links."""
    commands = ", ".join(f"ipsecctl lab reboot {lab.name} {node}" for node in nodes)
    return f"Start what has stopped: {commands}"


def _changed(there: Iterable[docker.Container], labels: Mapping[str, str]) -> str:
    """Say what of that which a lab was made from is no longer what it was; ``there`` are its containers."""
    wanted = {part: labels[label] for part, label in LABEL_PARTS.items()}
    made_from = [{"topology": c.topology, "lab file": c.lab_file, "image": c.image} for c in there]
    parts = [part for part, digest in wanted.items() if any(made[part] != digest for made in made_from)]
    if not parts:
        return "ipsecctl makes it otherwise"
    if all(not any(made.values()) for made in made_from):  # of a version that did not write it down
        return "its topology, lab file or image has changed"
    return f"its {' and its '.join(parts)} {'has' if len(parts) == 1 else 'have'} changed"


def _labels(lab: Lab, images: Mapping[Release, str]) -> dict[str, str]:
    """Return the labels that say what a lab is made from: as a whole, by parts, and where it lies.

    The whole decides whether it has changed (a comment in a file is no change), the parts say what it was.
    """
    file = Path(lab.file)
    files = sorted({name for node in lab.nodes for _, name in node.files})
    contents = {
        "topology": [Path(lab.topology.file).read_bytes()],
        "lab file": [file.read_bytes(), *((file.parent / name).read_bytes() for name in files)],
        "image": [f"{release} {images[release]}\n".encode() for release in lab.releases],
    }
    folder = os.path.abspath(file.parent)  # noqa: PTH100 - Path.absolute() leaves ".." in
    return {
        LABEL_DIGEST: _digest(lab, images),
        **{label: _short_digest(contents[part]) for part, label in LABEL_PARTS.items()},
        # docker ps prints labels as lines and columns.
        LABEL_FOLDER: folder if folder.isprintable() else "",
    }


def _short_digest(contents: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def _digest(lab: Lab, images: Mapping[Release, str]) -> str:
    """Return a digest of all that a lab is made from, the content of its files included, secrets not."""
    told = hashlib.sha256(json.dumps(document(lab, images, choose_subnets(lab, ()))).encode())
    for node in lab.nodes:
        told.update(configure(lab, node, defaultdict(str), {}).encode())
        for _, name in node.files:
            told.update((Path(lab.file).parent / name).read_bytes())
    return told.hexdigest()[:16]


async def _configure_all(lab: Lab) -> tuple[NodeStatus, ...]:
    """Make every container its node, side by side."""
    macs = await docker.macs([lab.container(node.name) for node in lab.nodes])
    work = [_configure(lab, node, macs[lab.container(node.name)]) for node in lab.nodes]
    return await side_by_side(f"lab {lab.name} could not be configured", "It was removed again.", work)


async def _configure(lab: Lab, node: Node, macs: Mapping[str, str], *, again: bool = False) -> NodeStatus:
    """Make a container that has just started its node; ``macs`` are by Docker network."""
    own = {i.link: macs[network_name(lab.name, i.link)] for i in node.interfaces}
    script = configure(lab, node, own, node_files(lab, node), again=again) + LOOK
    completed = await shell(
        lab.container(node.name), script, str(node.role), timeout_s=_CONFIGURE_S, privileged=True
    )
    _succeeded(node, completed)
    return node_status(node.name, str(node.role), completed)


async def _check_all(lab: Lab) -> None:
    """Have every node reach its next hops: the wires are there and nothing is in their way."""

    async def one(node: Node) -> None:
        _succeeded(node, await shell(lab.container(node.name), check(node), timeout_s=_CONFIGURE_S))

    hint = "Does this machine filter what its bridges carry? See 'Bridges and firewalls' in docs/labs.md."
    work = [one(node) for node in lab.nodes]
    await side_by_side(f"the links of lab {lab.name} do not carry packets", hint, work)


async def restart(lab: Lab, name: str) -> Rebooted:
    """Cut a node's power and start it again; its links are the same, and nothing is done to the other nodes.

    What was in its memory is gone: processes, interfaces, routes, firewall, SAs, ``/run``. Its files stay.
    Returns when the node has started; whether its tunnels come back is up to it. Raises ``LabError`` when it
    does not start, and leaves it as it is then.
    """
    began = time.monotonic()
    node = lab.node(name)
    container = lab.container(node.name)
    with _alone(lab.name):
        await docker.power_cut(container)
        await docker.power_on(container)
        macs = await docker.macs([container])
        status = await _configure(lab, node, macs[container], again=True)
    return Rebooted(status, time.monotonic() - began)


async def _prepare_machine(lab: Lab, image: str, say: Callable[[str], None]) -> None:
    completed = await docker.machine_nft(lab.name, image, machine_rules(lab))
    if completed.status:
        say(f"warning: this machine's own NAT may touch the lab's packets: {completed.error}")


def _succeeded(node: Node, completed: Completed) -> None:
    if completed.status:
        said = completed.stderr.decode("utf-8", "replace").strip() or f"exit status {completed.status}"
        raise LabError(f"{node.name}: " + said.replace("\n", "\n    "))


# ------------------------------------------------------------------------------------------------------- down


async def take_down(name: str) -> Removed:
    """Remove everything that carries a lab's label, whatever made it; raises ``LabError``."""
    began = time.monotonic()
    with _alone(name):
        containers, networks = await _clear(name, settled=1)
        if not containers and not networks:
            # Whoever removed those, without us, left the machine's rules. Without the image, nothing is run.
            await docker.machine_nft(name, await _image_or_name(), no_machine_rules(name))
    return Removed(containers, networks, time.monotonic() - began)


async def _clear(name: str, *, settled: int) -> tuple[int, int]:
    """Remove all of a lab until nothing was there ``settled`` times in a row; returns how many of each there
    were.

    Docker may still be carrying out what a client that was killed had asked for: hence more than one look.
    """
    seen_containers: set[str] = set()
    seen_networks: set[str] = set()
    empty = 0
    for _ in range(_ROUNDS):
        containers = [container.identity for container in await docker.containers(name)]
        networks = await docker.networks(name)
        empty = 0 if containers or networks else empty + 1
        if empty >= settled:
            return len(seen_containers), len(seen_networks)
        if empty:
            await asyncio.sleep(_PAUSE_S)
            continue
        seen_containers.update(containers)
        seen_networks.update(networks)
        await docker.remove_containers(containers)
        image = await _image_or_name()
        async with asyncio.TaskGroup() as group:
            group.create_task(docker.remove_networks(networks))
            group.create_task(docker.machine_nft(name, image, no_machine_rules(name)))
    hint = f"See what holds it: docker network ls --filter label=org.ipsecctl.lab={name}"
    raise LabError(f"lab {name} cannot be removed: Docker keeps some of it", hint)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Keep other processes of this machine from bringing the same lab of one engine up or down meanwhile.

    The lock is an abstract socket (unix(7)): it is gone with this process, however that ends, and leaves no
    file. Labs of one name on two Docker Engines (this machine's and a virtual one's) are two labs.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(f"\0ipsecctl-lab-{name}{docker.engine_mark()}")
        except OSError as exc:
            raise LabError(
                f"another ipsecctl is bringing lab {name} up or down", "Wait until it is done."
            ) from exc
        yield

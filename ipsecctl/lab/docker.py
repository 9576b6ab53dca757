"""What a lab asks of Docker, by its command line; a failure is a ``LabError`` that says how to mend it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from netaddr import IPNetwork

from ipsecctl.errors import LabError
from ipsecctl.gateway import process
from ipsecctl.gateway.handle import Completed
from ipsecctl.lab.compose import (
    LABEL,
    LABEL_DIGEST,
    LABEL_FOLDER,
    LABEL_LAB,
    LABEL_NODE,
    LABEL_PARTS,
    LABEL_ROLE,
    project_name,
)
from ipsecctl.patience import PATIENCE
from ipsecctl.resources import resource_dir

__all__ = [
    "OLDER_IMAGES",
    "Container",
    "compose_up",
    "containers",
    "engine_mark",
    "execute",
    "image_id",
    "machine_nft",
    "macs",
    "networks",
    "power_cut",
    "power_on",
    "remove_containers",
    "remove_networks",
    "subnets",
]

OLDER_IMAGES = "--releases"
"""What ``labs/setup`` has to be told to build the images of older releases."""

_QUICK_S = 20.0 * PATIENCE
_UP_S = 180.0 * PATIENCE
_PULL_CABLES = (
    "sh",
    "-c",
    # Stopped first: no process shall see its links go and do something about it.
    "kill -STOP -1; cd /sys/class/net && for link in *; do ip link set dev $link down || exit; done",
)
_PARALLEL = 8


@dataclass(frozen=True, order=True, slots=True)
class Container:
    """A container of a lab, running or not, by what its labels say; "" is what older ones do not say.

    ``topology``, ``lab_file`` and ``image`` are digests of these, ``folder`` is the lab's.
    """

    lab: str
    node: str
    role: str
    identity: str
    state: str
    digest: str
    topology: str = ""
    lab_file: str = ""
    image: str = ""
    folder: str = ""

    @property
    def running(self) -> bool:
        return self.state == "running"


async def _docker(argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = _QUICK_S) -> Completed:
    """Run docker and return what it said, whatever that is."""
    try:
        return await process.run(["docker", *argv], stdin, timeout_s=timeout_s)
    except TimeoutError:
        command = " ".join(argv[:2])
        raise LabError(
            f"'docker {command}' did not end within {timeout_s:.3g} s", "Is the machine very busy?"
        ) from None
    except OSError as exc:
        raise LabError("there is no Docker on this machine", _setup("It installs what is missing")) from exc


async def _ask(*argv: str) -> str:
    """Run docker; return its output, or raise what its failure means."""
    completed = await _docker(argv)
    if completed.status:
        raise _meaning(completed)
    return completed.stdout.decode()


def _setup(why: str, option: str = "") -> str:
    return " ".join([f"{why}: {resource_dir('labs') / 'setup'}", *option.split()])


def _meaning(failed: Completed) -> LabError:
    """Turn what docker complains about into words and a remedy."""
    said = failed.stderr.decode("utf-8", "replace")
    if "permission denied while trying to connect" in said:
        hint = "Use sudo, or add yourself to the group: sudo usermod -aG docker $USER, and log in again."
        return LabError("Docker Engine does not talk to you", hint)
    if "Cannot connect to the Docker daemon" in said or "error during connect" in said:
        if place := os.environ.get("DOCKER_HOST"):
            hint = "The environment variable DOCKER_HOST says where: is it right, and does Docker run there?"
            return LabError(f"Docker does not answer at {place}", hint)
        return LabError("Docker Engine is not running", _setup("It starts one"))
    if "is not a docker command" in said or "unknown shorthand flag" in said or "unknown flag" in said:
        return LabError("Docker has no Compose v2 here", _setup("It installs what is missing"))
    if "Pool overlaps" in said:
        return LabError("Docker gave the lab's address range to someone else meanwhile", "Try again.")
    return LabError(f"docker: {failed.error}")


# ---------------------------------------------------------------------------------------------- what is there


def engine_mark() -> str:
    """Return what tells the engine that our commands go to from others: "" for this machine's default one."""
    said = [os.environ.get(variable, "") for variable in ("DOCKER_HOST", "DOCKER_CONTEXT")]
    return f"@{hashlib.sha256(' '.join(said).encode()).hexdigest()[:12]}" if any(said) else ""


async def image_id(names: Sequence[str], option: str = "") -> str:
    """Return the id of a lab image by the first of its names that the engine knows.

    ``option`` is what ``labs/setup`` must be told to build it. Raises ``LabError`` when it, or Docker, is
    missing.
    """
    completed = await _docker(["image", "inspect", "--format", "{{.Id}}", *names])
    # Of several names docker prints those that it knows, in order, and complains about the others.
    if found := completed.stdout.decode().split():
        return found[0]
    if completed.status and "No such image" in completed.stderr.decode("utf-8", "replace"):
        raise LabError(f"the lab image {names[0]} is missing", _setup("It builds it", option))
    raise _meaning(completed)


async def containers(lab: str | None = None) -> tuple[Container, ...]:
    """Return the containers of one lab or of all, running or not, sorted by lab and node."""
    columns = [f'{{{{.Label "{label}"}}}}' for label in (LABEL_LAB, LABEL_NODE, LABEL_ROLE)]
    columns += ["{{.ID}}", "{{.State}}"]
    columns += [f'{{{{.Label "{label}"}}}}' for label in (LABEL_DIGEST, *LABEL_PARTS.values(), LABEL_FOLDER)]
    listing = await _ask("ps", "--all", "--no-trunc", *_filter(lab), "--format", "\t".join(columns))
    return tuple(sorted(Container(*line.split("\t")) for line in listing.splitlines()))


async def networks(lab: str | None = None) -> tuple[str, ...]:
    """Return the ids of the networks of one lab or of all."""
    return tuple((await _ask("network", "ls", "--quiet", *_filter(lab))).split())


async def subnets() -> tuple[IPNetwork, ...]:
    """Return the IPv4 subnets of all Docker networks of this machine."""
    identities = (await _ask("network", "ls", "--quiet", "--filter", "driver=bridge")).split()
    # One that goes while we look is no failure: docker tells of the others.
    form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    listing = await _docker(["network", "inspect", "--format", form, *identities])
    found = (IPNetwork(subnet) for subnet in listing.stdout.decode().split())
    return tuple(subnet for subnet in found if subnet.version == 4)


def _filter(lab: str | None) -> list[str]:
    return [
        "--filter",
        f"label={LABEL_LAB}={lab}" if lab else f"label={LABEL_LAB}",
        "--filter",
        f"label={LABEL}=lab",
    ]


async def macs(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, by container name and network name, the MAC address of the interface there."""
    described: list[dict[str, Any]] = json.loads(await _ask("inspect", "--type", "container", *names))
    return {
        container["Name"].removeprefix("/"): {
            network: end["MacAddress"] for network, end in container["NetworkSettings"]["Networks"].items()
        }
        for container in described
    }


# ----------------------------------------------------------------------------------------------- what is done


async def compose_up(lab: str, document: dict[str, Any]) -> None:
    """Create and start everything that a Compose document says; raises ``LabError``."""
    # No .env of the directory that one happens to be in.
    argv = ["compose", "--project-name", project_name(lab), "--env-file", "/dev/null", "--file", "-"]
    # In a Compose document "$" begins a variable.
    text = json.dumps(document).replace("$", "$$").encode()
    completed = await _docker([*argv, "up", "--detach", "--no-build"], text, timeout_s=_UP_S)
    if completed.status:
        raise _meaning(completed)


async def power_cut(container: str) -> None:
    """End all processes of a container at once, its first one included: its network is gone, its files stay.

    The links go before the processes: the kernel removes the network of a container that has ended when it
    comes to it, which took 17 s on a slow machine, and until then it goes on forwarding packets, through its
    SAs, too. One that does not run is no failure.
    """
    completed = await execute(container, _PULL_CABLES, b"", timeout_s=_QUICK_S, privileged=True)
    if completed.status and b"is not running" not in completed.stderr:
        raise _meaning(completed)
    completed = await _docker(["kill", "--signal", "KILL", container])
    if completed.status and b"is not running" not in completed.stderr:
        raise _meaning(completed)


async def power_on(container: str) -> None:
    """Start a container that does not run, with new interfaces on the links that it had."""
    await _ask("start", container)


async def machine_nft(lab: str, image: str, rules: str) -> Completed:
    """Have nft carry out rules on the machine itself; from a container, so that root is not needed."""
    labels = ["--label", f"{LABEL}=lab", "--label", f"{LABEL_LAB}={lab}"]
    rights = ["--network", "host", "--cap-add", "NET_ADMIN", "--security-opt", "apparmor=unconfined"]
    argv = ["run", "--rm", "-i", "--pull", "never", *labels, *rights, "--entrypoint", "nft", image, "-f", "-"]
    return await _docker(argv, rules.encode())


async def execute(
    container: str, argv: Sequence[str], stdin: bytes, *, timeout_s: float, privileged: bool
) -> Completed:
    """Run a command in a container; any exit status is an answer."""
    extra = ["--privileged"] if privileged else []
    return await _docker(["exec", "-i", *extra, container, *argv], stdin, timeout_s=timeout_s)


async def remove_containers(identities: Iterable[str]) -> None:
    """Kill and remove containers, some at a time; one that has gone meanwhile is no failure."""
    await _remove(["rm", "--force", "--volumes"], identities)


async def remove_networks(identities: Iterable[str]) -> None:
    """Remove networks, some at a time; one that has gone meanwhile is no failure."""
    await _remove(["network", "rm"], identities)


async def _remove(command: list[str], identities: Iterable[str]) -> None:
    limit = asyncio.Semaphore(_PARALLEL)

    async def one(identity: str) -> None:
        async with limit:
            await _docker([*command, identity])

    await asyncio.gather(*(one(identity) for identity in identities))

"""What Docker complains about becomes words and a remedy; a program that only complains stands in for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from ipsecctl.errors import LabError
from ipsecctl.lab import Release, control, docker, load
from ipsecctl.lab.compose import LABEL_DIGEST, LABEL_FOLDER, LABEL_PARTS
from ipsecctl.lab.control import bring_up, compose_document, take_down
from ipsecctl.lab.firewall import no_machine_rules
from ipsecctl.lab.image import content_hash, image_names
from ipsecctl.resources import resource_dir

OURS = f"test-{os.getpid()}"
"""No lab of this name is under way on this machine: only one process at a time may bring one up or down."""


@pytest.fixture
def complaining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def install(complaint: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{complaint}' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    return install


@pytest.mark.parametrize(
    ("complaint", "summary", "hint"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?",
            "Docker Engine is not running",
            "labs/setup",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket",
            "Docker Engine does not talk to you",
            "usermod",
        ),
        (
            'docker: "compose" is not a docker command',
            "Docker has no Compose v2",
            "labs/setup",
        ),
        (
            "Error response from daemon: Pool overlaps with other one on this address space",
            "Docker gave the lab's address range to someone else",
            "Try again",
        ),
        (
            "Error response from daemon: something else",
            "docker: Error response from daemon: something else",
            "",
        ),
    ],
)
def test_complaints(complaining, complaint: str, summary: str, hint: str) -> None:
    complaining(complaint)
    with pytest.raises(LabError) as caught:
        asyncio.run(docker.compose_up("t", {}))
    assert caught.value.summary.startswith(summary)
    assert hint in caught.value.hint


def test_without_the_image_labs_setup_is_named(complaining) -> None:
    complaining("Error response from daemon: No such image: ipsecctl-lab:latest")
    with pytest.raises(LabError, match=f"the lab image {image_names()[0]} is missing") as caught:
        asyncio.run(bring_up(load("clinic-dc").called(OURS)))
    assert caught.value.hint.endswith("labs/setup")


def test_without_an_older_image_labs_setup_is_told_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    missing = "Error response from daemon: No such image: ipsecctl-lab:bookworm"
    program.write_text(
        f"#!/bin/sh\ncase $* in *:bookworm*) echo '{missing}' >&2; exit 1; esac\necho sha256:1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(
        LabError, match=r"the lab image ipsecctl-lab:bookworm-[0-9a-f]{12} is missing"
    ) as caught:
        asyncio.run(bring_up(load("mixed-versions").called(OURS)))
    assert caught.value.hint.endswith("labs/setup --releases")


def test_without_docker_labs_setup_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="there is no Docker") as caught:
        asyncio.run(bring_up(load("clinic-dc").called(OURS)))
    assert caught.value.hint.endswith("labs/setup")


def test_down_takes_out_the_machines_rules_when_docker_has_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\n[ "$1" != run ] || cat >>{tmp_path}/rules\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    removed = asyncio.run(take_down(OURS))
    assert (removed.containers, removed.networks) == (0, 0)
    assert (tmp_path / "rules").read_text() == no_machine_rules(OURS)


# -------------------------------------------------------------------------------------------------- the image


def test_the_image_has_the_name_that_labs_setup_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPSECCTL_LAB_IMAGE", raising=False)
    said = subprocess.run(
        [resource_dir("labs") / "setup", "--image"], capture_output=True, text=True, check=True
    )
    assert image_names() == (said.stdout.strip(), "ipsecctl-lab:latest")
    older = said.stdout.strip().replace(":", ":trixie-")
    assert image_names(Release.TRIXIE) == (older, "ipsecctl-lab:trixie")
    monkeypatch.setenv("IPSECCTL_LAB_IMAGE", "mine:1")
    assert image_names() == ("mine:1",)


def test_an_image_of_other_content_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    before = content_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("x")
    assert content_hash(tmp_path) == before
    (tmp_path / "Dockerfile").write_text("FROM b\n")
    assert content_hash(tmp_path) != before


def test_one_lab_at_a_time_of_one_name_on_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/one.sock")
    with control._alone(OURS):
        with pytest.raises(LabError, match=f"another ipsecctl is bringing lab {OURS} up or down"):
            control._alone(OURS).__enter__()
        monkeypatch.setenv("DOCKER_HOST", "unix:///run/another.sock")
        with control._alone(OURS):
            pass


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An engine that has images and containers: a program that prints what is in its files."""
    program = tmp_path / "docker"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$*" in\n'
        f"    'image inspect'*) shift 4; for n; do sed -n \"s/^$n //p\" {tmp_path}/images; done ;;\n"
        f"    'ps '*) cat {tmp_path}/containers ;;\n"
        f"esac\n"
    )
    program.chmod(0o755)
    (tmp_path / "containers").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("IPSECCTL_LAB_IMAGE", raising=False)
    return tmp_path


def test_the_image_of_this_installation_goes_before_the_one_built_last(engine: Path) -> None:
    exact, latest = image_names()
    (engine / "images").write_text(f"{latest} sha256:others\n{exact} sha256:mine\n")
    assert asyncio.run(docker.image_id(image_names())) == "sha256:mine"
    (engine / "images").write_text(f"{latest} sha256:others\n")  # an engine that was given this name only
    assert asyncio.run(docker.image_id(image_names())) == "sha256:others"


# ------------------------------------------------------------------------------------------- what has changed


def own_lab(folder: Path) -> Path:
    """Write a lab of our own name, and its topology, into a folder."""
    lab = folder / OURS
    lab.mkdir()
    topology = (resource_dir("topologies") / "clinic-dc.yaml").read_text()
    (lab / "topology.yaml").write_text(topology)
    (lab / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\n")
    return lab


def lab_labels(lab: Path) -> dict[str, str]:
    made = asyncio.run(compose_document(load(str(lab))))
    return dict(made["services"]["internet"]["labels"])


def pretend_up(engine: Path, lab: Path, labels: dict[str, str]) -> None:
    """Have the engine list the containers of a lab with these labels."""
    columns = [labels.get(label, "") for label in (LABEL_DIGEST, *LABEL_PARTS.values(), LABEL_FOLDER)]
    rows = [(OURS, n.name, str(n.role), f"id-{n.name}", "running", *columns) for n in load(str(lab)).nodes]
    (engine / "containers").write_text("".join("\t".join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("topology.yaml",), "its topology has changed since"),
        (("lab.yaml",), "its lab file has changed since"),
        (("image",), "its image has changed since"),
        (("topology.yaml", "image"), "its topology and its image have changed since"),
    ],
)
def test_what_has_changed_since_is_said(engine: Path, changed: tuple[str, ...], said: str) -> None:
    lab = own_lab(engine)
    (engine / "images").write_text(f"{image_names()[0]} sha256:one\n")
    pretend_up(engine, lab, lab_labels(lab))
    if "topology.yaml" in changed:
        topology = lab / "topology.yaml"
        topology.write_text(topology.read_text().replace("198.51.100.10", "198.51.100.11"))
    if "lab.yaml" in changed:
        (lab / "lab.yaml").write_text("ipsecctl-lab: 1\ntopology: topology.yaml\nlinks: {dc: {mtu: 1400}}\n")
    if "image" in changed:
        (engine / "images").write_text(f"{image_names()[0]} sha256:two\n")
    with pytest.raises(LabError, match=f"lab {OURS} is up, but {said}"):
        asyncio.run(bring_up(load(str(lab))))


def test_a_lab_of_an_older_version_is_told_what_may_have_changed(engine: Path) -> None:
    lab = own_lab(engine)
    (engine / "images").write_text(f"{image_names()[0]} sha256:one\n")
    pretend_up(engine, lab, {LABEL_DIGEST: "0123456789abcdef"})
    with pytest.raises(LabError, match="its topology, lab file or image has changed since"):
        asyncio.run(bring_up(load(str(lab))))


def test_containers_say_which_folder_their_lab_is_in(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = own_lab(engine)
    (engine / "images").write_text(f"{image_names()[0]} sha256:one\n")
    monkeypatch.chdir(lab)
    labels = lab_labels(Path())
    assert labels[LABEL_FOLDER] == str(lab)
    pretend_up(engine, lab, labels)
    assert {c.folder for c in asyncio.run(docker.containers(OURS))} == {str(lab)}

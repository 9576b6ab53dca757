"""The names of the images that nodes are made of.

``labs/setup`` builds an image from ``labs/image`` and gives it two names: one made by the content of that
folder, and ``latest`` (or a release's), which is whoever's built last. Two installations on one machine that
differ in that folder would each take the other's image for a change of its own: so the first name counts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ipsecctl.lab.wiring import Release
from ipsecctl.resources import resource_dir

__all__ = ["IMAGE", "content_hash", "image_names"]

IMAGE = "ipsecctl-lab:latest"
"""The image built last on this machine; ``IPSECCTL_LAB_IMAGE`` names another one for all that is forky's."""

_DIGITS = 12


def image_names(release: Release = Release.FORKY) -> tuple[str, ...]:
    """Return the names of the image for nodes of a release, the one to be preferred first.

    That is the one made by content, where this installation has ``labs/image``. The other is for engines
    that were given the image under that name only.
    """
    if release is Release.FORKY and (chosen := os.environ.get("IPSECCTL_LAB_IMAGE")):
        return (chosen,)
    repository = IMAGE.partition(":")[0]
    latest = IMAGE if release is Release.FORKY else f"{repository}:{release}"
    folder = resource_dir("labs") / "image"
    if not folder.is_dir():
        return (latest,)
    digits = content_hash(folder)
    exact = digits if release is Release.FORKY else f"{release}-{digits}"
    return (f"{repository}:{exact}", latest)


def content_hash(folder: Path) -> str:
    """Return what stands for the content of ``labs/image``: the same as ``image_hash`` in ``labs/setup``."""
    files = {
        f"./{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    }
    listing = "".join(
        f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(files, key=os.fsencode)
    )
    return hashlib.sha256(listing.encode()).hexdigest()[:_DIGITS]

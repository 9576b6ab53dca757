"""Where the data beside the code lies: ``templates/``, ``topologies/`` and ``labs/``.

A wheel carries them in ``ipsecctl/_data``; a checkout and an editable install have them beside the package.
"""

from pathlib import Path

__all__ = ["lab_place", "resource_dir"]

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Return the directory ``templates``, ``topologies`` or ``labs`` of this installation.

    Raises ``FileNotFoundError`` when the installation is damaged.
    """
    for parent in (_PACKAGE / "_data", _PACKAGE.parent):
        path = parent / name
        if path.is_dir():
            return path
    raise FileNotFoundError(f"{name}/ is missing from this installation of ipsecctl")


def lab_place(name: str, *, near: str = "") -> str:
    """Return what ``ipsecctl lab up`` must be told to bring the lab ``name`` up.

    Its name for one of this installation; for one of somebody's own the path of its folder, looked for around
    the topology file ``near`` and in the present folder. Where it is in neither, words for it.
    """
    here, installed = Path(near).absolute().parent, resource_dir("labs")
    own = (here if here.name == name else here / name, here.parent / "labs" / name, Path.cwd() / name)
    for folder in own:
        if (folder / "lab.yaml").is_file() and folder.parent != installed:
            return str(folder)
    if (installed / name / "lab.yaml").is_file():
        return name
    return f"PATH (that of the folder of lab {name})"

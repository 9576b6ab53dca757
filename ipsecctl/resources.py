"""Where the data beside the code lies: ``templates/``, ``topologies/`` and ``labs/``.

A wheel carries them in ``ipsecctl/_data``; a checkout and an editable install have them beside the package.
"""

from pathlib import Path

__all__ = ["resource_dir"]

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

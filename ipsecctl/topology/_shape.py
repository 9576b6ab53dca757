"""The shape of a group of tunnels: a pair, a hub with spokes, or a mesh, and exactly one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ipsecctl.topology._findings import Findings
from ipsecctl.topology.document import TunnelDoc
from ipsecctl.topology.model import Path

__all__ = ["check_shape"]

_SHAPES: Final = ("between", "hub", "mesh")
_PAIR_KEYS: Final = ("if_id", "addresses", "routes")


def check_shape(name: str, doc: TunnelDoc, findings: Findings) -> tuple[bool, bool]:
    """Report a group that is not exactly one of the three.

    Returns whether all its ends are known, and whether all its sites are. Ends that had to be left out, as
    they were wrong, are no second mistake.
    """
    path: Path = ("tunnels", name)
    lost: set[str] = {key for key in (*_SHAPES, "spokes") if findings.damaged((*path, key))}
    said: set[str] = {
        key for key in (*_SHAPES, *_PAIR_KEYS, "spokes", "initiator") if key in doc.model_fields_set
    }
    faults = list(_faults(doc, said, lost))
    for summary, hint, at in faults:
        findings.error("IP018", (*path, at) if at else path, summary, hint, key=True)
    sites_missing = not (said & {*_SHAPES, "spokes"}) or ("hub" in said) != ("spokes" in said)
    return not lost and not faults, not lost and not sites_missing


def _faults(doc: TunnelDoc, said: set[str], lost: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong, how to mend it, and the key at which it stands."""
    shapes: list[str] = [key for key in _SHAPES if key in said]
    if "spokes" in said and "hub" not in said | lost:
        if shapes:
            shapes.insert(0, "spokes")
        else:
            yield "'spokes' without 'hub'", "add 'hub: SITE'", "spokes"
    elif not shapes and not lost:
        yield "a tunnel without ends", "give 'between', 'hub' and 'spokes', or 'mesh'", ""
    if shapes == ["hub"] and "spokes" not in said | lost:
        yield "'hub' without 'spokes'", "add 'spokes: [SITE, ...]'", "hub"
    if len(shapes) > 1:
        hint = "keep one of them; make another tunnel of the rest"
        yield f"'{shapes[0]}' and '{shapes[1]}' exclude each other", hint, shapes[1]
    if "between" in said - lost and len(doc.between) != 2:
        summary = f"a pair has two ends, 'between' has {len(doc.between)}"
        yield summary, "use 'mesh' or 'hub' for more", "between"
    if "initiator" in said and shapes and shapes != ["between"]:
        hint = "remove it: a spoke calls its hub unless only the hub can call"
        yield "'initiator' is for a pair ('between') only", hint, "initiator"
    for key in _PAIR_KEYS:
        # A word for the routes holds for every tunnel of a group.
        if key in said and shapes and shapes != ["between"] and not isinstance(getattr(doc, key), str):
            hint = "remove it, or make a pair of each tunnel that needs its own"
            yield f"'{key}' is for a pair ('between') only", hint, key

"""Two tunnels between the same two gateways: charon could not tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ipsecctl.topology._findings import Findings
from ipsecctl.topology._tunnels import Draft, Group
from ipsecctl.topology.model import Path

__all__ = ["check_twins"]


def check_twins(groups: Iterable[Group], findings: Findings) -> None:
    """Report groups that join two gateways which another group joins already.

    The end that is called knows its peer by addresses and identities only and takes the first connection that
    fits them: the CHILD_SAs of the second tunnel are refused there (RFC 7296 section 2.9, TS_UNACCEPTABLE).
    """
    first: dict[frozenset[Path], tuple[Group, Draft]] = {}
    for group in groups:
        for draft in group.drafts:
            if draft.guessed:
                continue
            gateways = frozenset((draft.left.gateway.where, draft.right.gateway.where))
            other, twin = first.setdefault(gateways, (group, draft))
            if twin is not draft and findings.first("twins", other.name, group.name):
                line = findings.line(twin.where)
                summary = (
                    f"the tunnels {twin.name!r} (line {line}) and {draft.name!r} join the same two gateways: "
                    "charon would take the second for the first"
                )
                findings.error("IP143", draft.where, summary, _hint((other, twin), (group, draft)))


def _hint(one: tuple[Group, Draft], other: tuple[Group, Draft]) -> str:
    """Say how one tunnel is made of two: of the group that joins more gateways, or else of the first one."""
    (kept, stays), (_, goes) = sorted((one, other), key=lambda each: len(each[0].drafts), reverse=True)
    if not kept.doc.flows:
        return f"leave out {goes.name!r}: {stays.name!r} carries everything between their networks"
    flows = ", ".join((_some(stays), _some(goes)))
    return f"make one of them, with the flows of both: '{kept.name}: {{{_ends(kept)}, flows: [{flows}]}}'"


def _ends(group: Group) -> str:
    doc = group.doc
    if doc.hub:
        hub = doc.hub[0] if len(doc.hub) == 1 else _listed(doc.hub)
        return f"hub: {hub}, spokes: {_listed(doc.spokes)}"
    return f"between: {_listed(doc.between)}" if doc.between else f"mesh: {_listed(doc.mesh)}"


def _listed(names: Sequence[str]) -> str:
    shown = [f'"{name}"' if "*" in name or "?" in name else name for name in names]
    return f"[{', '.join(shown)}]" if len(shown) <= 3 else f"[{', '.join(shown[:2])}, ...]"


def _some(draft: Draft) -> str:
    """Return the first flow of a tunnel as it could stand in the file, ``...`` for what it says besides."""
    if not draft.flows:
        return "..."
    flow = draft.flows[0]
    ends = [
        f"{draft.left.gateway.site}.{flow.left[0].network}",
        f"{draft.right.gateway.site}.{flow.right[0].network}",
    ]
    source, target = reversed(ends) if flow.left_ports else ends
    more = ", ..." if flow.protocol is not None else ""
    return f"{{from: {source}, to: {target}{more}}}"

"""How a tunnel gets from one configuration to the next without losing a packet: pure, two messages in.

charon's running SAs keep the configuration that they came up with, whatever is loaded later, and hand it on
to those that replace them in a rekey (``child_cfg_t.equals`` and ``peer_cfg_t.equals`` of strongSwan say what
counts as another one: every field). So each field that differs is a reason to make the SAs anew. Where new
ones can stand beside the old ones:

1. widen: the end that is called accepts the old and the new configuration;
2. move: the end that calls loads the new one and makes new SAs with it, and only then ends the old ones;
3. narrow: the end that is called loads the new one, which no longer accepts the old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from ipsecctl.plan.change import Disruption
from ipsecctl.plan.connections import differing_keys

__all__ = ["End", "Move", "Step", "Way", "disruption", "loses_routes", "move_of", "way", "widened"]

Message = Mapping[str, Any]

# Two IKE_SAs that differ in these cannot stand behind one connection of the far end.
_IKE_BREAKS = frozenset(("version", "local_addrs", "remote_addrs"))
_AUTH_BREAKS = frozenset(("auth", "id"))
# The kernel has one policy for two networks: two CHILD_SAs that differ in these would fight for it.
_CHILD_BREAKS = frozenset(
    (
        "mode",
        "ah_proposals",
        "if_id_in",
        "if_id_out",
        "mark_in",
        "mark_out",
        "hw_offload",
        "per_cpu_sas",
    )
)


class Way(IntEnum):
    """How the SAs of a connection get to its new configuration, the gentlest first.

    ``CHILD``: new CHILD_SAs beside the old ones in the same IKE_SA. ``IKE``: a new IKE_SA beside the old one.
    ``BREAK_CHILD`` and ``BREAK_IKE``: the old ones must go first.
    """

    NONE = 0
    CHILD = 1
    IKE = 2
    BREAK_CHILD = 3
    BREAK_IKE = 4

    @property
    def breaks(self) -> bool:
        return self >= Way.BREAK_CHILD


class Step(StrEnum):
    """One thing to do to the SAs of a tunnel: authenticate them anew, have charon initiate, or have it rekey
    the new ones for their routes."""

    REAUTH = "reauth"
    INITIATE = "initiate"
    REROUTE = "reroute"


@dataclass(frozen=True, slots=True)
class End:
    """A connection at one of our gateways: as its running SAs hold it, and as it is to be.

    ``new_key`` says that its pre-shared key is another one; ``unsure`` that nobody knows which configuration
    its SAs have, as after an apply that was cut off: charon is asked, by initiating, and makes none where
    they have the right one.
    """

    old: Message
    new: Message
    new_key: bool = False
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """How a tunnel's SAs are moved: the steps in their order, and what they are about.

    ``initiate`` are the children that get new CHILD_SAs, ``end`` those that are no longer declared.
    """

    steps: tuple[Step, ...]
    initiate: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


def way(old: Message, new: Message) -> Way:
    """Return how the SAs that hold ``old`` get to ``new``, as far as this end is concerned."""
    ike = differing_keys(_without_children(old), _without_children(new))
    if ike & _IKE_BREAKS or any(_breaks_authentication(old, new, side) for side in ("local", "remote")):
        return Way.BREAK_IKE
    ways = [Way.IKE if ike else Way.NONE]
    if not ike and _renamed(old, new):
        ways.append(Way.BREAK_CHILD)
    new_children = new.get("children", {})
    for name, child in old.get("children", {}).items():
        if name not in new_children:
            ways.append(Way.CHILD)
            continue
        keys = differing_keys(child, new_children[name])
        # charon itself ends and starts again such a child when its connection is replaced.
        starts = "start" in (child.get("start_action"), new_children[name].get("start_action"))
        if keys & _CHILD_BREAKS or (starts and (keys or ike)):
            ways.append(Way.BREAK_CHILD)
        elif keys:
            ways.append(Way.CHILD)
    return max(ways)


def loses_routes(old: Message, new: Message) -> bool:
    """Whether kernel-libipsec takes routes away with the old SAs that the new ones need.

    A policy sets the route to its far network unless that is there, and takes it away if it has set it: the
    route goes with the policy of before. Another SA with the policy of now, as after a rekey, sets it again.
    """
    gone = _selectors(old) - _selectors(new)
    far = {remote.partition("[")[0] for _, remote in _selectors(new)}
    return any(remote.partition("[")[0] in far for _, remote in gone)


def _selectors(message: Message) -> set[tuple[str, str]]:
    return {
        (str(local), str(remote))
        for child in message.get("children", {}).values()
        for local in child.get("local_ts", ())
        for remote in child.get("remote_ts", ())
    }


def _renamed(old: Message, new: Message) -> bool:
    """Whether a child differs from one that is gone in its name alone: charon makes no SA beside that then
    ("existing duplicate")."""
    before, now = old.get("children", {}), new.get("children", {})
    gone, come = before.keys() - now.keys(), now.keys() - before.keys()
    return any(not differing_keys(before[one], now[other]) for one in gone for other in come)


def _breaks_authentication(old: Message, new: Message, side: str) -> bool:
    return bool(differing_keys(old.get(side, {}), new.get(side, {})) & _AUTH_BREAKS)


def disruption(old: Message, new: Message, *, new_key: bool = False, callable_: bool = True) -> Disruption:
    """Return what a new configuration, or pre-shared key, does to the SAs that run with the old one.

    ``callable_`` is false where only a far end that is not ours can bring the tunnel up: then its SAs can
    only be ended, for the far end to call again.
    """
    found = way(old, new)
    if found is Way.BREAK_CHILD:
        return Disruption.CHILD_RESTART
    if found is Way.NONE and not new_key:
        return Disruption.NONE
    return Disruption.REKEY if callable_ and found is not Way.BREAK_IKE else Disruption.IKE_RESTART


def widened(old: Message, new: Message) -> dict[str, Any]:
    """Return a connection that accepts what either of two does, for the end that is called.

    The new one comes first wherever there is an order: of children that match, charon takes the first. All
    that is not negotiated is as in the new one. A child that is only in one of them is there as it is.
    """
    before = old.get("children", {})
    children = {
        name: _union(before.get(name, {}), child, ("esp_proposals", "local_ts", "remote_ts"))
        for name, child in new.get("children", {}).items()
    }
    children |= {name: child for name, child in before.items() if name not in children}
    wide = _union(old, new, ("proposals",))
    if "cacerts" in old.get("remote", {}) and "cacerts" in new.get("remote", {}):
        wide["remote"] = _union(old["remote"], new["remote"], ("cacerts",))
    return {**wide, "children": children}


def _union(old: Message, new: Message, lists: Iterable[str]) -> dict[str, Any]:
    def both(key: str) -> list[Any]:
        found = list(new[key])
        return found + [value for value in map(_blob, old.get(key, ())) if value not in found]

    return {**new, **{key: both(key) for key in lists if key in new}}


def _blob(value: Any) -> Any:
    """Return a value as VICI wants it: a record holds bytes as a mapping."""
    return bytes.fromhex(value["bytes"]) if isinstance(value, Mapping) and set(value) == {"bytes"} else value


def move_of(calls: End, called: End | None) -> Move | None:
    """Return how the SAs of a tunnel move, ``None`` when they have to be broken; no steps: nothing to move.

    ``calls`` is the end that makes the new SAs, ``called`` the other one where it is ours. What only the
    called end has otherwise is no reason for charon at the calling end to make a new SA ("existing
    duplicate"), but an IKE_SA that is authenticated anew is made from the far end's new configuration, too.
    Its children are made from the old one, so CHILD_SAs are made anew after that.
    """
    ends = (calls,) if called is None else (calls, called)
    ways = [way(end.old, end.new) for end in ends]
    if any(found.breaks for found in ways):
        return None
    declared = calls.new.get("children", {})
    gone = tuple(sorted(calls.old.get("children", {}).keys() - declared.keys()))
    differ = _children_differ(calls)
    there = set() if called is None else _children_differ(called)
    everything = ways[0] is Way.IKE or any(end.unsure for end in ends)
    anew = {*declared} if everything else differ
    again = any(end.new_key for end in ends) or ways[-1] is Way.IKE or bool(there - differ)
    steps = [Step.REAUTH] if again and ways[0] is not Way.IKE else []
    if anew or gone:
        steps.append(Step.INITIATE)
        anew |= (
            declared.keys() - calls.old.get("children", {}).keys()
        )  # before what they may take the place of
    return Move(tuple(steps), tuple(sorted(anew)), gone)


def _children_differ(end: End) -> set[str]:
    """Return the children that are at both times declared, and differently."""
    old, new = end.old.get("children", {}), end.new.get("children", {})
    return {name for name in old.keys() & new.keys() if differing_keys(old[name], new[name])}


def _without_children(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "children"}

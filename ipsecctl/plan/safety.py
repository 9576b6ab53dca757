"""The safety stop: a plan that removes or disturbs more than its limit is not carried out unless allowed.

Tunnels are counted by name over all gateways: those that were applied there before are the estate, so a first
apply is never stopped. Above the limit are more tunnels than ``LIMIT`` says, and more than one, so that one
tunnel of a small estate can be worked on; but the last tunnel of a site, or the last connection of a gateway,
is not removed without being allowed, however large the estate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ipsecctl.errors import IpsecctlError
from ipsecctl.plan.change import Disruption, GatewayPlan, Kind, Part

__all__ = ["LIMIT", "Limit", "Safety", "Standing", "Stop", "StopKind", "parse_limit", "stops"]

_VARIABLE: Final = "IPSECCTL_SAFETY_LIMIT"
_NAMED: Final = 5
_ANY: Final = frozenset(("%any", "%any4", "%any6", "0.0.0.0/0", "::/0"))


@dataclass(frozen=True, slots=True)
class Limit:
    """How many tunnels of the estate, in percent or (``of_all`` false) as a number, may be concerned."""

    value: int
    of_all: bool = True

    def exceeded(self, count: int, estate: int) -> bool:
        """Whether ``count`` tunnels of so many are more than one and more than the limit."""
        return count > 1 and (100 * count > self.value * estate if self.of_all else count > self.value)

    def __str__(self) -> str:
        return f"{self.value} %" if self.of_all else f"{self.value} tunnel{'' if self.value == 1 else 's'}"


LIMIT: Final = Limit(10)


def parse_limit(environment: Mapping[str, str]) -> Limit:
    """Return the limit that an environment has: ``10%`` (as without any), or a number of tunnels as ``5``.

    Raises ``IpsecctlError`` when it is neither.
    """
    text = environment.get(_VARIABLE, "").strip()
    if not text:
        return LIMIT
    match = re.fullmatch(r"([0-9]{1,6})\s*(%?)", text)
    if match is None or (match[2] and int(match[1]) > 100):
        raise IpsecctlError(
            f"{_VARIABLE} is '{text}'",
            "It is the share of tunnels that may be removed, or disturbed, without --allow, as in 10%; or "
            "their number, as in 5.",
        )
    return Limit(int(match[1]), of_all=bool(match[2]))


class StopKind(StrEnum):
    """What a plan has too much of; ``LAST`` is the last tunnel of a site or connection of a gateway."""

    REMOVE = "remove"
    DISTURB = "disturb"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Safety:
    """What holds for one plan: its limit, and what was allowed (``remove``, ``disturb``, tunnels' names)."""

    limit: Limit = LIMIT
    allowed: frozenset[str] = frozenset()


@dataclass(frozen=True, order=True, slots=True)
class Stop:
    """Why a plan is not carried out, the tunnels that it is about, and the options that would allow it."""

    kind: StopKind
    tunnels: tuple[str, ...]
    summary: str
    allow: tuple[str, ...]

    @property
    def hint(self) -> str:
        return f"If that is meant, say: {self.words}"

    @property
    def words(self) -> str:
        """The options that allow it, as they are typed."""
        return " ".join(f"--allow {word}" for word in self.allow)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind),
            "tunnels": list(self.tunnels),
            "summary": self.summary,
            "allow": list(self.allow),
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """A gateway before and after a plan: its connections by name, as load-conn messages.

    ``before`` are those that were applied, ``dead`` of them those that carry nothing as it is.
    """

    gateway: str
    site: str
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dead: frozenset[str] = frozenset()


def stops(standings: Iterable[Standing], plans: Iterable[GatewayPlan], safety: Safety) -> tuple[Stop, ...]:
    """Return what keeps plans from being carried out, sorted; nothing when all is within the limits.

    ``standings`` are of the gateways that have a plan.
    """
    standings, plans = tuple(standings), tuple(plans)
    estate = {name for standing in standings for name in standing.before}
    removed = _removed(plans)
    gone = {name for names in removed.values() for name in names} & estate
    disturbed = _disturbed(standings, plans) & estate - gone
    free = safety.allowed
    found: list[Stop] = []
    if StopKind.REMOVE not in free:
        found += _too_many(StopKind.REMOVE, gone - free, estate, safety.limit)
        found += _last(standings, removed, free)
    if StopKind.DISTURB not in free:
        found += _too_many(StopKind.DISTURB, disturbed - free, estate, safety.limit)
    return tuple(sorted(found))


def _removed(plans: Iterable[GatewayPlan]) -> dict[str, frozenset[str]]:
    """Return by gateway the connections that go."""
    return {
        plan.gateway: frozenset(change.name for change in plan.of(Part.CONNECTION, Kind.REMOVE))
        for plan in plans
    }


def _disturbed(standings: Iterable[Standing], plans: Iterable[GatewayPlan]) -> set[str]:
    """Return the tunnels whose traffic stops for a moment, but for those that carry none as it is."""
    dead = {name for standing in standings for name in standing.dead}
    grades = ((name, grade) for plan in plans for name, grade in plan.disturbed.items())
    return {name for name, grade in grades if grade >= Disruption.CHILD_RESTART} - dead


def _too_many(
    kind: StopKind, names: Collection[str], estate: Collection[str], limit: Limit
) -> Iterator[Stop]:
    if limit.exceeded(len(names), len(estate)):
        does = "removes" if kind is StopKind.REMOVE else "disturbs"
        share = round(100 * len(names) / len(estate))
        count = f"{len(names)} of {len(estate)} tunnels ({share} %)"
        summary = f"it {does} {count}, and the limit is {limit}: {_listed(names)}"
        yield Stop(kind, tuple(sorted(names)), summary, (str(kind),))


def _last(
    standings: tuple[Standing, ...], removed: Mapping[str, frozenset[str]], free: Collection[str]
) -> Iterator[Stop]:
    """Yield what would be left without any tunnel: sites, gateways, and far ends that are not ours."""
    sites: dict[str, list[Standing]] = {}
    for standing in standings:
        sites.setdefault(standing.site, []).append(standing)
    for site, members in sites.items():
        bare = [member for member in members if _is_stripped(member, removed)]
        others = [member for member in members if member not in bare]
        if bare and not any(member.before or member.after for member in others):
            yield from _stop_last(f"of the site {site}", bare, free)
        else:
            for member in bare:
                yield from _stop_last(f"of the gateway {member.gateway}", [member], free)
    yield from _last_of_far_ends(standings, removed, free)


def _is_stripped(standing: Standing, removed: Mapping[str, frozenset[str]]) -> bool:
    goes = removed.get(standing.gateway, frozenset())
    return bool(standing.before) and not standing.after and standing.before.keys() <= goes


def _stop_last(whose: str, members: Iterable[Standing], free: Collection[str]) -> Iterator[Stop]:
    names = {name for member in members for name in member.before}
    if not names <= set(free):
        what = "the last tunnel" if len(names) == 1 else f"all {len(names)} tunnels"
        yield Stop(
            StopKind.LAST,
            tuple(sorted(names)),
            f"it removes {what} {whose}: {_listed(names)}",
            tuple(sorted(names - set(free))) if len(names) <= _NAMED else (str(StopKind.REMOVE),),
        )


def _last_of_far_ends(
    standings: tuple[Standing, ...], removed: Mapping[str, frozenset[str]], free: Collection[str]
) -> Iterator[Stop]:
    """Yield the removed tunnels to ends that have no plan, if no other tunnel leads to the same."""
    ends = {(standing.gateway, name) for standing in standings for name in standing.before}
    kept = {mark for standing in standings for message in standing.after.values() for mark in _marks(message)}
    for standing in standings:
        for name in sorted(removed.get(standing.gateway, frozenset()) & standing.before.keys() - set(free)):
            marks = _marks(standing.before[name])
            both = any((other.gateway, name) in ends for other in standings if other is not standing)
            if marks and not both and not marks & kept:
                far_end = _far_end(standing.before[name])
                summary = f"it removes the last tunnel from {standing.gateway} to {far_end}: {name}"
                yield Stop(StopKind.LAST, (name,), summary, (name,))


def _marks(message: Mapping[str, Any]) -> frozenset[str]:
    """Return what tells the far end of a connection: its identity and addresses."""
    identity = message.get("remote", {}).get("id", "")
    return frozenset((identity, *message.get("remote_addrs", ()))) - _ANY - {""}


def _far_end(message: Mapping[str, Any]) -> str:
    return str(message.get("remote", {}).get("id") or ", ".join(message.get("remote_addrs", ())))


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

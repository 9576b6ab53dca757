"""SAs that run with another configuration than their connection has: charon keeps the old one for ever.

charon gives an SA the configuration that was loaded when it came up, and rekeys hand that on. What shows at
the SA itself is compared: algorithms, selectors, if_ids, and lifetimes, by when it will be rekeyed and end.
DPD, actions and identities cannot be seen of an SA (``list-sas``); for these the record of the last apply
says whether the SA was made anew since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from ipsecctl.crypto import parse_esp_proposal, parse_ike_proposal
from ipsecctl.desired import Child, Connection, GatewayState
from ipsecctl.health.sa import ChildSa, IkeSa, parse_list_sas
from ipsecctl.health.traffic import Traffic, departures, ike_departures

__all__ = ["outdated"]

_ROUNDING_S: Final = 2
"""charon cuts each of the times that it tells, ages and what is left, to whole seconds."""
_LATE_S: Final = 5
_LATE: Final = 0.02
"""By how much the times of an SA may be off, in seconds and as a part of what is declared: charon counts a
lifetime from the SA that it installs first and the age from the other one, which during a rekey comes with
the far end's answer (``install_internal`` in child_sa.c)."""


def outdated(
    state: GatewayState, sas: Iterable[Mapping[str, Any]], narrowing: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Return by connection in what its running SAs are not as the gateway's state has it.

    ``sas`` are ``list-sa`` messages with values of ``str``. At the tunnels in ``narrowing`` the far end is
    somebody else's: it may narrow selectors (RFC 7296 section 2.9), which is no older configuration.
    """
    connections = {connection.name: connection for connection in state.connections}
    found: dict[str, dict[str, None]] = {}
    for sa in parse_list_sas(sas):
        connection = connections.get(sa.name)
        if connection is not None and sa.established:
            found.setdefault(sa.name, {}).update(
                dict.fromkeys(_departures(connection, sa, narrows=sa.name in narrowing))
            )
    return {name: tuple(causes) for name, causes in found.items() if causes}


def _departures(connection: Connection, sa: IkeSa, *, narrows: bool) -> Iterator[str]:
    for cause in ike_departures(tuple(map(parse_ike_proposal, connection.ike_proposals)), sa):
        yield f"its IKE_SA: {cause}"
    if connection.ppk_required and not sa.ppk:
        yield "its IKE_SA: no PPK was mixed in"
    if late := _other_rekeying(sa.age_s, sa.rekey_in_s, connection.rekey_time_s, connection.rand_time_s):
        yield f"its IKE_SA: {late}"
    children = {child.name: child for child in connection.children}
    several = len(children) > 1
    for running in sa.children:
        prefix = f"its CHILD_SA {running.name}" if several else "its CHILD_SA"
        if not running.carries:
            continue
        if running.name not in children:
            yield f"{prefix}: no such child is declared any more"
            continue
        for cause in _child_departures(children[running.name], running, narrows=narrows):
            yield f"{prefix}: {cause}"


def _child_departures(child: Child, sa: ChildSa, *, narrows: bool) -> Iterator[str]:
    declared = Traffic(
        tuple(map(str, child.local_ts)),
        tuple(map(str, child.remote_ts)),
        tuple(map(parse_esp_proposal, child.esp_proposals)),
    )
    yield from departures(declared, sa, narrowing=narrows)
    if any(number != child.if_id for number in sa.if_ids):
        has = " and ".join(f"{number:#x}" if number else "none" for number in dict.fromkeys(sa.if_ids))
        yield f"its if_id is {has}, declared is {f'{child.if_id:#x}' if child.if_id else 'none'}"
    if sa.age_s is None:
        return
    life_s = None if sa.life_in_s is None else sa.age_s + sa.life_in_s
    if (
        life_s is not None
        and child.life_time_s
        and abs(life_s - child.life_time_s) > _slack_s(child.life_time_s)
    ):
        yield f"it lives for {_near(life_s, child.life_time_s)} s, declared is {child.life_time_s} s"
    elif late := _other_rekeying(sa.age_s, sa.rekey_in_s, child.rekey_time_s, child.rand_time_s):
        yield late


def _other_rekeying(age_s: int | None, left_s: int | None, declared_s: int, rand_s: int) -> str:
    """Return that an SA is rekeyed at another time than declared: that, or up to ``rand_s`` earlier."""
    if age_s is None or left_s is None or not declared_s:
        return ""
    total_s = age_s + left_s
    slack_s = _slack_s(declared_s)
    if declared_s - rand_s - slack_s <= total_s <= declared_s + slack_s:
        return ""
    window = f"{declared_s - rand_s} to {declared_s} s" if rand_s else f"{declared_s} s"
    return f"it is rekeyed at an age of {total_s} s, declared is {window}"


def _slack_s(declared_s: int) -> float:
    return max(_LATE_S, _LATE * declared_s)


def _near(seconds: int, declared_s: int) -> str:
    """Return a time as text; rounded to the ten where that is what somebody will have written."""
    tens = round(seconds, -1)
    return str(tens if abs(tens - seconds) <= _ROUNDING_S and tens != declared_s else seconds)

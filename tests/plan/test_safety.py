"""The safety stop: what is counted, what is never removed without being allowed, and what lets it pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import IpsecctlError
from ipsecctl.plan import (
    Change,
    Disruption,
    GatewayPlan,
    Kind,
    Limit,
    Part,
    Safety,
    Standing,
    parse_limit,
    stops,
)

HUB = "hub"


def message(far: str) -> dict:
    return {"remote": {"id": far}, "remote_addrs": [f"{far}.example"]}


def tunnels(count: int) -> dict[str, dict]:
    """Return the connections of a hub to so many sites."""
    return {f"t{n}": message(f"site{n}") for n in range(count)}


def removal(name: str, gateway: str = HUB) -> Change:
    return Change(gateway, Part.CONNECTION, name, Kind.REMOVE, disruption=Disruption.IKE_RESTART)


def disturbance(name: str, grade: Disruption = Disruption.CHILD_RESTART, gateway: str = HUB) -> Change:
    return Change(gateway, Part.CONNECTION, name, Kind.CHANGE, disruption=grade)


def found(standings, changes, *allowed, limit: Limit | None = None):
    """Return the stops as (kind, allow, summary)."""
    plans = [GatewayPlan(s.gateway, tuple(c for c in changes if c.gateway == s.gateway)) for s in standings]
    safety = Safety(limit or Limit(10), frozenset(allowed))
    return [(str(stop.kind), stop.allow, stop.summary) for stop in stops(standings, plans, safety)]


def hub(before: dict, *gone: str, extra: dict | None = None, dead: frozenset[str] = frozenset()):
    after = {name: m for name, m in before.items() if name not in gone} | (extra or {})
    return Standing(HUB, "dc", before, after, dead)


# ------------------------------------------------------------------------------------------------- the limits


def test_a_first_apply_is_not_stopped():
    creations = [Change(HUB, Part.CONNECTION, f"t{n}", Kind.CREATE) for n in range(50)]
    assert found([Standing(HUB, "dc", {}, tunnels(50))], creations) == []


@pytest.mark.parametrize(
    ("estate", "count", "stopped"),
    [
        (2, 1, False),
        (5, 1, False),
        (5, 2, True),
        (20, 2, False),
        (20, 3, True),
        (300, 30, False),
        (300, 31, True),
    ],
)
@pytest.mark.parametrize("does", ["remove", "disturb"])
def test_more_than_a_tenth_and_more_than_one(estate: int, count: int, stopped: bool, does: str):
    before = tunnels(estate) | {"other": message("site0")}
    names = [f"t{n}" for n in range(count)]
    # Each site keeps another tunnel, so that none of them is the last.
    extra = {f"new{n}": message(f"site{n}") for n in range(count)}
    before.pop("other")
    removes = does == "remove"
    standing = hub(before, *(names if removes else ()), extra=extra)
    changes = [removal(name) if removes else disturbance(name) for name in names]
    kinds = [kind for kind, _, _ in found([standing], changes)]
    assert kinds == ([does] if stopped else [])


def test_what_is_said():
    before = tunnels(20)
    names = [f"t{n}" for n in range(7)]
    ((kind, allow, summary),) = found([hub(before)], [disturbance(name) for name in names])
    assert (kind, allow) == ("disturb", ("disturb",))
    assert summary == (
        "it disturbs 7 of 20 tunnels (35 %), and the limit is 10 %: t0, t1, t2, t3, t4 and 2 more"
    )


def test_rekeys_and_tunnels_that_carry_nothing_are_not_counted():
    changes = [disturbance(f"t{n}", Disruption.REKEY) for n in range(9)]
    assert found([hub(tunnels(10))], changes) == []
    dead = [disturbance(f"t{n}") for n in range(9)]
    assert found([hub(tunnels(10), dead=frozenset(f"t{n}" for n in range(9)))], dead) == []


def test_both_ends_of_a_tunnel_are_one():
    before = tunnels(20)
    spokes = [
        Standing(f"site{n}", f"site{n}", {f"t{n}": message(HUB)}, {f"t{n}": message(HUB)}) for n in (0, 1)
    ]
    changes = [disturbance(f"t{n}", gateway=g) for n in (0, 1) for g in (HUB, f"site{n}")]
    assert found([hub(before), *spokes], changes) == []


@pytest.mark.parametrize(
    ("limit", "stopped"),
    [(Limit(2, of_all=False), True), (Limit(3, of_all=False), False), (Limit(100), False)],
)
def test_other_limits(limit: Limit, stopped: bool):
    changes = [disturbance(f"t{n}") for n in range(3)]
    assert bool(found([hub(tunnels(4))], changes, limit=limit)) is stopped


# ------------------------------------------------------------------------------------------ the last ones


def test_the_last_tunnel_of_a_site_in_a_small_estate():
    a = Standing("a", "a", {"t": message("b")}, {})
    b = Standing("b", "b", {"t": message("a")}, {})
    kinds = found([a, b], [removal("t", "a"), removal("t", "b")])
    assert kinds == [
        ("last", ("t",), "it removes the last tunnel of the site a: t"),
        ("last", ("t",), "it removes the last tunnel of the site b: t"),
    ]


def test_one_gateway_of_a_site_that_has_another():
    one = Standing("dc1", "dc", {"t": message("x")}, {})
    two = Standing("dc2", "dc", {"u": message("x")}, {"u": message("x")})
    assert found([one, two], [removal("t", "dc1")]) == [
        ("last", ("t",), "it removes the last tunnel of the gateway dc1: t")
    ]


@pytest.mark.parametrize(("kept", "stopped"), [("site0", False), ("elsewhere", True)])
def test_the_last_tunnel_to_an_end_that_has_no_plan(kept: str, stopped: bool):
    """As of a site that the topology does not name any more, or of a partner."""
    before = tunnels(3) | {"spare": message(kept)}
    said = found([hub(before, "t0")], [removal("t0")])
    assert said == (
        [("last", ("t0",), "it removes the last tunnel from hub to site0: t0")] if stopped else []
    )


def test_a_renamed_tunnel_is_not_the_last():
    assert found([hub(tunnels(3), "t0", extra={"new": message("site0")})], [removal("t0")]) == []


def test_what_a_dead_charon_keeps_is_not_removed():
    assert found([Standing("a", "a", {"t": message("b")}, {})], []) == []


# ------------------------------------------------------------------------------------------ allowing


@pytest.mark.parametrize("allowed", [("remove",), ("t0",), ("t0", "disturb")])
def test_removal_is_allowed_as_such_or_by_name(allowed: tuple[str, ...]):
    assert found([hub(tunnels(3), "t0")], [removal("t0")], *allowed) == []


@pytest.mark.parametrize("allowed", [(), ("disturb",), ("t1",), ("T0",)])
def test_and_by_nothing_else(allowed: tuple[str, ...]):
    assert found([hub(tunnels(3), "t0")], [removal("t0")], *allowed) != []


def test_each_is_allowed_by_itself():
    before = tunnels(6)
    standing = hub(before, "t0", "t1")
    changes = [removal("t0"), removal("t1"), *(disturbance(f"t{n}") for n in (2, 3, 4))]
    assert {kind for kind, *_ in found([standing], changes)} == {"remove", "disturb", "last"}
    assert {kind for kind, *_ in found([standing], changes, "remove")} == {"disturb"}
    assert {kind for kind, *_ in found([standing], changes, "disturb")} == {"remove", "last"}
    assert found([standing], changes, "remove", "disturb") == []


_CHANGED = st.sets(st.integers(0, 29))


@given(
    estate=st.integers(1, 30),
    gone=_CHANGED,
    disturbed=_CHANGED,
    allowed=_CHANGED,
    percent=st.integers(0, 100),
)
def test_whatever_is_changed(estate, gone, disturbed, allowed, percent):
    """What is said to allow a plan does, allowing more never stops more, and nothing unharmed is named."""
    before = tunnels(estate)
    gone = {f"t{n}" for n in gone} & before.keys()
    disturbed = {f"t{n}" for n in disturbed} & before.keys() - gone
    standing = hub(before, *gone)
    changes = [removal(name) for name in gone] + [disturbance(name) for name in disturbed]
    plans = [GatewayPlan(HUB, tuple(changes))]
    names = frozenset(f"t{n}" for n in allowed)
    limit = Limit(percent)

    all_stops = stops([standing], plans, Safety(limit))
    some = stops([standing], plans, Safety(limit, names))
    assert {(s.kind, t) for s in some for t in s.tunnels} <= {
        (s.kind, t) for s in all_stops for t in s.tunnels
    }
    assert {t for s in all_stops for t in s.tunnels} <= gone | disturbed
    assert {t for s in all_stops if s.kind == "last" for t in s.tunnels} == gone, "each leads to a site alone"
    words = frozenset(word for s in some for word in s.allow)
    assert stops([standing], plans, Safety(limit, names | words)) == ()


# ------------------------------------------------------------------------------------------ environment


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", Limit(10)),
        ("20%", Limit(20)),
        (" 20 % ", Limit(20)),
        ("5", Limit(5, of_all=False)),
        ("0%", Limit(0)),
    ],
)
def test_the_limit_in_the_environment(text: str, limit: Limit):
    assert parse_limit({"IPSECCTL_SAFETY_LIMIT": text}) == limit
    assert parse_limit({}) == Limit(10)


@pytest.mark.parametrize("text", ["ten", "101%", "-1", "1.5%", "%", "10%%"])
def test_a_limit_that_is_none_is_refused(text: str):
    with pytest.raises(IpsecctlError, match="IPSECCTL_SAFETY_LIMIT is") as refused:
        parse_limit({"IPSECCTL_SAFETY_LIMIT": text})
    assert "as in 10%" in refused.value.hint

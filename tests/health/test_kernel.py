"""Verdicts on tunnels of which charon believes more than its kernel has."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ipsecctl.cli._sas import sa_lines
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import NotInKernel
from ipsecctl.health import Verdict, judge, status_json

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOST = NotInKernel("t", "t", "11111111", sas=("inbound 11111111", "outbound 22222222"))
ANEW = "apply the topology, which makes the SAs anew"
NO_SAS = (
    "a: the kernel does not have the SAs that charon believes in "
    f"(inbound 11111111, outbound 22222222): {ANEW}"
)


def views(made, *missing, known=True):
    """Return both ends of ``t`` as charon believes in it, and what ``a``'s kernel lacks of that."""
    left = made.view("a", made.ike(made.child()))
    right = made.view("b", made.ike(made.child(flipped=True), initiator="no"))
    return {"a": replace(left, not_in_kernel=missing if known else None), "b": right}


def judged(made, *missing, tunnel=None, **options):
    (health,) = judge([tunnel or made.tunnel], views(made, *missing, **options), NOW)
    return health


def test_with_all_of_it_or_none_of_it_known_a_tunnel_is_up(made):
    for health in (judged(made), judged(made, known=False)):
        assert (health.verdict, health.causes) == (Verdict.UP, ())


def test_sas_that_only_charon_has_carry_nothing(made):
    health = judged(made, LOST)
    assert (health.verdict, health.causes, health.unsteady) == (Verdict.DOWN, (NO_SAS,), False)


def test_so_they_do_towards_a_gateway_of_somebody_else(made):
    health = judged(made, LOST, tunnel=made.partner)
    assert (health.verdict, health.causes) == (Verdict.DOWN, (NO_SAS,))


def test_another_tunnels_loss_is_not_ours(made):
    assert judged(made, replace(LOST, tunnel="u")).verdict is Verdict.UP


def test_an_sa_that_has_gone_meanwhile_is_no_loss(made):
    assert judged(made, replace(LOST, spi_in="99999999")).causes == ()


def test_an_older_sa_that_is_lost_leaves_the_newer_one(made):
    both = (made.child(), made.child(spi_in="33333333", spi_out="44444444", unique_id="2"))
    far = tuple(
        made.child(spi_in=i, spi_out=o, unique_id=n, flipped=True)
        for i, o, n in (("11111111", "22222222", "1"), ("33333333", "44444444", "2"))
    )
    seen = {
        "a": replace(made.view("a", made.ike(*both)), not_in_kernel=(LOST,)),
        "b": made.view("b", made.ike(*far)),
    }
    (health,) = judge([made.tunnel], seen, NOW)
    assert health.verdict is Verdict.DEGRADED
    assert NO_SAS in health.causes


@pytest.mark.parametrize(("dead", "verdict"), [(True, Verdict.DOWN), (False, Verdict.DEGRADED)])
@pytest.mark.parametrize(
    ("missing", "cause"),
    [
        (
            {"policies": ("out v to w", "in x to y")},
            f"a: the kernel does not have the IPsec policies of its SAs (out v to w, in x to y): {ANEW}",
        ),
        (
            {"routes": ("10.2.0.0/24",)},
            f"a: charon's routes through ipsec0 are not there (10.2.0.0/24): {ANEW}",
        ),
    ],
)
def test_policies_and_routes(made, missing, cause, dead, verdict):
    health = judged(made, NotInKernel("t", "t", "11111111", **missing, dead=dead))
    assert (health.verdict, health.causes) == (verdict, (cause,))


def test_one_child_of_two(made):
    def children(flipped):
        one = made.child("t-one", flipped=flipped)
        two = made.child("t-two", spi_in="33333333", spi_out="44444444", unique_id="2", flipped=flipped)
        return made.ike(one, two)

    missing = (replace(LOST, child="t-one"),)
    seen = {
        "a": replace(made.view("a", children(False)), not_in_kernel=missing),
        "b": made.view("b", children(True)),
    }
    (health,) = judge([made.two], seen, NOW)
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, (f"t-one: {NO_SAS}",))


def test_an_end_that_is_seen_alone_does_not_call_it_up(made):
    seen = {**views(made, LOST), "b": GatewayUnreachable("b", "no route to host")}
    (health,) = judge([made.tunnel], seen, NOW)
    assert health.verdict is Verdict.UNKNOWN
    assert health.causes == ("b cannot be reached: no route to host", NO_SAS)


def test_it_is_shown(made):
    policy = NotInKernel("t", "t", "11111111", policies=("in x to y",), routes=("10.2.0.0/24",), dead=False)
    for missing, lacks in (
        ((), []),
        ((LOST,), ["SA inbound 11111111", "SA outbound 22222222"]),
        ((policy,), ["policy in x to y", "route 10.2.0.0/24"]),
    ):
        health = judged(made, *missing)
        (told,) = status_json([health], {}, NOW)["tunnels"]
        here, there = ([c["kernel_lacks"] for c in e["ike_sas"][0]["child_sas"]] for e in told["ends"])
        assert (here, there) == ([lacks], [None])
        lines = [line.split(maxsplit=1)[1] for line in sa_lines(health) if line.split()[0] == "kernel"]
        assert lines == [f"has NOT {', '.join(lacks)}" if lacks else "has all that carries it"]


def test_many_are_not_all_listed(made):
    many = tuple(f"out {n}" for n in range(5))
    (cause,) = judged(made, NotInKernel("t", "t", "11111111", policies=many)).causes
    assert "(out 0, out 1, out 2 and 2 more)" in cause

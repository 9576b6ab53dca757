"""Verdicts from what both ends show."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Guard
from ipsecctl.health import (
    Verdict,
    exit_status,
    headline,
    judge,
    parse_list_sas,
    status_json,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOST = GatewayUnreachable("b", "container x is not running", "start it")
DEAD = GatewayUnreachable("b", "charon is not running in container x", "start it", charon_down=True)


def one(tunnel, **views):
    (health,) = judge([tunnel], views, NOW)
    return health


def test_up_is_installed_at_both_ends_with_spis_that_match(made):
    left = made.view("a", made.ike(made.child()))
    right = made.view("b", made.ike(made.child(flipped=True), initiator="no"))
    health = one(made.tunnel, a=left, b=right)
    assert (health.verdict, health.causes) == (Verdict.UP, ())
    assert health.since == NOW - timedelta(seconds=60)
    assert not health.unsteady


def test_an_ike_sa_that_is_rekeying_has_no_age_and_changes_nothing(made):
    left = made.view("a", made.ike(made.child(), state="REKEYING", established=None))
    right = made.view("b", made.ike(made.child(flipped=True)))
    assert one(made.tunnel, a=left, b=right).verdict is Verdict.UP


def test_a_child_that_is_rekeying_still_carries(made):
    left = made.view("a", made.ike(made.child(state="REKEYING")))
    right = made.view("b", made.ike(made.child(flipped=True)))
    assert one(made.tunnel, a=left, b=right).verdict is Verdict.UP


def test_the_old_one_after_a_rekey_does_not_count(made):
    left = made.view(
        "a",
        made.ike(made.child(state="REKEYED"), made.child(spi_in="3", spi_out="4", unique_id="2")),
    )
    right = made.view("b", made.ike(made.child(spi_in="3", spi_out="4", unique_id="9", flipped=True)))
    assert one(made.tunnel, a=left, b=right).verdict is Verdict.UP


PER_CPU = {"per-cpu-sas": "yes"}


def per_cpu(made, flipped, *cpus):
    """An IKE_SA with an SA for all and one for each of these CPUs."""
    several = [made.child(flipped=flipped, **PER_CPU)]
    for number, cpu in enumerate(cpus, 3):
        several.append(
            made.child(
                spi_in=f"1{number}", spi_out=f"2{number}", unique_id=str(number), flipped=flipped, cpu=cpu
            )
        )
    return made.ike(*several)


def test_an_sa_for_each_cpu_is_no_duplicate(made):
    views = {
        "a": made.view("a", per_cpu(made, False, "0", "1")),
        "b": made.view("b", per_cpu(made, True, "0", "1")),
    }
    health = one(made.tunnel, **views)
    assert (health.verdict, health.causes, health.unsteady) == (Verdict.UP, (), False)
    twice = {
        "a": made.view("a", per_cpu(made, False, "0", "0")),
        "b": made.view("b", per_cpu(made, True, "0", "0")),
    }
    health = one(made.tunnel, **twice)
    assert health.verdict is Verdict.DEGRADED
    assert health.causes[0] == "a has 2 CHILD_SAs for it and CPU 0"


NO_PAIR = {
    "one end only": (
        lambda m: m.ike(m.child()),
        lambda m: None,
        "only a has a CHILD_SA (it receives on 11111111); b has none",
    ),
    "the other end only": (
        lambda m: m.ike(),
        lambda m: m.ike(m.child(flipped=True)),
        "only b has a CHILD_SA",
    ),
    "other SPIs": (
        lambda m: m.ike(m.child()),
        lambda m: m.ike(m.child(spi_in="33333333", flipped=True)),
        "a receives on 11111111, b sends to 33333333",
    ),
    "half matched": (
        lambda m: m.ike(m.child()),
        lambda m: m.ike(m.child(spi_out="33333333", flipped=True)),
        "different CHILD_SAs",
    ),
}
DEGRADED = {
    "duplicates": (
        lambda m: m.ike(m.child(), m.child(spi_in="3", spi_out="4", unique_id="2")),
        lambda m: m.ike(m.child(flipped=True), m.child(spi_in="3", spi_out="4", unique_id="2", flipped=True)),
        "a has 2 CHILD_SAs",
    ),
    "algorithms": (
        lambda m: m.ike(m.child()),
        lambda m: m.ike(m.child(flipped=True, **{"encr-keysize": "128"})),
        "a uses AES_GCM_16-256, b AES_GCM_16-128",
    ),
    "selectors": (
        lambda m: m.ike(m.child()),
        lambda m: m.ike(m.child(flipped=True, **{"local-ts": ["10.2.0.0/25"]})),
        "the selectors differ: 10.1.0.0/24 === 10.2.0.0/24 at a, 10.2.0.0/25 === 10.1.0.0/24 at b",
    ),
}


def judged(made, left, right):
    left, right = left(made), right(made)
    views = {"a": made.view("a", *filter(None, [left])), "b": made.view("b", *filter(None, [right]))}
    return one(made.tunnel, **views)


@pytest.mark.parametrize(("left", "right", "cause"), DEGRADED.values(), ids=DEGRADED.keys())
def test_degraded(made, left, right, cause):
    health = judged(made, left, right)
    assert health.verdict is Verdict.DEGRADED
    assert cause in health.causes[0]


@pytest.mark.parametrize(("left", "right", "cause"), NO_PAIR.values(), ids=NO_PAIR.keys())
def test_without_a_pair_that_matches_nothing_passes(made, left, right, cause):
    health = judged(made, left, right)
    assert (health.verdict, health.unsteady) == (Verdict.DOWN, True)
    assert cause in health.causes[0]


def test_of_two_children_one_without_a_pair_is_degraded(made):
    left = made.view("a", made.ike(made.child("t-one"), made.child("t-two", "5", "6", unique_id="2")))
    right = made.view("b", made.ike(made.child("t-one", flipped=True)))
    health = one(made.two, a=left, b=right)
    assert (health.verdict, health.unsteady) == (Verdict.DEGRADED, True)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (
            {"guard": Guard.MISSING},
            "b: the no-leak firewall (nft table inet ipsecctl) is not loaded: apply the topology",
        ),
        (
            {"guard": Guard.ALTERED},
            "b: the no-leak firewall (nft table inet ipsecctl) is not as it was applied: apply the topology",
        ),
        ({"forwarding": False}, "b: the kernel does not forward packets: apply the topology"),
        ({"guard": Guard.UNKNOWN, "forwarding": None}, None),
        ({"guard": Guard.LOADED, "forwarding": True}, None),
    ],
)
def test_a_tunnel_that_could_leak_is_not_up(made, more, cause):
    left = made.view("a", made.ike(made.child()))
    sas = made.ike(made.child(flipped=True), initiator="no")
    views = {"a": left, "b": made.view("b", sas, **more)}
    health = one(made.tunnel, **views)
    assert health.verdict is (Verdict.DEGRADED if cause else Verdict.UP)
    assert health.causes == ((cause,) if cause else ())
    assert not health.unsteady
    shown = status_json([health], views, NOW)["tunnels"][0]["ends"][1]
    assert (shown["guard"], shown["forwarding"]) == (
        more.get("guard", Guard.UNKNOWN),
        more.get("forwarding"),
    )
    # One that is down says so first, and that it could leak as well.
    down = one(made.tunnel, a=made.view("a"), b=made.view("b", **more))
    assert down.verdict is Verdict.DOWN
    assert down.causes[1:] == ((cause,) if cause else ())


def test_an_end_that_is_not_seen_says_nothing_of_its_guard(made):
    up = made.view("a", made.ike(made.child()), guard=Guard.MISSING)
    lost = one(made.tunnel, a=up, b=LOST)
    assert (lost.verdict, lost.ends[1].guard, lost.ends[1].forwarding) == (
        Verdict.UNKNOWN,
        Guard.UNKNOWN,
        None,
    )
    assert one(made.partner, a=up).verdict is Verdict.DEGRADED


def test_two_ike_sas_for_one_tunnel_are_degraded(made):
    left = made.view("a", made.ike(made.child()), made.ike(unique_id="2"))
    right = made.view("b", made.ike(made.child(flipped=True)))
    health = one(made.tunnel, a=left, b=right)
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, ("a has 2 IKE_SAs for it",))


def test_some_children_only(made):
    left = made.view("a", made.ike(made.child("t-one")))
    right = made.view("b", made.ike(made.child("t-one", flipped=True)))
    health = one(made.two, a=left, b=right)
    assert (health.verdict, health.causes) == (Verdict.DEGRADED, ("t-two: no CHILD_SA at either end",))


def test_several_children_are_named(made):
    left = made.view("a", made.ike(made.child("t-one"), made.child("t-two", "5", "6", unique_id="2")))
    right = made.view("b", made.ike(made.child("t-one", flipped=True)))
    assert one(made.two, a=left, b=right).causes[0].startswith("t-two: only a has a CHILD_SA")


DOWN = {
    "nothing": ([], [], ("t",), "neither a nor b has an IKE_SA for it"),
    "not loaded": ([], [], (), "charon on a does not have the connection: apply the topology"),
    "calling": (["CONNECTING"], [], ("t",), "a is calling 192.0.2.2 and has no IKE_SA yet"),
    "no child": (
        ["ESTABLISHED"],
        ["ESTABLISHED"],
        ("t",),
        "a has an IKE_SA with 192.0.2.2 and no CHILD_SA in it",
    ),
}


@pytest.mark.parametrize(("left", "right", "loaded", "cause"), DOWN.values(), ids=DOWN.keys())
def test_down(made, left, right, loaded, cause):
    views = {
        "a": made.view("a", *(made.ike(state=state) for state in left), loaded=loaded),
        "b": made.view("b", *(made.ike(state=state, initiator="no") for state in right)),
    }
    health = one(made.tunnel, **views)
    assert (health.verdict, health.causes[0]) == (Verdict.DOWN, cause)


def test_a_dead_charon_is_down_and_named_although_the_other_end_still_has_its_sas(made):
    health = one(made.tunnel, a=made.view("a", made.ike(made.child())), b=DEAD)
    assert (health.verdict, health.causes) == (Verdict.DOWN, ("b: charon is not running in container x",))


def test_a_lost_gateway_makes_it_unknown_and_the_other_end_is_shown(made):
    health = one(made.tunnel, a=made.view("a", made.ike(made.child())), b=LOST)
    assert health.verdict is Verdict.UNKNOWN
    assert health.causes == (
        "b cannot be reached: container x is not running",
        "as a sees it, it is up",
    )
    assert health.ends[0].sas[0].children
    assert "no CHILD_SA" in one(made.tunnel, a=made.view("a"), b=LOST).causes[1]
    assert one(made.tunnel, a=made.view("a")).causes[0] == "b cannot be reached: it was not looked at"


def test_a_partner_is_judged_by_our_end(made):
    health = one(made.partner, a=made.view("a", made.ike(made.child())))
    assert health.verdict is Verdict.UP
    assert not health.far_end_managed
    assert one(made.partner, a=made.view("a")).causes == ("a has no IKE_SA for it",)
    assert one(made.partner, a=LOST).verdict is Verdict.UNKNOWN


def test_worst_first_headline_and_exit_status(made):
    up = {
        "a": made.view("a", made.ike(made.child())),
        "b": made.view("b", made.ike(made.child(flipped=True))),
    }
    down = {"a": made.view("a"), "b": made.view("b")}
    lost = {"a": made.view("a"), "b": LOST}

    def status(*views):
        healths = [one(made.tunnel, **each) for each in views]
        return headline(healths), exit_status(healths)

    assert status() == ("all 0 tunnels up", 0)
    assert status(up) == ("1 tunnel, up", 0)
    assert status(up, up) == ("all 2 tunnels up", 0)
    assert status(up, down, lost) == ("1 of 3 tunnels down, 1 unknown", 1)
    assert status(up, lost) == ("1 of 2 tunnels unknown", 3)


def test_the_document_is_json_in_every_state(made):
    for views in (
        {},
        {"a": made.view("a"), "b": LOST},
        {"a": made.view("a", made.ike(made.child())), "b": DEAD},
        {
            "a": made.view("a", made.ike(made.child())),
            "b": made.view("b", made.ike(made.child(flipped=True))),
        },
    ):
        document = json.loads(json.dumps(status_json(judge([made.tunnel], views, NOW), views, NOW)))
        assert document["schema"] == "ipsecctl/status/1"
        (tunnel,) = document["tunnels"]
        assert tunnel["verdict"] in ("up", "down", "unknown", "degraded")
        assert len(tunnel["ends"]) == 2
    child = tunnel["ends"][0]["ike_sas"][0]["child_sas"][0]
    assert (child["spi_in"], child["bytes_in"], child["rekey_in_s"]) == ("11111111", 10, 3000)
    assert tunnel["ends"][0]["ike_sas"][0]["algorithms"] == (
        "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519/ML_KEM_768"
    )


@given(
    st.recursive(
        st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=2),
        lambda inner: st.dictionaries(
            st.sampled_from(["child-sas", "state", "uniqueid", "established", "name", "new-key", "x-1"]),
            inner,
            max_size=4,
        ),
        max_leaves=10,
    )
)
def test_whatever_a_version_reports_nothing_crashes(listed):
    if isinstance(listed, dict):
        parse_list_sas([listed])
        parse_list_sas([{"t": listed}])
        parse_list_sas([{"t": {"child-sas": listed}}])


def on_older_sas(made, why, *, sas=True):
    """Return the health of a tunnel whose SAs at a have an earlier configuration than was applied there."""
    left = made.view("a", *([made.ike(made.child())] if sas else []), older={"t": why})
    right = made.view("b", *([made.ike(made.child(flipped=True))] if sas else []))
    return one(made.tunnel, a=left, b=right)


def test_a_change_that_waits_for_the_far_end_is_a_note_and_the_tunnel_is_up(made):
    health = on_older_sas(made, "charon on a says: no")
    assert (health.verdict, exit_status([health])) == (Verdict.UP, 0)
    assert health.causes == (
        (
            "a: its SAs have an earlier configuration than the one applied there, which is pending (charon "
            "on a says: no): when that is mended, apply again"
        ),
    )
    assert "pending: when" in on_older_sas(made, "").causes[0]
    (tunnel,) = status_json([health], {}, NOW)["tunnels"]
    assert [end["pending_change"] for end in tunnel["ends"]] == [{"why": "charon on a says: no"}, None]


def test_a_tunnel_without_sas_has_none_of_an_earlier_configuration(made):
    health = on_older_sas(made, "charon on a says: no", sas=False)
    assert health.verdict is Verdict.DOWN
    assert "earlier configuration" not in " ".join(health.causes)
    (tunnel,) = status_json([health], {}, NOW)["tunnels"]
    assert tunnel["ends"][0]["pending_change"] is None


def test_a_child_sa_that_is_not_declared_is_a_cause(made):
    stray = made.child("other", "5", "6", unique_id="2")
    left = made.view("a", made.ike(made.child(), stray))
    right = made.view("b", made.ike(made.child(flipped=True)))
    found = one(made.tunnel, a=left, b=right)
    assert found.verdict is Verdict.DEGRADED
    assert found.causes == ("a lets through what is not declared (other): apply the topology",)
    assert one(made.partner, a=left).causes == found.causes


def test_a_trap_that_is_not_declared_is_a_cause(made):
    left, right = made.view("a", made.ike(made.child())), made.view("b", made.ike(made.child(flipped=True)))
    for traps in (None, {}, {"t": frozenset({"t"})}, {"another": frozenset({"other"})}):
        assert one(made.tunnel, a=replace(left, traps=traps), b=right).verdict is Verdict.UP
    found = one(made.tunnel, a=replace(left, traps={"t": frozenset({"t", "other"})}), b=right)
    assert found.verdict is Verdict.DEGRADED
    assert found.causes == ("a would call for what is not declared (other): apply the topology",)


def test_where_only_others_have_child_sas_these_are_named(made):
    left = made.view("a", made.ike(made.child("older"), made.child("old", "5", "6", unique_id="2")))
    found = one(made.partner, a=left)
    assert found.verdict is Verdict.DOWN
    assert found.causes == ("a has CHILD_SAs of an earlier configuration only: old, older",)

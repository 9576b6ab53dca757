"""In which batches a fleet is changed: properties of any fleet, and the shapes that people have."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.errors import IpsecctlError
from ipsecctl.plan import Batch, Share, batches, parse_share

NAMES = [f"g{n}" for n in range(12)]
SHARES = st.builds(Share, st.integers(1, 6)) | st.builds(Share, st.integers(1, 100), st.just(True))


@st.composite
def fleets(draw):
    """Gateways to be changed, the pairs of all tunnels, canaries, and the size of a batch."""
    pair = st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda ends: ends[0] != ends[1])
    names = st.sets(st.sampled_from(NAMES))
    return draw(names), draw(st.lists(pair, max_size=20)), draw(names), draw(st.none() | SHARES)


@given(fleets())
def test_every_gateway_is_in_exactly_one_batch(fleet):
    gateways, pairs, canary, size = fleet
    found = batches(gateways, pairs, canary=canary, size=size)
    assert sorted(name for batch in found for name in batch.gateways) == sorted(gateways)
    assert [batch.number for batch in found] == [*range(1, len(found) + 1)]
    assert all(batch.gateways and {*batch.along} <= {*batch.gateways} for batch in found)


@given(fleets())
def test_canaries_come_first_and_by_themselves(fleet):
    gateways, pairs, canary, size = fleet
    found = batches(gateways, pairs, canary=canary, size=size)
    first = gateways & canary
    assert [batch.canary for batch in found] == [bool(first) and not n for n in range(len(found))]
    if first:
        assert {*found[0].gateways} - {*found[0].along} == first


@given(fleets())
def test_batches_have_their_size(fleet):
    gateways, pairs, canary, size = fleet
    chosen = [
        len({*batch.gateways} - {*batch.along})
        for batch in batches(gateways, pairs, canary=canary, size=size)
        if not batch.canary
    ]
    whole = len(gateways) if size is None else size.of(len(gateways))
    assert all(count <= whole for count in chosen)
    assert all(count == whole for count in chosen[:-1])


@given(fleets())
def test_who_comes_along_has_more_tunnels_than_whom_it_follows(fleet):
    gateways, pairs, canary, size = fleet
    far = {name: {a if b == name else b for a, b in pairs if name in (a, b)} for name in NAMES}
    found = batches(gateways, pairs, canary=canary, size=size)
    turn = {name: batch.number for batch in found for name in batch.gateways}
    for batch in found:
        for name in batch.along:
            fewer = [n for n in far[name] & gateways if len(far[n]) < len(far[name])]
            assert min(turn[n] for n in fewer) == batch.number


@given(fleets())
def test_the_order_of_what_is_given_does_not_matter(fleet):
    gateways, pairs, canary, size = fleet
    again = batches(sorted(gateways, reverse=True), pairs[::-1], canary=sorted(canary), size=size)
    assert again == batches(gateways, pairs, canary=canary, size=size)


STAR = [("hub", f"s{n}") for n in range(1, 5)]


@pytest.mark.parametrize(
    ("gateways", "pairs", "canary", "size", "wanted"),
    [
        # A hub goes with the first of its spokes that is changed.
        (
            ["hub", "s1", "s2", "s3", "s4"],
            STAR,
            ["s3"],
            Share(2),
            (
                Batch(1, ("hub", "s3"), canary=True, along=("hub",)),
                Batch(2, ("s1", "s2")),
                Batch(3, ("s4",)),
            ),
        ),
        (["s1", "s2"], STAR, [], Share(50, of_all=True), (Batch(1, ("s1",)), Batch(2, ("s2",)))),
        # The hub itself as the canary.
        (["hub", "s1"], STAR, ["hub"], None, (Batch(1, ("hub",), canary=True), Batch(2, ("s1",)))),
        # A mesh has none.
        (
            ["a", "b", "c"],
            [("a", "b"), ("b", "c"), ("a", "c")],
            ["b"],
            Share(1),
            (Batch(1, ("b",), canary=True), Batch(2, ("a",)), Batch(3, ("c",))),
        ),
        # A canary on which nothing is to be changed.
        (["s1"], STAR, ["s2"], None, (Batch(1, ("s1",)),)),
        ([], STAR, ["s2"], Share(1), ()),
    ],
)
def test_shapes(gateways, pairs, canary, size, wanted):
    assert batches(gateways, pairs, canary=canary, size=size) == wanted


@given(st.integers(1, 100), st.integers(0, 1000))
def test_a_share_is_never_less_than_it_says(percent, total):
    count = Share(percent, of_all=True).of(total)
    assert count == math.ceil(percent * total / 100 - 1e-9)
    assert not total or 1 <= count <= total


@pytest.mark.parametrize(
    ("text", "said"), [("3", Share(3)), (" 20 %", Share(20, of_all=True)), ("0", Share(0))]
)
def test_shares(text, said):
    assert parse_share(text, least=0) == said


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1", "many", "", "1.5", "%"])
def test_what_is_no_number_of_gateways(text):
    with pytest.raises(IpsecctlError, match="is no number of gateways"):
        parse_share(text)

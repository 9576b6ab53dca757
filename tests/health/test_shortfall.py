"""What new CHILD_SAs leave out of what old ones carry and is still wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsecctl.health import Traffic, parse_list_sas, shortfall


def child(local, remote):
    sa = {
        "name": "t",
        "uniqueid": "1",
        "state": "INSTALLED",
        "local-ts": local.split(),
        "remote-ts": remote.split(),
    }
    return parse_list_sas([{"t": {"uniqueid": "1", "state": "ESTABLISHED", "child-sas": {"t-1": sa}}}])[
        0
    ].children[0]


@pytest.mark.parametrize(
    ("declared", "old", "new", "lost"),
    [
        (
            [("10.0.0.0/16", "10.9.0.0/16")],
            [("10.0.0.0/16", "10.9.0.0/16")],
            [("10.0.0.0/16", "10.9.0.0/16")],
            (),
        ),
        # narrowed to one of two
        (
            [("10.1.0.0/24 10.2.0.0/24", "10.8.0.0/24 10.9.0.0/24")],
            [("10.1.0.0/24", "10.8.0.0/24"), ("10.2.0.0/24", "10.9.0.0/24")],
            [("10.1.0.0/24", "10.8.0.0/24")],
            ("10.2.0.0/24 === 10.9.0.0/24",),
        ),
        # what is no longer wanted is no loss; of a wider old one, what is wanted counts
        ([("10.1.0.0/24", "10.8.0.0/24")], [("10.2.0.0/24", "10.9.0.0/24")], [], ()),
        (
            [("10.1.0.0/24", "10.8.0.0/24")],
            [("10.1.0.0/16", "10.8.0.0/16")],
            [("10.1.0.128/25", "10.8.0.0/24")],
            ("10.1.0.0/24 === 10.8.0.0/24",),
        ),
        # protocols and ports
        (
            [("10.1.0.0/24", "10.8.0.0/24[tcp]")],
            [("10.1.0.0/24", "10.8.0.0/24")],
            [("10.1.0.0/24", "10.8.0.0/24[tcp/104]")],
            ("10.1.0.0/24 === 10.8.0.0/24[6]",),
        ),
        ([("10.1.0.0/24", "10.8.0.0/24[tcp/1-90]")], [("10.1.0.0/24", "10.8.0.0/24[udp/7]")], [], ()),
        (
            [("fd00:1::/64", "fd00:8::/64[tcp/80-90]")],
            [("fd00:1::/64", "fd00:8::/64[tcp/85-99]")],
            [("fd00:1::/64", "fd00:8::/64[tcp/85]")],
            ("fd00:1::/64 === fd00:8::/64[6/85-90]",),
        ),
        # not understood
        ([("10.1.0.0/24", "10.8.0.0/24")], [("10.1.0.0..10.1.0.9", "10.8.0.0/24")], [], ()),
    ],
)
def test_what_is_wanted_and_no_longer_carried(declared, old, new, lost):
    traffic = [Traffic(tuple(local.split()), tuple(remote.split()), ()) for local, remote in declared]
    assert shortfall(traffic, [child(*pair) for pair in old], [child(*pair) for pair in new]) == lost


prefixes = st.builds(
    lambda bits, length: f"10.{(bits >> (8 - length)) << (8 - length)}.0.0/{8 + length}",
    st.integers(0, 255),
    st.integers(0, 8),
)
pairs = st.tuples(prefixes, prefixes)


@given(st.lists(pairs, max_size=4), st.lists(pairs, max_size=4), pairs)
def test_as_much_as_was_offered_is_never_too_little(declared, old, other):
    everything = [Traffic((local,), (remote,), ()) for local, remote in declared]
    before = [child(*pair) for pair in old]
    assert shortfall(everything, before, [child(*pair) for pair in declared]) == ()
    assert shortfall(everything, before, [*before, child(*other)]) == ()
    assert shortfall([], before, []) == ()


@given(st.lists(pairs, max_size=4), pairs, pairs)
def test_less_is_never_lost_with_more(declared, old, new):
    everything = [Traffic((local,), (remote,), ()) for local, remote in declared]
    none = shortfall(everything, [child(*old)], [])
    some = shortfall(everything, [child(*old)], [child(*new)])
    assert {*some} <= {*none}


def test_order_and_repetition_play_no_part():
    one, two = child("10.1.0.0/24", "10.8.0.0/24"), child("10.2.0.0/24", "10.9.0.0/24")
    wanted = Traffic(("10.0.0.0/8",), ("10.0.0.0/8",), ())
    assert shortfall([wanted, wanted], [two, one, replace(one, unique_id=5)], []) == (
        "10.1.0.0/24 === 10.8.0.0/24",
        "10.2.0.0/24 === 10.9.0.0/24",
    )

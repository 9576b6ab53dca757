"""Which SAs can go where two ends are out of step, and which stay as they carry."""

from __future__ import annotations

import pytest

from ipsecctl.deploy.stale import Stale, stale
from ipsecctl.health import parse_list_sas


def ike(unique_id, *children, spi=""):
    """An IKE_SA; a child is its unique id, name, and SPIs in and out."""
    listed = {
        f"{name}-{child}": {
            "name": name,
            "uniqueid": str(child),
            "state": "INSTALLED",
            "spi-in": spi_in,
            "spi-out": out,
        }
        for child, name, spi_in, out in children
    }
    told = {
        "uniqueid": str(unique_id),
        "state": "ESTABLISHED",
        "initiator-spi": spi or f"i{unique_id}",
        "responder-spi": spi or f"r{unique_id}",
        "child-sas": listed,
    }
    return parse_list_sas([{"t": told}])[0]


OLD, OLD_FAR = ike(1, (1, "t", "a", "b")), ike(1, (1, "t", "b", "a"))
NEW, NEW_FAR = ike(2, (2, "t", "c", "d")), ike(2, (2, "t", "d", "c"))
EMPTY = ike(3)


def ids(*ids):
    return frozenset(ids)


@pytest.mark.parametrize(
    ("here", "far", "goes"),
    [
        ((OLD,), (OLD_FAR,), Stale()),
        ((OLD, EMPTY), (OLD_FAR, EMPTY), Stale(ids(3))),  # what an attempt that failed has left
        ((OLD, EMPTY), None, Stale(ids(3))),
        ((OLD, NEW), (OLD_FAR, NEW_FAR), Stale(ids(1))),  # the latest stays
        ((OLD, NEW), (OLD_FAR,), Stale(ids(2))),  # only this end has the new one
        ((OLD,), (OLD_FAR, NEW_FAR), Stale(far_ikes=ids(2))),
        ((OLD,), (), Stale(ids(1))),  # nothing carries: all is made anew
        ((OLD, NEW), (ike(9, (7, "t", "y", "x")),), Stale(ids(1, 2))),
        ((EMPTY,), (EMPTY,), Stale(ids(3))),
    ],
)
def test_what_both_ends_have_stays(here, far, goes):
    assert stale(here, far) == goes


def test_the_one_that_has_more_of_the_children_stays():
    old = ike(1, (1, "t", "a", "b"), (2, "u", "e", "f"))
    far = ike(1, (1, "t", "b", "a"), (2, "u", "f", "e"))
    assert stale((old, NEW), (far, NEW_FAR)) == Stale(ids(2)), "half of a move"
    more = ike(2, (3, "v", "g", "h"))
    assert stale((old, more), (far, ike(2, (3, "v", "h", "g")))) == Stale(), "they complete one another"


def test_within_an_ike_sa_single_children_go():
    here = ike(1, (1, "t", "a", "b"), (2, "t", "c", "d"), (3, "u", "e", "f"))
    far = ike(1, (1, "t", "b", "a"), (2, "t", "d", "c"), (4, "u", "x", "y"))
    assert stale((here,), (far,)) == Stale(children=ids(1, 3), far_children=ids(4))

"""What a gateway is given for its way back, and whom a confirmation is for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from ipsecctl.deploy._way_back import _drop
from ipsecctl.deploy.keys import parse_shared
from ipsecctl.deploy.undo import confirm_all
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import Record
from ipsecctl.gateway.handle import Completed
from ipsecctl.plan import Change, GatewayPlan, Kind, Part, Wanted

TOKEN = "0123456789abcdef"

SECRETS = """\
# Gateway a: pre-shared keys. Written by ipsecctl: change the topology, not this file.
secrets {
    ike-t {
        id-1 = "a\\\\\\"b"
        id-2 = "192.0.2.1"
        secret = 0sc2VjcmV0
    }
    ike-by-hand {
        secret = "something else"
    }
}
"""


def test_keys_are_read_as_our_template_writes_them():
    owners = ['a\\"b', "192.0.2.1"]
    assert parse_shared(SECRETS) == {
        "ike-t": {"id": "ike-t", "type": "ike", "data": b"secret", "owners": owners}
    }


def test_a_key_that_stands_beside_the_old_one_goes_too():
    plan = GatewayPlan("a", (Change("a", Part.SHARED, "ike-t", Kind.CHANGE),))
    wanted = Wanted("a", "l", shared={"ike-t": {}, "ike-u": {}})
    seen = SimpleNamespace(connections={}, shared={"ike-t"})
    dropped = [(r.command, r.message) for r in _drop(plan, Record(b"", shared={"ike-t": "d"}), wanted, seen)]
    assert dropped == [("unload-shared", {"id": "ike-u"}), ("unload-shared", {"id": "ike-t.next"})]


class Fake:
    """A gateway that answers ``undo look`` and ``undo confirm``."""

    def __init__(self, name, look, confirms="confirmed\n"):
        self.name = name
        self.look = look
        self.confirms = confirms
        self.confirmed = False

    async def run(self, argv, stdin=b"", *, timeout_s=0.0):
        if isinstance(self.look, Exception):
            raise self.look
        self.confirmed |= "confirm" in argv
        said = self.confirms if "confirm" in argv else self.look
        return Completed(0, said.encode(), b"")

    @asynccontextmanager
    async def hold(self, argv, *, timeout_s=0.0):
        yield ""

    vici = hold


def waits(members="a b"):
    return f"waiting {TOKEN} 42 alice@noc (pid 7)\nmembers {members}\n"


def confirming(*gateways, partly=False):
    return asyncio.run(confirm_all({g.name: g for g in gateways}, {}, partly=partly))


def test_all_that_wait_are_confirmed_and_others_do_not_matter():
    a, b, c = Fake("a", waits()), Fake("b", waits()), Fake("c", GatewayUnreachable("c", "is down"))
    done = confirming(a, b, c)
    assert (done.confirmed, done.against, done.tokens) == (("a", "b"), {}, (TOKEN,))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (f"none\nundone {TOKEN} 99 back\n", "too late: it has gone back"),
        (f"going {TOKEN} 0 alice@noc (pid 7)\n", "too late: it is going back"),
        (GatewayUnreachable("b", "is down"), "is down"),
        ("none\n", "nothing waits there any more"),
    ],
)
def test_none_is_confirmed_where_one_cannot_be(other, why):
    a, b = Fake("a", waits()), Fake("b", other)
    done = confirming(a, b)
    assert (done.confirmed, a.confirmed, done.succeeded) == ((), False, False)
    assert why in done.against["b"]
    partly = confirming(a, b, partly=True)
    assert (partly.confirmed, partly.succeeded) == (("a",), False)


def test_one_that_is_not_in_the_topology_stands_against_it():
    assert "not in this topology" in confirming(Fake("a", waits("a z"))).against["z"]


def test_nothing_waits():
    done = confirming(Fake("a", "none\n"))
    assert (done.confirmed, done.against, done.succeeded) == ((), {}, True)

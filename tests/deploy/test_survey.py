"""A status looks again at what does not fit together, before it calls it a fault."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

import ipsecctl.deploy.survey as surveying
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import LiveView
from ipsecctl.health import Verdict
from ipsecctl.topology import load_text

TOPOLOGY = """
ipsecctl: 1
name: pair
defaults: {control: lab, mode: policy, credential: {psk: "env:PSK"}}
sites:
  a: {networks: {lan: 10.1.0.0/24}, gateway: 192.0.2.1}
  b: {networks: {lan: 10.2.0.0/24}, gateway: 192.0.2.2}
tunnels:
  t: {between: [a, b]}
"""


LATE, LOST = "no answer in time", "the connections broke"


def seen(gateway, number):
    """Return a view of an end whose CHILD_SA is the ``number``-th; ``None`` for no SA at all."""
    if number is None:
        return LiveView(gateway, "6.1.0", (), frozenset({"t"}))
    here, there = ("10.1.0.0/24", "10.2.0.0/24")[:: 1 if gateway == "a" else -1]
    spis = (f"aaaaaa{number:02}", f"bbbbbb{number:02}")[:: 1 if gateway == "a" else -1]
    child = {
        "name": "t",
        "uniqueid": str(number),
        "state": "INSTALLED",
        "spi-in": spis[0],
        "spi-out": spis[1],
        "encr-alg": "AES_GCM_16",
        "encr-keysize": "256",
        "local-ts": [here],
        "remote-ts": [there],
    }
    ike = {
        "uniqueid": "1",
        "state": "ESTABLISHED",
        "encr-alg": "AES_GCM_16",
        "encr-keysize": "256",
        "prf-alg": "PRF_HMAC_SHA2_384",
        "dh-group": "CURVE_25519",
        "child-sas": {"t-1": child},
    }
    return LiveView(gateway, "6.1.0", ({"t": ike},), frozenset({"t"}))


@pytest.fixture
def survey(monkeypatch):
    """Return a function that surveys ends which show given CHILD_SAs look by look, and counts the looks."""

    def run(*looks, pause_s=0.001):
        pending = list(looks)

        async def look(handle, *, outer=(), timeout_s):
            return seen(handle.name, looks[0]["ab".index(handle.name)])

        class Watched:
            async def look(self, gateways, *, wait):
                assert wait
                pending.pop(0)
                if pending[0] is LATE:
                    raise TimeoutError
                if pending[0] is LOST:
                    return {name: GatewayUnreachable(name, "the connection broke") for name in gateways}
                return {name: seen(name, pending[0]["ab".index(name)]) for name in gateways}

        @asynccontextmanager
        async def watch(handles):
            assert set(handles) == {"a", "b"}
            yield Watched()

        monkeypatch.setattr(surveying, "look", look)
        monkeypatch.setattr(surveying, "watch", watch)
        monkeypatch.setattr(surveying, "reach", lambda gateway, *_: SimpleNamespace(name=gateway.name))
        monkeypatch.setattr(surveying, "_LOOK_AGAIN_S", pause_s)
        topology = load_text(TOPOLOGY, "pair.yaml").topology
        (tunnel,) = asyncio.run(surveying.survey(topology, timeout_s=30)).tunnels
        assert (tunnel.verdict is Verdict.UNKNOWN) == ("a longer --timeout" in str(tunnel.causes))
        return tunnel.verdict, len(looks) - len(pending) + 1

    return run


def test_what_fits_is_not_looked_at_again(survey):
    assert survey((1, 1)) == (Verdict.UP, 1)


@pytest.mark.parametrize("first", [(1, 2), (1, None), (None, None)])
def test_what_fits_the_second_time_is_up(survey, first):
    assert survey(first, (2, 2)) == (Verdict.UP, 2)


@pytest.mark.parametrize("same", [(1, 2), (1, None), (None, None)])
def test_what_stays_as_it_is_does_not_fit(survey, same):
    assert survey(same, same, (3, 3)) == (Verdict.DOWN, 2)


def test_with_rekeys_in_a_row_one_end_may_be_ahead(survey):
    assert survey((1, 2), (3, 4), (5, 3)) == (Verdict.UP, 3)
    assert survey((1, 2), (2, 3)) == (Verdict.UP, 2)
    assert survey((1, 2), (3, 4), (5, 6), (7, 1)) == (Verdict.UP, 4)


@pytest.mark.parametrize("first", [(1, 2), (1, None), (None, None)])
def test_what_could_not_be_looked_at_again_is_not_down_but_unknown(survey, first):
    assert survey(first, pause_s=10.0) == (Verdict.UNKNOWN, 1)
    assert survey(first, LATE) == (Verdict.UNKNOWN, 2)
    assert survey(first, *[LOST] * 5) == (Verdict.UNKNOWN, 6)
    assert survey(first, LOST, (2, 2)) == (Verdict.UP, 3)
    assert survey(first, LOST, first, first) == (Verdict.DOWN, 3)


def test_an_end_that_never_fits_is_no_tunnel_that_is_up(survey):
    assert survey((1, 51), (2, 52), (3, 53), (4, 54), (5, 55), (6, 56), (7, 7)) == (Verdict.DOWN, 6)

"""Looking at charon through a connection that stays: what it leaves out of a list is not taken for gone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

import ipsecctl.deploy.watch as watching
from ipsecctl.deploy.watch import watch
from ipsecctl.errors import GatewayUnreachable, ViciError
from ipsecctl.vici.codec import encode_message

SA = {"t": {"state": "ESTABLISHED", "uniqueid": "1"}}


class Charon:
    """A charon with one IKE_SA that is left out of its first lists: so many as it is ``busy``."""

    name = "a"

    def __init__(self, busy=0, *, tells=True):
        self.busy = busy
        self.tells = tells
        self.looks = 0
        self.dead = False

    async def command(self, name, message=None):
        if self.dead:
            raise ViciError("charon has gone")
        return {"version": "6.1.0", "ikesas": {"total": "1"}} if self.tells else {"version": "6.1.0"}

    async def stream(self, name, event, message=None, *, raw=False):
        if name != "list-sas":
            return []
        assert message == {"noblock": "yes"}  # charon is never made to wait
        self.looks += 1
        return [SA] if self.looks > self.busy else []

    async def stream_undecoded(self, name, event, message=None):
        return [encode_message({"t": {}})]

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        yield SimpleNamespace(
            command=self.command, stream=self.stream, stream_undecoded=self.stream_undecoded
        )


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(watching, "_LOOK_AGAIN_S", 0.0)


def looking(charon, what):
    async def main():
        async with watch({"a": charon}) as watched:
            return await what(watched)

    return asyncio.run(main())


def test_charons_own_count_tells_that_it_left_something_out():
    async def twice(watched):
        found = []
        for _ in range(2):
            await watched.look({"a"})
            found.append(await watched.left_out({"a", "somebody else's"}))
        return found

    assert looking(Charon(busy=1), twice) == [{"a"}, frozenset()]
    assert looking(Charon(busy=1, tells=False), twice) == [frozenset(), frozenset()]


def test_it_is_looked_until_nothing_is_left_out():
    views = looking(Charon(busy=5), lambda watched: watched.look_well({"a"}))
    assert views["a"].sas == (SA,)


def test_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(watching, "BUSY_S", 0.0)
    views = looking(Charon(busy=10**9), lambda watched: watched.look_well({"a"}))
    assert views["a"].sas == ()


def test_a_charon_that_goes_meanwhile_is_not_reachable():
    charon = Charon()

    async def dies(watched):
        await watched.look({"a"})
        charon.dead = True
        return await watched.left_out({"a"}), watched.views["a"], watched.client("a")

    left_out, view, client = looking(charon, dies)
    assert (left_out, client) == (frozenset(), None)
    assert isinstance(view, GatewayUnreachable)

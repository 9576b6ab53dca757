"""Carrying plans out, as a script of what is written and sent: cut off, refused, half failed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from netaddr import IPAddress

import ipsecctl.deploy.carry as carrying
from ipsecctl.deploy import renewal
from ipsecctl.deploy.outcome import GatewayResult, host_alone
from ipsecctl.desired import Interface, Means
from ipsecctl.errors import ApplyFailed, GatewayUnreachable, ViciRefused
from ipsecctl.gateway import (
    NO_CHARON,
    RECORD_PATH,
    Facts,
    Link,
    NewFile,
    Observed,
    Record,
    Seen,
    WaysSeen,
)
from ipsecctl.plan import (
    Change,
    Disruption,
    GatewayPlan,
    Kind,
    Part,
    Wanted,
    interface_text,
    plan_gateway,
)
from ipsecctl.render import STRONGSWAN_FILE
from ipsecctl.topology import Control, ControlKind, DataPath, Gateway

OLD = {"proposals": ["aes128-sha256-ecp256"], "children": {"t": {}}}
NEW = {"proposals": ["aes256-sha256-ecp384"], "children": {"t": {}}}


def observed(**record):
    made = Record(b"k" * 32, topology="top", seen=Seen(firewall="old nft"), **record)
    return Observed("a", "6.1.0", DataPath.KERNEL, {"t": {}}, facts=Facts(record=made, firewall="old nft"))


class Handle:
    """A gateway that remembers the commands it was sent and refuses some."""

    name = "a"

    def __init__(self, *refused, answers=None):
        self.refused = refused
        self.answers = answers or {}
        self.sent = []

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        async def command(name, message=None):
            self.sent.append(name)
            if name in self.refused:
                raise ViciRefused("no")
            return self.answers.get(name, {})

        async def stream(name, event, message=None):
            return []

        async def commands(name, messages):
            answers = []
            for message in messages:
                try:
                    answers.append(await command(name, message))
                except ViciRefused as refused:
                    answers.append(refused)
            return answers

        yield SimpleNamespace(command=command, commands=commands, stream=stream, stream_undecoded=stream)


@pytest.fixture
def records(monkeypatch):
    """Return the records that are written, in their order; nothing is activated."""
    written = []

    async def write(handle, files, removed=()):
        written.extend(Record.from_json(f.content) for f in files if f.path == RECORD_PATH)

    async def nothing(handle, plan, first=()):
        return None

    monkeypatch.setattr(carrying, "write_files", write)
    monkeypatch.setattr(carrying, "activate", nothing)
    monkeypatch.setattr(carrying, "retire", nothing)
    return written


def change(part, name, kind=Kind.CHANGE, **more):
    return Change("a", part, name, kind, **more)


def carry(handle, seen, *changes, wanted=None):
    plan = GatewayPlan("a", changes)
    return asyncio.run(carrying.Carrier(handle, plan, wanted or Wanted("a", "top"), seen).begin())


def test_a_cut_before_nft_has_read_its_file_is_remembered(records, monkeypatch):
    async def cut(handle, plan, first):
        raise ApplyFailed("cut off")

    monkeypatch.setattr(carrying, "activate", cut)
    with pytest.raises(ApplyFailed):
        carry(Handle(), observed(), change(Part.FIREWALL, "inet ipsecctl"))
    assert records[-1].seen.firewall == ""
    with pytest.raises(ApplyFailed):
        carry(Handle(), observed(), change(Part.SHARED, "k"))
    assert records[-1].seen.firewall == "old nft"


LATER = replace(observed(messages={"t": OLD}, connections={"t": "d"}), version="6.1.0")
CALLS = Wanted("a", "top", connections={"t": NEW})


def begun_and_finished(handle, moved):
    """Return what was sent before and after the break, and the record that is left."""
    plan = GatewayPlan("a", (change(Part.CONNECTION, "t", disruption=Disruption.IKE_RESTART),))
    carrier = carrying.Carrier(handle, plan, CALLS, LATER, later={"t"})

    async def main():
        assert await carrier.begin() is None, "the other gateways must come as far"
        before = [*handle.sent]
        async with handle.vici(timeout_s=1.0) as client:
            record = await carrier.finish(client, moved, {"t": "the far end refused it", "u": "not this one"})
        return before, handle.sent[len(before) :], record

    return asyncio.run(main())


def test_a_connection_that_calls_waits_until_the_far_end_has_its_own(records):
    before, after, record = begun_and_finished(Handle(), {"t"})
    assert "load-conn" not in before
    assert "load-conn" in after
    assert (record.messages["t"], record.renew) == (NEW, ("t",)), "its SAs are yet to be made anew"
    assert (record.connections["t"] != "", record.kept) == (True, {})


def test_it_stays_as_it_is_where_the_far_end_could_not_be_changed(records):
    before, after, record = begun_and_finished(Handle(), set())
    assert "load-conn" not in [*before, *after]
    assert (record.messages["t"], record.connections["t"], record.renew) == (OLD, "", ("t",))
    assert record.kept == {"t": "the far end refused it"}
    assert all(begun.kept == {} for begun in records[:-1]), "an apply that is cut off has completed nothing"


def stats(total):
    return {"ikesas": {"total": total, "half-open": "0"}}


@pytest.fixture
def unused(monkeypatch):
    """A charon that has our connections ``t`` and ``gone`` and no SA; and the restarts that it gets."""
    restarts = []

    async def restart(handle, command, why):
        handle.sent.append("restart")
        restarts.append((command, why))
        return "second"

    async def loaded(client):
        return {"t": {}, "gone": {}}

    monkeypatch.setattr(carrying, "restart_charon", restart)
    monkeypatch.setattr(carrying, "list_connections", loaded)
    seen = observed(connections={"t": "x", "gone": "y"}, files={STRONGSWAN_FILE: "z"})
    facts = replace(seen.facts, charon="first", restart_command=("restart", "it"))
    return replace(seen, connections={"t": {}, "gone": {}}, ike_sas=0, facts=facts), restarts


WITH_MTU = b"charon {\n plugins {\n kernel-netlink {\n mtu = 1350\n }\n }\n}\n"


def restarting(handle, seen):
    file = NewFile(STRONGSWAN_FILE, WITH_MTU, 0o644)
    wanted = Wanted("a", "top", {STRONGSWAN_FILE: file}, {"t": OLD}, shared={"k": {}})
    changes = [
        change(Part.FILE, STRONGSWAN_FILE),
        change(Part.CHARON, "restart"),
        change(Part.CONNECTION, "gone", Kind.REMOVE),
    ]
    return carry(handle, seen, *changes, wanted=wanted)


def test_a_charon_that_was_restarted_is_told_everything_and_has_read_all(records, unused):
    seen, restarts = unused
    handle = Handle(answers={"stats": stats("0")})
    record = restarting(handle, seen)
    assert restarts == [(("restart", "it"), "kernel-netlink.mtu = 1350")]
    # What the plan says nothing of is loaded, too, and nothing has to be taken away.
    assert handle.sent == ["stats", "restart", "reload-settings", "load-shared", "load-conn"]
    assert record == records[-1]
    assert record.start_up.charon == "second"
    assert record.start_up.read == record.start_up.written == {"kernel-netlink.mtu": "1350"}
    assert record.connections.keys() == {"t"}


def test_an_sa_that_came_after_the_plan_keeps_charon_running(records, unused):
    seen, restarts = unused
    handle = Handle(answers={"stats": stats("1")})
    record = restarting(handle, seen)
    assert restarts == []
    assert handle.sent == ["stats", "reload-settings", "unload-conn", "terminate"]
    assert record.start_up.pending("first") == {"kernel-netlink.mtu": ("", "1350")}


def test_the_record_knows_of_a_charon_that_did_not_come_back(records, unused, monkeypatch):
    seen, _ = unused

    async def fails(handle, command, why):
        raise GatewayUnreachable("a", "charon did not come back", charon_down=True)

    monkeypatch.setattr(carrying, "restart_charon", fails)
    with pytest.raises(GatewayUnreachable, match="did not come back"):
        restarting(Handle(answers={"stats": stats("0")}), seen)
    (record,) = records
    assert record.connections == {"t": "x", "gone": "y"}
    assert record.start_up.pending("first"), "the one that ran has not read it"
    assert not record.start_up.pending("second"), "whoever starts it then has it read all"


def test_a_private_key_is_never_unloaded(records):
    handle = Handle()
    seen = replace(observed(keys={"private/a.pem": ("id", "digest")}), keys=frozenset({"id"}))
    carry(handle, seen, change(Part.KEY, "private/a.pem", Kind.REMOVE))
    assert "unload-key" not in handle.sent
    assert records[-1].keys == {}


def test_the_need_to_renew_and_what_charon_still_has_are_recorded(records):
    wanted = Wanted("a", "top", connections={"t": NEW})
    seen = observed(connections={"t": "x"}, messages={"t": OLD})
    disturbing = change(Part.CONNECTION, "t", disruption=Disruption.IKE_RESTART)
    assert carry(Handle(), seen, disturbing, wanted=wanted).renew == ("t",)
    assert [record.renew for record in records] == [("t",), ("t",)]
    with pytest.raises(ApplyFailed):
        carry(Handle("load-conn"), seen, disturbing, wanted=wanted)
    assert records[-1].messages == {"t": OLD}
    again = plan_gateway(wanted, replace(seen, facts=replace(seen.facts, record=records[-1])))
    assert again.disturbed == {"t": Disruption.REKEY}


def gateway(name):
    control = Control(ControlKind.LAB)
    return Gateway(name, name, IPAddress("192.0.2.1"), False, None, 1500, control, DataPath.AUTO, name, True)


def tunnel(name, left, right):
    ends = [SimpleNamespace(gateway=gateway(end)) for end in (left, right)]
    return SimpleNamespace(name=name, left=ends[0], right=ends[1])


def test_tunnels_of_a_gateway_that_could_not_be_changed_are_left_as_they_run():
    plans = [
        GatewayPlan("a", (change(Part.CONNECTION, name, disruption=Disruption.IKE_RESTART),))
        for name in ("ab", "ac")
    ]
    tunnels = [tunnel("ab", "a", "b"), tunnel("ac", "a", "c"), tunnel("bc", "b", "c")]
    prepared = SimpleNamespace(plans=plans, topology=SimpleNamespace(tunnels=tunnels))
    results = [
        GatewayResult("a", 1, 0.1),
        GatewayResult("b", 1, 0.1, ApplyFailed("disk full")),
    ]
    left = renewal.left(prepared, results)
    assert left == {"ab": "b could not be changed"}

    handle = Handle()

    async def let_go():
        async with handle.vici(timeout_s=1) as client:
            return await renewal.let_go(SimpleNamespace(client=lambda name: client), prepared, {*left})

    assert asyncio.run(let_go()) == {"ac"}
    assert handle.sent == ["terminate"]


def test_sas_that_charon_is_busy_with_are_made_anew_like_others(monkeypatch):
    """Left out, such a one would stay, and its tunnel be taken for one that was made anew."""

    @asynccontextmanager
    async def watching(handles):
        async def look_well(_gateways):
            busy = {"t": {"uniqueid": "7", "state": "ESTABLISHED", "child-sas": {}}}
            return {"a": SimpleNamespace(sas=(busy,))}

        yield SimpleNamespace(look_well=look_well)

    monkeypatch.setattr(renewal, "watch", watching)
    plan = GatewayPlan("a", (change(Part.CONNECTION, "t", disruption=Disruption.IKE_RESTART),))
    prepared = SimpleNamespace(plans=[plan], observed={"a": None}, handles={"a": None})
    assert asyncio.run(renewal.before(prepared, {"t": "a"}, ())) == {"t": frozenset({7})}


def test_what_was_renewed_is_struck_out(monkeypatch):
    written = []

    async def write(handle, files, removed=()):
        written.extend(Record.from_json(f.content).renew for f in files)

    monkeypatch.setattr(renewal, "write_files", write)
    prepared = SimpleNamespace(handles={"a": None, "b": None})
    records = {"a": Record(b"k", renew=("t", "u")), "b": Record(b"k", renew=("u",))}
    asyncio.run(renewal.strike_out(prepared, records, {"t"}))
    assert written == [("u",)]


def test_a_record_that_cannot_be_written_is_tried_again_and_then_said(monkeypatch):
    tries = []

    async def write(handle, files, removed=()):
        tries.append(handle)
        if handle == "never" or tries.count(handle) == 1:
            raise ApplyFailed("disk full")

    monkeypatch.setattr(renewal, "write_files", write)
    prepared = SimpleNamespace(handles={"a": "at last", "b": "never"})
    records = {name: Record(b"k", renew=("t",)) for name in "ab"}
    failed = asyncio.run(renewal.strike_out(prepared, records, {"t"}))
    assert sorted(tries) == ["at last"] * 2 + ["never"] * 2
    assert list(failed) == ["b"]
    assert "record cannot be written: disk full" in failed["b"].summary


def test_ways_come_first_and_go_last(monkeypatch):
    done = []

    async def write(handle, files, removed=()):
        done.append("record" if [f.path for f in files] == [RECORD_PATH] else "files")

    def step(name, digest):
        async def work(handle, plan, first=()):
            done.append((name, *first))
            return digest

        return work

    monkeypatch.setattr(carrying, "write_files", write)
    monkeypatch.setattr(carrying, "activate", step("activate", "made"))
    monkeypatch.setattr(carrying, "retire", step("retire", "left"))
    handle = Handle()
    handle.sent = done
    old = Link("ix-old", "xfrm", 7, ours=True)
    seen = observed(connections={"gone": "x", "t": "y"}, interfaces={"ix-old": "if_id=0x7"})
    seen = replace(seen, facts=replace(seen.facts, ways=WaysSeen({"ix-old": old})))
    interface = Interface("ix-t", 7, 1400, (), "t")
    wanted = Wanted("a", "top", connections={"t": NEW}, interfaces={"ix-t": interface})
    record = carry(
        handle,
        seen,
        change(Part.CONNECTION, "t"),
        change(Part.CONNECTION, "gone", Kind.REMOVE),
        change(Part.INTERFACE, "ix-t", Kind.CREATE),
        change(Part.INTERFACE, "ix-old", Kind.REMOVE),
        wanted=wanted,
    )
    assert done == [
        "record",
        ("activate", "ix-old"),
        "load-conn",
        "unload-conn",
        "terminate",
        ("retire",),
        "record",
    ]
    assert record.seen.firewall == "left"
    assert record.interfaces == {"ix-t": interface_text(interface)}


def test_what_was_found_out_is_written_down_though_there_is_nothing_to_do(records):
    seen = observed()
    wanted = Wanted("a", "top", means={"a": Means(DataPath.KERNEL, True)})
    asyncio.run(carrying.remember(Handle(), wanted, seen))
    (record,) = records
    assert (record.means, record.seen) == (wanted.means, seen.facts.record.seen)
    again = replace(seen, facts=replace(seen.facts, record=record))
    asyncio.run(carrying.remember(Handle(), wanted, again))
    asyncio.run(carrying.remember(Handle(), wanted, replace(seen, facts=Facts())))
    assert records == [record]


def test_without_charon_the_host_alone_is_done_and_what_charon_will_load_counts_as_ours(records, monkeypatch):
    async def loaded(handle, plan, first=()):
        return "new nft"

    monkeypatch.setattr(carrying, "activate", loaded)
    down = GatewayUnreachable("a", "charon is not running", "Start it", charon_down=True)
    seen = observed(connections={"t": "x", "gone": "y"}, messages={"t": OLD}, files={"/old": "z"})
    seen = replace(seen, connections={}, version="", charon_down=down)
    file = NewFile("/new", b"content", 0o644)
    wanted = Wanted("a", "top", files={"/new": file}, connections={"t": NEW, "u": NEW}, shared={"k": {}})
    handle = Handle("version")
    record = carry(handle, seen, change(Part.FILE, "/new", Kind.CREATE), wanted=wanted)
    assert handle.sent == []
    assert record == records[-1]
    assert record.connections == {"t": "", "gone": "y", "u": ""}
    assert record.shared == {"k": ""}
    assert (record.files.keys(), record.messages) == ({"/old", "/new"}, {"t": OLD})
    assert record.files["/new"]
    assert (record.seen.firewall, record.start_up.charon) == ("new nft", NO_CHARON)
    # charon starts and loads our files: that is no conflict, and the rest is done then.
    facts = replace(seen.facts, record=record, charon="8-1")
    up = replace(seen, connections={"t": {}, "u": {}, "gone": {}}, charon_down=None, facts=facts)
    later = plan_gateway(wanted, up)
    assert later.conflicts == ()
    assert {(c.name, c.kind) for c in later.of(Part.CONNECTION)} == {
        ("t", Kind.CHANGE),
        ("u", Kind.CHANGE),
        ("gone", Kind.REMOVE),
    }


def test_a_gateway_without_charon_is_failed_with_what_was_done_there():
    down = GatewayUnreachable("a", "charon is not running", "Start it.", charon_down=True)
    told = host_alone(GatewayPlan("a", (change(Part.FIREWALL, "inet ipsecctl"),)), down)
    assert told.summary == (
        "a: charon is not running; done without it: firewall inet ipsecctl; not done: its connections and "
        "keys, and what is to be taken away"
    )
    assert (told.hint, told.charon_down) == ("Start it, then apply again.", True)


# ------------------------------------------------------------------------------------------------------ traps


class Trapped(Handle):
    """A gateway that has traps, by connection and child, and does as it is told with them."""

    def __init__(self, *traps, refused=()):
        super().__init__(*refused)
        self.traps = set(traps)
        self.told = []

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        async def command(name, message=None):
            self.told.append((name, message))
            if name in self.refused:
                raise ViciRefused("no")
            trap = (message["ike"], message["child"]) if name in ("install", "uninstall") else None
            if name == "uninstall" and trap not in self.traps:
                raise ViciRefused(f"policy '{trap[1]}' not found")
            if trap:
                (self.traps.add if name == "install" else self.traps.remove)(trap)
            return {}

        async def commands(name, messages):
            return [await command(name, message) for message in messages]

        async def stream(name, event, message=None):
            if name != "list-policies":
                return []
            return [{f"{ike}/{child}": {"ike": ike, "child": child}} for ike, child in sorted(self.traps)]

        yield SimpleNamespace(command=command, commands=commands, stream=stream, stream_undecoded=stream)

    def said(self, *names):
        return [(name, message) for name, message in self.told if name in names]


def named(*names):
    return {"children": {name: {"local_ts": ["10.1.0.0/24"], "start_action": "trap"} for name in names}}


def test_a_trap_under_an_old_name_goes_and_the_new_one_comes_first(records):
    handle = Trapped(("t", "old"), ("others", "theirs"))
    target = Wanted("a", "top", connections={"t": named("new")})
    seen = observed(messages={"t": named("old")}, connections={"t": "d"})
    carry(handle, seen, change(Part.CONNECTION, "t"), wanted=target)
    assert handle.said("install", "uninstall") == [
        ("install", {"child": "new", "ike": "t"}),
        ("uninstall", {"child": "old", "ike": "t"}),
    ]
    assert handle.traps == {("t", "new"), ("others", "theirs")}


def test_so_it_is_after_an_apply_that_was_cut_off_between_the_two(records):
    handle = Trapped(("t", "old"), ("t", "new"))
    target = Wanted("a", "top", connections={"t": named("new")})
    seen = observed(messages={"t": named("old")}, connections={"t": ""})
    carry(handle, seen, change(Part.CONNECTION, "t"), wanted=target)
    assert handle.traps == {("t", "new")}


def test_a_connection_that_goes_takes_a_trap_under_an_old_name_with_it(records):
    handle = Trapped(("t", "old"), ("others", "theirs"))
    seen = observed(messages={"t": named("new")}, connections={"t": "d"})
    carry(handle, seen, change(Part.CONNECTION, "t", Kind.REMOVE))
    assert handle.traps == {("others", "theirs")}
    gone = replace(seen, connections={}, traps={"t": frozenset({"old"})})
    handle = Trapped(("t", "old"))
    carry(handle, gone, change(Part.CONNECTION, "t", Kind.REMOVE))
    assert (handle.traps, handle.said("unload-conn")) == (set(), []), "it is unloaded already"


def test_what_stands_in_the_way_is_ended_before_the_connection_is_loaded(records):
    handle = Trapped(("t", "stray"))
    target = Wanted("a", "top", connections={"t": named("new")})
    seen = observed(messages={"t": named("old")}, connections={"t": "d"})
    child_sas = {"stray-8": {"name": "stray", "uniqueid": "8", "state": "INSTALLED"}}
    child_sas |= {"old-7": {"name": "old", "uniqueid": "7", "state": "INSTALLED"}}
    seen = replace(seen, sas=({"t": {"state": "ESTABLISHED", "child-sas": child_sas}},))
    carry(handle, seen, change(Part.CONNECTION, "t"), wanted=target)
    ended = ("terminate", {"child-id": "8", "force": "yes", "timeout": "1000"})
    first = [("uninstall", {"child": "stray", "ike": "t"}), ended, ("load-conn", {"t": named("new")})]
    assert handle.told[:3] == first
    assert handle.said("terminate") == [ended], "the others are moved, or broken, as planned"


def test_traps_of_what_is_held_back_stay(records):
    handle = Trapped(("t", "old"))
    target = Wanted("a", "top", connections={"t": named("new")})
    seen = observed(messages={"t": named("old")}, connections={"t": "d"})
    plan = GatewayPlan("a", (change(Part.CONNECTION, "t"),))

    async def main():
        carrier = carrying.Carrier(handle, plan, target, seen, {"t": None})
        assert await carrier.begin() is None
        async with handle.vici(timeout_s=1.0) as client:
            await carrier.finish(client, frozenset())

    asyncio.run(main())
    assert handle.traps == {("t", "old")}

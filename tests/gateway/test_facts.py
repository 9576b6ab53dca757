"""What a gateway's shell tells, parsed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import selectors
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from ipsecctl.desired import FIREWALL_FILE, Means
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import (
    NO_CHARON,
    CharonSilent,
    Completed,
    FileSeen,
    Guard,
    Record,
    Seen,
    StartUp,
    WaysSeen,
    look,
    observe,
)
from ipsecctl.gateway.look import parse_shell
from ipsecctl.gateway.observe import parse_facts
from ipsecctl.gateway.restart import how_to_restart
from ipsecctl.patience import PATIENCE
from ipsecctl.topology import DataPath
from ipsecctl.vici import encode_message


def test_nothing_there():
    facts = parse_facts([])
    assert (facts.files, facts.record, facts.firewall, facts.ways) == ({}, None, "", WaysSeen())
    assert (facts.unit, facts.record_sha256) == (None, hashlib.sha256(b"").hexdigest())


def test_all_of_it():
    record = Record.fresh()
    facts = parse_facts(
        [
            f"record {base64.b64encode(record.to_json()).decode()}",
            "mode 600 /etc/swanctl/conf.d/ipsecctl-secrets.conf",
            "mode 644 /etc/ipsecctl/with space",
            "sha256 aa  /etc/swanctl/conf.d/ipsecctl-secrets.conf",
            "sha256 bb  /etc/ipsecctl/with space",
            "firewall cc",
            "sysctl net.ipv4.conf.*.send_redirects 1",
            "sysctl net.ipv4.conf.*.send_redirects 0",
            "sysctl net.ipv4.conf.*.send_redirects 1",
            "sysctl net.ipv4.ip_local_port_range 32768 60999",
            "route unreachable 10.1.0.0/24 proto 213 metric 4278198272 ",
            "kernel e62cfc5b",
            "kernel-policy out 10.1.0.0/24 10.2.0.0/24 0x2a",
            "kernel-policy in 10.1.0.0/24 10.3.0.0/24 0x0",
            "kernel policies",
            "legacy ip filter -P FORWARD DROP",
        ]
    )
    assert facts.record == record
    assert facts.files == {
        "/etc/swanctl/conf.d/ipsecctl-secrets.conf": FileSeen("aa", 0o600),
        "/etc/ipsecctl/with space": FileSeen("bb", 0o644),
    }
    assert facts.firewall == "cc"
    assert facts.sysctls == {
        "net.ipv4.conf.*.send_redirects": ("0", "1"),
        "net.ipv4.ip_local_port_range": ("32768 60999",),
    }
    assert {(str(route.prefix), route.kind, route.ours) for route in facts.ways.routes} == {
        ("10.1.0.0/24", "unreachable", True)
    }
    assert (facts.kernel, facts.if_ids, facts.legacy_rules) == (
        "e62cfc5b",
        {42},
        ("ip filter -P FORWARD DROP",),
    )


def test_a_damaged_record_is_an_error():
    with pytest.raises(ValueError, match="not a record"):
        parse_facts([f"record {base64.b64encode(b'half a rec').decode()}"])


def test_what_systemd_says_of_the_unit_and_which_record_it_was():
    record = Record.fresh().to_json()
    lines = ["unit not-found inactive", f"record {base64.b64encode(record).decode()}"]
    facts = parse_facts(lines)
    assert facts.unit == ("not-found", "inactive")
    assert facts.record_sha256 == hashlib.sha256(record).hexdigest()


def recorded(**more):
    record = Record(b"k" * 32, seen=Seen(firewall="aa"), **{"files": {FIREWALL_FILE: "x"}, **more})
    return f"record {base64.b64encode(record.to_json()).decode()}"


@pytest.mark.parametrize(
    ("lines", "guard"),
    [
        ([], Guard.UNKNOWN),
        (["firewall aa"], Guard.UNKNOWN),
        (["absent"], Guard.UNKNOWN),
        ([recorded()], Guard.UNKNOWN),
        ([recorded(), "firewall aa"], Guard.LOADED),
        ([recorded(), "firewall bb"], Guard.ALTERED),
        ([recorded(), "absent"], Guard.MISSING),
        ([recorded(files={}), "absent"], Guard.UNKNOWN),
    ],
)
def test_what_became_of_the_firewall(lines, guard):
    seen = parse_shell(lines)
    assert (seen.guard, seen.forwarding) == (guard, None)


@pytest.mark.parametrize(
    ("values", "forwarding"),
    [(["1"], True), (["0"], False), (["1", "1"], True), (["1", "0"], False), ([""], None), (["1", ""], None)],
)
def test_forwarding_is_said_only_where_it_is_known(values, forwarding):
    seen = parse_shell([f"forwarding {value}" for value in values])
    assert (seen.guard, seen.forwarding) == (Guard.UNKNOWN, forwarding)


def started(charon, read, written):
    record = recorded(start_up=StartUp(charon, read, written))
    return parse_shell([record, "charon 7-1"]).pending


def test_what_charon_has_not_read_is_told_only_of_the_start_that_was_recorded():
    assert started("7-1", {"a": "1", "same": "x"}, {"b": "2", "same": "x"}) == {
        "a": ("1", ""),
        "b": ("", "2"),
    }
    assert started("6-1", {}, {"b": "2"}) == {}
    assert started("", {}, {"b": "2"}) == {}
    assert started(NO_CHARON, {}, {"b": "2"}) == {}
    assert parse_shell([recorded(start_up=StartUp("", {}, {"b": "2"}))]).pending == {}


@pytest.mark.parametrize(
    ("lab", "service", "how"),
    [
        ("x", "lab", "ipsecctl lab exec x a -- /usr/lib/ipsecctl-lab/charon stop, the same with start, "),
        ("", "unit strongswan-starter", "systemctl restart strongswan-starter"),
        ("", "unit a; rm -rf /", "stop and start it as it is started there"),
        ("", "systemd", "systemctl restart strongswan"),
        ("x", "", "stop and start it as it is started there"),
    ],
)
def test_how_charon_is_restarted_hangs_on_where_it_runs(lab, service, how):
    assert how_to_restart(SimpleNamespace(name="a", lab=lab), service).startswith(how)


class Seer:
    """A gateway whose charon answers (or is ``gone``), and whose shell does as told."""

    name = "a"

    def __init__(self, shell, gone=None):
        self.shell = shell
        self.gone = gone

    async def run(self, argv, stdin=b"", *, timeout_s=10.0):
        return await self.shell()

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        if self.gone:
            raise self.gone

        async def command(name, message=None):
            return {"version": "6.1.0"}

        async def stream(name, event, message=None):
            if name == "list-policies":
                return [{"t/t-one": {"child": "t-one", "ike": "t", "mode": "TUNNEL"}}]
            return []

        async def stream_undecoded(name, event, message=None):
            return [encode_message({"t": {}})]

        yield SimpleNamespace(command=command, stream=stream, stream_undecoded=stream_undecoded)


def test_looking_sees_the_firewall_and_what_its_shell_does_is_not_charons_fault():
    async def good():
        return Completed(0, f"{recorded()}\nabsent\nforwarding 1\n".encode(), b"")

    async def refuses():
        raise GatewayUnreachable("a", "no shell")

    async def hangs():
        await asyncio.sleep(30)

    async def damaged():
        return Completed(0, b"record e30=\nforwarding 1\n", b"")

    seen = asyncio.run(look(Seer(good)))
    assert (seen.version, seen.connections) == ("6.1.0", {"t"})
    assert seen.traps == {"t": {"t-one"}}
    assert (seen.shell.guard, seen.shell.forwarding) == (Guard.MISSING, True)
    for shell in (refuses, hangs, damaged):
        seen = asyncio.run(look(Seer(shell), timeout_s=0.1))
        assert (seen.version, seen.shell.guard, seen.shell.forwarding) == ("6.1.0", Guard.UNKNOWN, None)


DEAD = GatewayUnreachable("a", "charon is not running on this host", "start it", charon_down=True)


def test_without_charon_the_shell_still_tells():
    async def good():
        return Completed(0, f"{recorded()}\nabsent\nforwarding 1\n".encode(), b"")

    async def refuses():
        raise GatewayUnreachable("a", "no shell")

    with pytest.raises(CharonSilent) as silent:
        asyncio.run(look(Seer(good, DEAD)))
    assert (silent.value.charon_down, silent.value.shell.guard) == (True, Guard.MISSING)
    with pytest.raises(GatewayUnreachable) as lost:
        asyncio.run(look(Seer(refuses, DEAD)))
    assert lost.value is DEAD


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait: its clock leaps to when the next thing is due."""

    def __init__(self):
        self.now = 0.0
        super().__init__(Leaping(self))

    def time(self):
        return self.now


class Leaping(selectors.SelectSelector):
    def __init__(self, loop):
        super().__init__()
        self.loop = loop

    def select(self, timeout=None):
        self.loop.now += timeout or 0.0
        return super().select(0)


class Hung(Seer):
    """A gateway whose charon takes what it is sent, and is silent."""

    @asynccontextmanager
    async def vici(self, *, timeout_s):
        await asyncio.sleep(3600)
        yield


@pytest.mark.parametrize(
    ("shell_takes_s", "waited_s"), [(0.1, 7), (2.3, 7), (2.5, 7.5), (3, 9), (3.5, 10), (8, 10)]
)
def test_a_silent_charon_costs_a_part_of_the_time_once_the_shell_has_answered(shell_takes_s, waited_s):
    """On a slow line, where the shell takes long, too, charon has more of it."""

    async def slow():
        await asyncio.sleep(shell_takes_s)
        return Completed(0, f"{recorded()}\nabsent\nforwarding 1\n".encode(), b"")

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        with pytest.raises(CharonSilent, match=rf"charon did not answer within {waited_s:g} s") as silent:
            runner.run(look(Hung(slow), timeout_s=10))
        assert runner.get_loop().time() == pytest.approx(waited_s)
    assert silent.value.shell.guard is Guard.MISSING


def test_where_nothing_answers_all_the_time_is_taken():
    async def hangs():
        await asyncio.sleep(3600)

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        with pytest.raises(GatewayUnreachable, match="no answer within 10 s") as lost:
            runner.run(look(Hung(hangs), timeout_s=10))
        assert runner.get_loop().time() == pytest.approx(10)
    assert not isinstance(lost.value, CharonSilent)


@pytest.mark.parametrize("known", [True, False])
def test_without_charon_the_host_is_observed_if_its_data_path_is_known(known):
    means = {"a": Means(DataPath.LIBIPSEC)} if known else {}

    async def shell():
        return Completed(0, f"{recorded(means=means)}\nfirewall cc\n".encode(), b"")

    if not known:
        with pytest.raises(GatewayUnreachable, match="charon is not running"):
            asyncio.run(observe(Seer(shell, DEAD)))
        return
    seen = asyncio.run(observe(Seer(shell, DEAD)))
    assert (seen.charon_down, seen.data_path, seen.facts.firewall) == (DEAD, DataPath.LIBIPSEC, "cc")
    with pytest.raises(GatewayUnreachable, match="hangs"):
        asyncio.run(observe(Seer(shell, GatewayUnreachable("a", "it hangs"))))


@pytest.mark.parametrize(("busy", "seen"), [(0, 1), (3, 1), (10**9, 0)])
def test_a_plan_is_made_of_all_sas_if_charon_lists_them_within_a_moment(busy, seen):
    """It leaves out what it is busy with, as in every rekey, and counts it all the same."""

    async def shell():
        return Completed(0, f"{recorded()}\nfirewall cc\n".encode(), b"")

    class Busy(Seer):
        looks = 0

        @asynccontextmanager
        async def vici(self, *, timeout_s):
            async with super().vici(timeout_s=timeout_s):

                async def command(name, message=None):
                    return {"version": "6.1.0", "ikesas": {"total": "1"}}

                async def stream(name, event, message=None, *, raw=False):
                    if name != "list-sas":
                        return []
                    assert message == {"noblock": "yes"}  # charon is never made to wait
                    self.looks += 1
                    return [{"t": {"state": "ESTABLISHED"}}] if self.looks > busy else []

                async def stream_undecoded(name, event, message=None):
                    return []

                yield SimpleNamespace(command=command, stream=stream, stream_undecoded=stream_undecoded)

    gateway = Busy(shell)
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        found = runner.run(observe(gateway))
        assert runner.get_loop().time() <= 1 * PATIENCE
    assert len(found.sas) == seen
    assert found.sa_names == frozenset(["t"] if seen else [])
    assert gateway.looks <= 10

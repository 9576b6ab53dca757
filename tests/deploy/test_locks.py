"""Two applies at once: the second does nothing and says who is at work; a dead one blocks nobody."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import ipsecctl.gateway.lock as locking
from ipsecctl.deploy.locks import lock_all
from ipsecctl.deploy.prepare import Prepared
from ipsecctl.errors import ApplyFailed, GatewayUnreachable
from ipsecctl.gateway import Facts, LocalHost, Observed, locked
from ipsecctl.plan import GatewayPlan
from ipsecctl.topology import DataPath

NOTHING = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "LOCK_PATH", str(tmp_path / "lock"))
    monkeypatch.setattr(locking, "RECORD_PATH", str(tmp_path / "record"))
    return tmp_path


def take(name="gw"):
    async def main():
        async with locked(LocalHost(name)) as record:
            return record

    return asyncio.run(main())


def test_the_lock_tells_which_record_is_there(place):
    assert take() == NOTHING
    (place / "record").write_bytes(b"{}")
    assert take() == hashlib.sha256(b"{}").hexdigest()
    assert (place / "lock").stat().st_mode & 0o777 == 0o600


def test_who_comes_second_is_told_who_is_at_work(place):
    async def main():
        async with locked(LocalHost("gw")):
            with pytest.raises(ApplyFailed) as busy:
                async with locked(LocalHost("gw")):
                    raise AssertionError
        return busy.value

    busy = asyncio.run(main())
    assert busy.summary.startswith("another apply is at work on gw since 2")
    assert " UTC (" in busy.summary and "@" in busy.summary
    assert "Nothing was done" in busy.hint
    assert take() == NOTHING


HOLDER = """
import asyncio, sys
import ipsecctl.gateway.lock as locking
from ipsecctl.gateway import LocalHost, locked
locking.LOCK_PATH = sys.argv[1]
async def main():
    async with locked(LocalHost("gw")):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_a_killed_apply_holds_nothing(place):
    argv = [sys.executable, "-c", HOLDER, str(place / "lock")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ApplyFailed, match="another apply"):
            take()
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert take() == NOTHING
        except ApplyFailed:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            break


def break_it():
    async def main():
        async with locked(LocalHost("gw"), break_it=True) as record:
            with pytest.raises(ApplyFailed, match="another apply"):
                async with locked(LocalHost("gw")):
                    raise AssertionError
            return record

    return asyncio.run(main())


@pytest.mark.slow
def test_a_lock_can_be_taken_from_who_does_not_let_go(place, monkeypatch):
    monkeypatch.setattr(locking, "_GRACE_S", 0.5)
    argv = [sys.executable, "-c", HOLDER, str(place / "lock")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert break_it() == NOTHING
        holder.send_signal(signal.SIGKILL)


def test_breaking_a_lock_gives_its_holder_time_to_let_go(place):
    async def main():
        async def breaking():
            async with locked(LocalHost("gw"), break_it=True) as record:
                return record

        async with locked(LocalHost("gw")):
            task = asyncio.ensure_future(breaking())
            await asyncio.sleep(0.3)
            assert not task.done()
        return await task

    assert asyncio.run(main()) == NOTHING
    assert break_it() == NOTHING, "nobody holds it"


def test_breaking_a_lock_ends_no_process_that_does_not_hold_it(place, monkeypatch):
    monkeypatch.setattr(locking, "_GRACE_S", 0.1)
    lock = place / "lock"
    with (
        subprocess.Popen(["sleep", "60"]) as bystander,
        subprocess.Popen(
            ["flock", lock, "sh", "-c", "echo held; exec sleep 60"], stdout=subprocess.PIPE
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        lock.write_text(f"since yesterday (somebody)\nshell {bystander.pid}\n")
        with pytest.raises(ApplyFailed, match=r"another apply is at work on gw since yesterday \(somebody\)"):
            break_it()
        assert bystander.poll() is None
        bystander.kill()
        for child in children(other.pid):
            os.kill(child, signal.SIGKILL)


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_gateway_that_cannot_lock_says_why(place, monkeypatch):
    monkeypatch.setattr(locking, "LOCK_PATH", str(place / "none" / "lock"))
    with pytest.raises((ApplyFailed, GatewayUnreachable), match="none/lock"):
        take()


def prepared(*names):
    seen = {name: Observed(name, "6.1.0", DataPath.KERNEL, {}, facts=Facts()) for name in names}
    plans = tuple(GatewayPlan(name) for name in names)
    handles = {name: SimpleNamespace(name=name) for name in names}
    return Prepared(None, (), handles, seen, {}, plans, {})


@pytest.fixture
def gateways(monkeypatch):
    answers, taken, held = {}, [], set()

    @asynccontextmanager
    async def fake(handle, *, break_it):
        taken.append(handle.name)
        await asyncio.sleep(0)
        answer = answers.get(handle.name, NOTHING)
        if isinstance(answer, Exception):
            raise answer
        held.add(handle.name)
        try:
            yield answer
        finally:
            held.remove(handle.name)

    monkeypatch.setattr("ipsecctl.deploy.locks.locked", fake)

    def lock(*names):
        async def main():
            async with lock_all(prepared(*names)) as ready:
                assert held == {plan.gateway for plan in ready.plans}
                return ready

        return asyncio.run(main())

    return SimpleNamespace(answers=answers, taken=taken, held=held, lock=lock)


def test_all_gateways_are_held_and_let_go(gateways):
    assert len(gateways.lock("a", "b", "c").plans) == 3
    assert gateways.lock().plans == ()
    assert not gateways.held


def test_the_first_decides_between_two_that_start_together(gateways):
    gateways.answers["a"] = ApplyFailed("another apply is at work on a")
    with pytest.raises(ApplyFailed, match="on a"):
        gateways.lock("a", "b", "c")
    assert gateways.taken == ["a"]


def test_one_that_is_busy_lets_all_go(gateways):
    gateways.answers["c"] = ApplyFailed("another apply is at work on c")
    with pytest.raises(ApplyFailed, match="on c"):
        gateways.lock("a", "b", "c")
    assert not gateways.held


def test_a_plan_that_another_apply_has_overtaken_is_not_carried_out(gateways):
    gateways.answers["b"] = hashlib.sha256(b"newer").hexdigest()
    with pytest.raises(
        ApplyFailed, match="b was changed by another apply after this one was planned"
    ) as stale:
        gateways.lock("a", "b")
    assert "Apply again" in stale.value.hint
    assert not gateways.held


def test_a_gateway_that_has_gone_is_a_failure_of_its_own(gateways):
    gateways.answers["b"] = GatewayUnreachable("b", "gone")
    ready = gateways.lock("a", "b", "c")
    assert [plan.gateway for plan in ready.plans] == ["a", "c"]
    assert list(ready.failures) == ["b"]

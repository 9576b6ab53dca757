"""The one docker exec under hard use: what is slow, killed, cancelled, or not a relay at all."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway._relay import READ, WINDOW
from ipsecctl.gateway.container import Container

LONGEST_S = 20
# Three generations, one of them with a process group of its own; each writes its number.
FAMILY = "echo $$ >>$0; timeout 300 sh -c 'echo $$ >>$0; exec sleep 300' $0 & echo $! >>$0; sleep 300"


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A container whose inside is this machine; charon's socket in it is ``tmp_path / "vici"``."""
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\nshift 4\nexec {sys.executable} "$@"\n')
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Container("gw", "ipsecctl-l-gw", str(tmp_path / "vici"))


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition):
    until = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < until, "this does not come"
        time.sleep(0.02)


async def until(condition):
    async with asyncio.timeout(LONGEST_S):
        while not condition():  # noqa: ASYNC110 - it is about other processes
            await asyncio.sleep(0.02)


def family(file, size=3):
    """Return the processes of ``FAMILY``, ``None`` while they are not all there."""
    pids = file.read_text().split() if file.exists() else []
    return pids if len(pids) == size else None


def test_more_than_any_frame_or_pipe_takes(container):
    much = os.urandom(READ) * 150
    done = asyncio.run(container.run(("cat",), much, timeout_s=LONGEST_S))
    assert done.stdout == much
    # One who reads nothing of it is no reason to wait.
    assert asyncio.run(container.run(("true",), much, timeout_s=LONGEST_S)).status == 0


def test_who_reads_slowly_holds_up_itself_alone(container, tmp_path):
    async def main():
        with socket.socket(socket.AF_UNIX) as charon:
            charon.bind(str(tmp_path / "vici"))
            charon.listen()
            async with container._channel("socket", LONGEST_S, LONGEST_S) as link:
                channel = await link.socket(str(tmp_path / "vici"))
            end = await asyncio.to_thread(lambda: charon.accept()[0])
            total = 8 * WINDOW
            with end:
                sending = asyncio.create_task(asyncio.to_thread(end.sendall, bytes(total)))
                await until(lambda: len(channel.output._buffer) >= WINDOW)
                assert (await container.run(("cat",), b"beside it")).stdout == b"beside it"
                assert len(channel.output._buffer) <= WINDOW + READ
                read = 0
                while read < total:
                    read += len(await channel.read(READ))
                await sending
            assert (await channel.read(READ), await channel.status) == (b"", 0)

    asyncio.run(main())


def test_a_charon_that_takes_no_calls_holds_up_nobody(container, tmp_path):
    async def call():
        async with container.vici(timeout_s=LONGEST_S) as client:
            return await client.command("version")

    async def main():
        with socket.socket(socket.AF_UNIX) as charon:
            charon.bind(str(tmp_path / "vici"))
            charon.listen(0)
            calls = [asyncio.create_task(call()) for _ in range(4)]
            await asyncio.wait(calls, timeout=0.3)
            assert not any(called.done() for called in calls)
            assert (await container.run(("cat",), b"beside it")).stdout == b"beside it"
            for _ in calls:  # all of them come when there is time for them
                end = await asyncio.to_thread(lambda: charon.accept()[0])
                end.close()
            for called in calls:
                with pytest.raises(GatewayUnreachable):
                    await called

    asyncio.run(main())


@pytest.mark.slow
def test_a_flood_that_a_command_leaves_behind(container, tmp_path):
    script = "yes & echo $! >$0; sleep 0.2; exit 4"
    done = asyncio.run(container.run(("sh", "-c", script, str(tmp_path / "pid")), timeout_s=LONGEST_S))
    assert done.status == 4
    wait_for(lambda: not runs((tmp_path / "pid").read_text().strip()))  # it has nobody to write to


def test_what_is_cancelled_is_ended_with_all_its_processes(container, tmp_path):
    async def main():
        working = asyncio.create_task(container.run(("sh", "-c", FAMILY, str(tmp_path / "pids"))))
        await until(lambda: family(tmp_path / "pids"))
        working.cancel()
        await asyncio.wait([working])
        await until(lambda: not any(map(runs, family(tmp_path / "pids"))))
        assert (await container.run(("true",))).status == 0

    asyncio.run(main())


@pytest.mark.slow
def test_what_has_a_session_of_its_own_comes_to_its_end(container, tmp_path):
    async def main():
        script = "echo >$0.begun; sleep 1; echo >$0.done"
        work = ("setsid", "--wait", "sh", "-c", script, str(tmp_path / "restart"))
        working = asyncio.create_task(container.run(work))
        await until((tmp_path / "restart.begun").exists)
        working.cancel()
        await asyncio.wait([working])

    asyncio.run(main())
    wait_for((tmp_path / "restart.done").exists)


@pytest.mark.slow
def test_a_limit_of_time_ends_all_processes(container, tmp_path):
    async def main():
        with pytest.raises(GatewayUnreachable, match="'sh' did not end within 1 s"):
            await container.run(("sh", "-c", FAMILY, str(tmp_path / "pids")), timeout_s=1)
        await until(lambda: not any(map(runs, family(tmp_path / "pids"))))

    asyncio.run(main())


@pytest.mark.slow
def test_what_is_to_be_held_and_says_nothing_is_ended(container, tmp_path):
    async def main():
        silent = ("sh", "-c", "echo $$ >$0; exec sleep 300", str(tmp_path / "pid"))
        with pytest.raises(GatewayUnreachable, match="'sh' did not end within"):
            async with container.hold(silent, timeout_s=1):
                raise AssertionError
        await until(lambda: not runs((tmp_path / "pid").read_text().strip()))

    asyncio.run(main())


CONTROLLER = """
import asyncio, signal, sys
from ipsecctl.gateway.container import Container
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
async def main():
    container = Container("gw", "ipsecctl-l-gw")
    async with container.hold(("sh", "-c", "echo $PPID; cat; echo over >$0", sys.argv[1])) as relay:
        print(relay, flush=True)
        await container.run(("sh", "-c", sys.argv[3], sys.argv[2]), timeout_s=200)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_who_had_it_done(container, tmp_path, signalled):
    async def main():
        over, pids = tmp_path / "over", tmp_path / "pids"
        controller = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CONTROLLER, str(over), str(pids), FAMILY,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        relay = (await controller.stdout.readline()).decode().strip()
        await until(lambda: family(pids))
        assert runs(relay)
        controller.send_signal(signalled)
        await controller.wait()
        await until(lambda: not any(map(runs, (relay, *family(pids)))))
        assert over.read_text() == "over\n"  # what was held had the time to end by itself

    asyncio.run(main())


def test_a_lost_link_is_noticed_by_the_outer_of_two_that_hold(container):
    async def main():
        async with container.hold(("sh", "-c", "echo $PPID; cat")) as relay:
            async with container.hold(("sh", "-c", "echo held; cat")):
                pass
            os.kill(int(relay), signal.SIGKILL)
            with pytest.raises(GatewayUnreachable):
                await container.run(("true",))
            with pytest.raises(GatewayUnreachable, match="held no more"):
                await container.run(("true",))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (
            'echo "OCI runtime exec failed: \\"python3\\": executable file not found in $PATH"',
            "has no python3",
        ),
        ("echo hm", "container ipsecctl-l-gw: hm"),
        ("echo Error: No such container: c >&2; exit 1", "does not exist"),
    ],
)
def test_a_docker_that_starts_no_relay(container, tmp_path, script, cause):
    async def enter():
        async with container.vici(timeout_s=LONGEST_S):
            raise AssertionError

    (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
    for work in (container.run(("true",)), enter()):
        with pytest.raises(GatewayUnreachable, match=cause):
            asyncio.run(work)


@pytest.mark.slow
def test_a_container_that_is_paused_meanwhile(container, tmp_path):
    async def main():
        async with container.hold(("sh", "-c", "echo $PPID; cat")) as relay:
            os.kill(int(relay), signal.SIGSTOP)
            (tmp_path / "docker").write_text(
                "#!/bin/sh\necho Container c is paused, unpause it >&2\nexit 1\n"
            )
            with pytest.raises(GatewayUnreachable, match="container ipsecctl-l-gw is paused"):
                await container.run(("true",), timeout_s=0.1)
            with pytest.raises(GatewayUnreachable, match="container ipsecctl-l-gw is paused") as silent:
                async with container.vici(timeout_s=0.3):
                    raise AssertionError
            assert not silent.value.charon_down
            os.kill(int(relay), signal.SIGCONT)
            assert (await container.run(("true",))).status == 0  # and what was held is held

    asyncio.run(main())

"""SSH once it stands: commands, what is held, charon's socket, files (the server is in conftest)."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ipsecctl.errors import ApplyFailed, GatewayUnreachable
from ipsecctl.gateway import NewFile, _ssh_shell, ssh, write_files
from ipsecctl.gateway._ssh_words import Destination

USER = "netops"


# ------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_command(server, uid):
    server.uid = uid
    server.noise = "echo welcome; echo 'mind the gap' >&2"
    data = bytes(range(256)) * 4000

    async def work():
        script = 'cat; printf %s "$1" >&2; exit 3'
        said = await server.handle.run(["sh", "-c", script, "x", "it's\n* \\n"], data)
        assert (said.status, said.stdout) == (3, data)
        assert said.stderr.decode() == "mind the gap\nit's\n* \\n"
        assert (await server.handle.run(["id", "-u"])).stdout == b"0\n"

    server.during(work)
    asked = server.folder / "sudo.log"
    lines = asked.read_text().splitlines() if asked.exists() else []
    assert lines == ([f"-n /bin/sh -c {_ssh_shell.BOOT}"] * 2 if uid else [])


def test_nothing_of_a_script_or_its_input_is_on_the_command_line(server):
    async def work():
        await server.handle.run(["sh", "-c", "cat # SCRIPT"], b"SECRET")

    server.during(work)
    assert set(server.commands) == {_ssh_shell.AS_ROOT}
    assert "SECRET" not in (server.folder / "sudo.log").read_text()


def test_one_connection_serves_everything(server):
    async def work():
        handle = server.handle
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(handle.run(["true"]))
        async with handle.hold(["sh", "-c", "echo held; cat"]):
            await handle.run(["true"])

    server.during(work)
    assert server.connections == 1


@pytest.mark.slow
def test_a_command_that_does_not_end_is_ended_on_the_gateway(server):
    async def work():
        script = f"echo $$ >{server.folder}/pid; exec sleep 60"
        handle = server.handle
        await handle.run(["true"])
        with pytest.raises(GatewayUnreachable, match=r"gw: 'sh' did not end within 2 s"):
            await handle.run(["sh", "-c", script], timeout_s=2)

    server.during(work)
    with suppress(FileNotFoundError):  # nobody need have reaped it yet
        stat = Path(f"/proc/{(server.folder / 'pid').read_text().strip()}/stat").read_text()
        assert stat.rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_cancelling_leaves_the_connection_good(server):
    async def work():
        handle = server.handle
        await handle.run(["true"])
        task = asyncio.create_task(handle.run(["sleep", "60"]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await handle.run(["echo", "on"])).stdout == b"on\n"

    server.during(work)
    assert server.connections == 1


def test_a_connection_that_broke_is_made_anew(server):
    async def work():
        handle = server.handle
        await handle.run(["true"])
        (await handle._connection()).abort()
        await asyncio.sleep(0)
        assert (await handle.run(["echo", "again"])).stdout == b"again\n"

    server.during(work)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("sudo: a password is required", "may not become it: sudo: a password is required"),
        (
            "Sorry, user netops is not allowed to execute that as root on gw.\nsudo: bad",
            "may not become it: sudo: bad",
        ),
        ("sudo: you must have a tty to run sudo", "may not become it: sudo: you must have a tty"),
        ("/bin/sh: 1: exec: sudo: not found", "is not root, and there is no sudo"),
        ("This account is currently not available.", "can run nothing there: This account is"),
    ],
)
def test_a_login_that_cannot_become_root(server, said, cause):
    server.sudo_says(said)
    error = server.refusal()
    assert f"gw: the login {USER} " in error.summary and cause in error.summary
    assert not error.charon_down
    if "may not" in cause:
        assert error.hint.endswith(
            " add this line: netops ALL=(root) NOPASSWD: /bin/sh -c " + _ssh_shell.BOOT
        )


@pytest.mark.parametrize("work", ["run", "vici", "hold"])
def test_what_ends_before_it_was_written_to_has_still_said_why(server, monkeypatch, work):
    server.sudo_says("sudo: a password is required")
    start = ssh._start

    async def ended(connection, command):
        process = await start(connection, command)
        if command == _ssh_shell.AS_ROOT:
            await process.wait_closed()
        return process

    async def asked():
        match work:
            case "run":
                await server.handle.run(["cat"], b"data")
            case "vici":
                async with server.handle.vici():
                    pass
            case "hold":
                async with server.handle.hold(["cat"]):
                    pass

    monkeypatch.setattr(ssh, "_start", ended)
    assert "may not become it: sudo: a password is required" in server.refusal(asked).summary


def test_a_server_without_sessions(server):
    server.sessions = False
    assert "gw: its sshd opens no session" in server.refusal().summary


# ----------------------------------------------------------------------------------------------- hold, lock


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never was")


def test_what_is_held_ends_with_the_context(server):
    async def work():
        async with server.handle.hold(
            ["sh", "-c", f"echo ready; cat; echo over >{server.folder}/end"]
        ) as line:
            assert line == "ready"
            assert not (server.folder / "end").exists()
        assert (server.folder / "end").exists()

    server.during(work)


def test_what_is_held_ends_when_nothing_is_heard_of_us(server, monkeypatch):
    monkeypatch.setattr(ssh, "_SILENCE_S", 0.2)

    async def work():
        handle = server.handle
        async with handle.hold(["sh", "-c", f"echo ready; cat >/dev/null; echo over >{server.folder}/end"]):
            await until((server.folder / "end").exists)
            with pytest.raises(GatewayUnreachable, match="with it ended the lock") as lost:
                while True:
                    await handle.run(["true"])
            assert lost.value.hint == "Nothing more was done there. Apply again."
        await handle.run(["true"])

    server.during(work)


@pytest.mark.slow
def test_beats_keep_what_is_held(server, monkeypatch):
    monkeypatch.setattr(ssh, "_SILENCE_S", 1.0)
    monkeypatch.setattr(ssh, "_BEAT_S", 0.05)

    async def work():
        handle = server.handle
        script = f"echo ready; while read -r x; do echo >>{server.folder}/beats; done"
        async with handle.hold(["sh", "-c", script]):
            beats = server.folder / "beats"
            await until(lambda: beats.exists() and len(beats.read_text()) >= 30)
            await handle.run(["true"])

    server.during(work)


def test_holding_what_says_nothing(server):
    async def work():
        async with server.handle.hold(["sh", "-c", "echo no >&2; exit 1"], timeout_s=20):
            raise AssertionError

    async def main():
        with pytest.raises(GatewayUnreachable, match="gw: no"):
            await work()

    server.during(main)


# ----------------------------------------------------------------------------------------------------- VICI


@asynccontextmanager
async def charon(path):
    """A charon that answers whatever it is asked with its version."""
    body = b"\x01\x03\x07version\x00\x056.1.0"

    open_ones = {}

    async def serve(reader, writer):
        open_ones[asyncio.current_task()] = writer
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                await reader.readexactly(length)
                writer.write(struct.pack("!I", len(body)) + body)
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        try:
            yield
        finally:
            for writer in open_ones.values():
                writer.close()
            if open_ones:
                await asyncio.wait(open_ones)


async def version(server):
    async with (
        charon(server.folder / "charon.vici"),
        server.handle.vici(timeout_s=20) as client,
        server.handle.vici(timeout_s=20) as second,
    ):
        assert (await client.command("version", {"big": ["x" * 60_000] * 5}))["version"] == "6.1.0"
        return (await second.command("version"))["version"]


def test_the_socket_is_forwarded_where_the_login_may_open_it(server):
    assert server.during(lambda: version(server)) == "6.1.0"
    assert server.forwarded == [f"{server.folder}/charon.vici"] * 2
    assert set(server.commands) == {_ssh_shell.GREETING}


BRIDGES = [name for name in ("socat", "python3", "perl") if shutil.which(name)]


@pytest.mark.parametrize("tool", BRIDGES)
def test_the_socket_is_bridged_where_it_cannot_be_forwarded(server, tool):
    server.forwards = False
    server.only(tool)
    assert server.during(lambda: version(server)) == "6.1.0"
    assert set(server.commands) == {_ssh_shell.GREETING, _ssh_shell.AS_ROOT}


def test_a_gateway_with_nothing_to_bridge_the_socket(server):
    server.forwards = False
    server.only()

    async def main():
        with pytest.raises(GatewayUnreachable, match="takes one of socat, python3, perl and nc") as caught:
            await version(server)
        return caught.value.charon_down

    assert server.during(main) is False


@pytest.mark.parametrize("tool", [None, *BRIDGES])
def test_charon_that_does_not_run(server, tool):
    """Without a socket, or with one that a dead charon has left."""
    if tool:
        server.only(tool)

    async def left() -> None:
        if tool:
            async with charon(server.folder / "charon.vici"):
                (server.folder / "charon.vici").rename(server.folder / "kept")
            (server.folder / "kept").rename(server.folder / "charon.vici")
        async with server.handle.vici(timeout_s=20):
            raise AssertionError

    async def main():
        with pytest.raises(GatewayUnreachable, match="gw: charon is not running there") as caught:
            await left()
        return caught.value.charon_down

    assert server.during(main) is True


@pytest.mark.slow
def test_charon_that_hangs_is_not_down(server):
    async def main():
        stop = asyncio.Event()

        async def silent(reader, writer):
            await stop.wait()
            writer.close()

        handle = server.handle
        await handle.run(["true"])
        async with await asyncio.start_unix_server(silent, server.folder / "charon.vici"):
            with pytest.raises(GatewayUnreachable, match="charon did not answer") as caught:
                async with handle.vici(timeout_s=3):
                    raise AssertionError
            stop.set()
        return caught.value.charon_down

    assert server.during(main) is False


def test_a_connection_that_breaks_under_a_client(server):
    async def main():
        async with charon(server.folder / "charon.vici"):
            handle = server.handle
            async with handle.vici(timeout_s=20) as client:
                (await handle._connection()).abort()
                with pytest.raises(Exception, match="the SSH connection ended") as caught:
                    for _ in range(3):
                        await client.command("version")
                return type(caught.value).__name__

    assert server.during(main) == "ViciError"


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("uid", [0, 1000])
def test_files(server, uid):
    server.uid = uid
    there = server.folder / "etc/new/file"

    async def work():
        handle = server.handle
        for content in (b"old", b"new\0" * 100_000):
            await write_files(handle, [NewFile(str(there), content, 0o640)])
            assert there.read_bytes() == content and there.stat().st_mode & 0o777 == 0o640
        await write_files(handle, [], [str(there)])
        return await handle.stage(b"x")

    staged = server.during(work)
    assert not there.exists()
    left = list((server.folder / "state").iterdir())
    assert left == ([Path(str(staged))] if uid == 0 else []) and (staged is None) is (uid != 0)
    for file in left:
        assert file.stat().st_mode & 0o777 == 0o600


def test_files_where_sftp_fails_go_the_other_way_and_the_gateway_says_what_is_wrong(server):
    server.uid = 0
    (server.folder / "state").write_text("not a directory")

    async def work():
        assert await server.handle.stage(b"x") is None
        with pytest.raises(ApplyFailed, match=r"gw: files cannot be written: mkdir: .*File exists"):
            await write_files(server.handle, [NewFile("/nonexistent", b"", 0o600)])

    server.during(work)


# ---------------------------------------------------------------------------------------------- plain parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gw", Destination("gw")),
        ("root@gw.example.org", Destination("gw.example.org", "root")),
        ("gw:2222", Destination("gw", None, 2222)),
        ("ssh://a@gw:22/", Destination("gw", "a", 22)),
        ("2001:db8::5", Destination("2001:db8::5")),
        ("admin@[2001:db8::5]:22", Destination("2001:db8::5", "admin", 22)),
        ("[2001:db8::5]", Destination("2001:db8::5")),
        ("me@corp@gw", Destination("gw", "me@corp")),
    ],
)
def test_destinations(text, found):
    assert Destination.parse(text) == found
    assert Destination.parse(str(found)) == found


def test_the_documentation_has_the_very_words():
    text = (Path(__file__).parents[2] / "docs/ssh.md").read_text()
    assert f"\n    {_ssh_shell.sudoers_line(USER)}\n" in text
    assert _ssh_shell.AS_ROOT in text.replace("\\|", "|")

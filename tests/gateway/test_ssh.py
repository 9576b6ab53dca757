"""SSH without a lab: a server of asyncssh's in this process, whose commands really run, and a fake sudo."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from ipsecctl.errors import ApplyFailed, GatewayUnreachable
from ipsecctl.gateway import NewFile, _ssh_link, _ssh_shell, files, ssh, write_files
from ipsecctl.gateway._ssh_words import Destination
from ipsecctl.gateway.ssh import SshHost

USER = "netops"
SUDO = """#!/bin/sh
printf '%s\\n' "$*" >>{log}
[ "$1" = -n ] || exit 9
shift
exec env UID0=yes "$@"
"""
ID = """#!/bin/sh
[ "$UID0" ] && echo 0 || echo {uid}
"""


@dataclass
class Server:
    """A gateway's sshd: who may log in, what it allows, and what has happened to it."""

    folder: Path
    port: int = 0
    uid: int = 1000
    forwards: bool = True
    sessions: bool = True
    noise: str = ""
    connections: int = 0
    open: int = 0
    commands: list[str] = field(default_factory=list)
    forwarded: list[str] = field(default_factory=list)
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def known(self) -> str:
        return self.line(self.host_key)

    def line(self, key: asyncssh.SSHKey) -> str:
        return f"[127.0.0.1]:{self.port} {key.export_public_key().decode()}"

    @property
    def handle(self) -> SshHost:
        return SshHost("gw", f"{USER}@127.0.0.1:{self.port}")

    def sudo_says(self, said: str) -> None:
        (self.folder / "bin/sudo").write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")

    def only(self, *tools: str) -> None:
        """Leave nothing on the gateway but a shell, what every script needs, and these."""
        shutil.rmtree(self.folder / "tools")
        (self.folder / "tools").mkdir()
        for tool in ("sh", "head", "timeout", "env", "cat", *tools):
            there = sys.executable if tool == "python3" else shutil.which(tool)
            assert there is not None
            # Python finds its library by its own place, so it is called there.
            (self.folder / "tools" / tool).write_text(f'#!/bin/sh\nexec {there} "$@"\n')
            (self.folder / "tools" / tool).chmod(0o755)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that is not started yet, and a home whose configuration leads to it."""
    found = Server(tmp_path)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("HOME", str(found.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(_ssh_link, "_CONFIGS", ("~/.ssh/config", f"{tmp_path}/ssh_config"))
    monkeypatch.setattr(_ssh_link, "_GLOBAL_KNOWN_HOSTS", (f"{tmp_path}/ssh_known_hosts",))
    for module in (ssh, files):
        monkeypatch.setattr(module, "STATE_DIR", f"{tmp_path}/state")
    for name in ("GREETING", "_BRIDGE"):
        text = getattr(_ssh_shell, name).replace("/run/charon.vici", f"{tmp_path}/charon.vici", 1)
        monkeypatch.setattr(_ssh_shell, name, text)
    key = found.home / ".ssh/id_ed25519"
    key.write_bytes(found.key.export_private_key())
    key.chmod(0o600)
    return found


@asynccontextmanager
async def started(server: Server):
    """Run the server; its key is in the home's known_hosts unless that is there already."""
    (server.folder / "bin/sudo").exists() or (server.folder / "bin/sudo").write_text(
        SUDO.format(log=server.folder / "sudo.log")
    )
    (server.folder / "bin/id").write_text(ID.format(uid=server.uid))
    for tool in (server.folder / "bin").iterdir():
        tool.chmod(0o755)
    tools = list((server.folder / "tools").iterdir())
    path = f"{server.folder}/bin:{server.folder / 'tools' if tools else os.environ['PATH']}"

    class Sshd(asyncssh.SSHServer):
        def connection_made(self, conn):
            server.connections += 1
            server.open += 1

        def connection_lost(self, exc):
            server.open -= 1

        def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
            return True

        def unix_connection_requested(self, dest_path):
            server.forwarded.append(dest_path)
            return server.forwards

    async def copy(source, target):
        with suppress(OSError, asyncssh.Error, asyncssh.BreakReceived):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        if isinstance(target, asyncio.StreamWriter):
            target.close()

    async def serve(process):
        server.commands.append(process.command)
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            f"{server.noise}\n{process.command}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": path, "HOME": str(server.folder)},
            start_new_session=True,
        )
        try:
            sending = asyncio.create_task(copy(process.stdin, child.stdin))
            await asyncio.gather(copy(child.stdout, process.stdout), copy(child.stderr, process.stderr))
            status = await child.wait()
            process.exit(status) if status >= 0 else process.exit_with_signal("KILL")
            sending.cancel()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            await child.wait()

    listener = await asyncssh.listen(
        "127.0.0.1",
        server.port,
        server_factory=Sshd,
        server_host_keys=[server.host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(server.key.export_public_key().decode()),
        process_factory=serve if server.sessions else None,
        sftp_factory=server.uid == 0,
        encoding=None,
    )
    server.port = listener.get_port()
    known = server.home / ".ssh/known_hosts"
    known.exists() or known.write_text(server.known)
    try:
        yield
    finally:
        listener.close()
        await listener.wait_closed()


def during(server: Server, work: Callable[[], Awaitable[object]]) -> object:
    """Run the server and some work, and see that no connection is left when the work's loop has ended.

    Both have loops of their own, as a command's connections are to end with its loop.
    """

    async def serving(stop: asyncio.Event, ready: asyncio.Event) -> None:
        async with started(server):
            ready.set()
            await stop.wait()
            for _ in range(200):
                if not server.open:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("a connection was left")

    async def both() -> object:
        stop, ready = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(serving(stop, ready))
            await ready.wait()
            try:
                return await asyncio.to_thread(lambda: asyncio.run(_done(work)))
            finally:
                stop.set()

    found = asyncio.run(both())
    gc.collect()  # what was not closed says so now
    return found


async def _done(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


def refusal(server: Server, work: Callable[[], Awaitable[object]] | None = None) -> GatewayUnreachable:
    """Return why a gateway cannot be reached."""

    async def reached() -> object:
        return await (work() if work else server.handle.run(["true"], timeout_s=5))

    async def main() -> GatewayUnreachable:
        with pytest.raises(GatewayUnreachable) as caught:
            await reached()
        return caught.value

    found = during(server, main)
    assert isinstance(found, GatewayUnreachable)
    assert found.hint
    return found


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

    during(server, work)
    asked = server.folder / "sudo.log"
    lines = asked.read_text().splitlines() if asked.exists() else []
    assert lines == ([f"-n /bin/sh -c {_ssh_shell.BOOT}"] * 2 if uid else [])


def test_nothing_of_a_script_or_its_input_is_on_the_command_line(server):
    async def work():
        await server.handle.run(["sh", "-c", "cat # SCRIPT"], b"SECRET")

    during(server, work)
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

    during(server, work)
    assert server.connections == 1


def test_a_command_that_does_not_end_is_ended_on_the_gateway(server):
    async def work():
        script = f"echo $$ >{server.folder}/pid; exec sleep 60"
        with pytest.raises(GatewayUnreachable, match=r"gw: 'sh' did not end within 0\.3 s"):
            await server.handle.run(["sh", "-c", script], timeout_s=0.3)

    during(server, work)
    with suppress(FileNotFoundError):  # nobody need have reaped it yet
        stat = Path(f"/proc/{(server.folder / 'pid').read_text().strip()}/stat").read_text()
        assert stat.rpartition(")")[2].split()[0] == "Z"


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

    during(server, work)
    assert server.connections == 1


def test_a_connection_that_broke_is_made_anew(server):
    async def work():
        handle = server.handle
        await handle.run(["true"])
        (await handle._connection()).abort()
        await asyncio.sleep(0)
        assert (await handle.run(["echo", "again"])).stdout == b"again\n"

    during(server, work)
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
    error = refusal(server)
    assert f"gw: the login {USER} " in error.summary and cause in error.summary
    assert not error.charon_down
    if "may not" in cause:
        assert error.hint.endswith(
            " add this line: netops ALL=(root) NOPASSWD: /bin/sh -c " + _ssh_shell.BOOT
        )


def test_a_server_without_sessions(server):
    server.sessions = False
    assert "gw: its sshd opens no session" in refusal(server).summary


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

    during(server, work)


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

    during(server, work)


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

    during(server, work)


def test_holding_what_says_nothing(server):
    async def work():
        async with server.handle.hold(["sh", "-c", "echo no >&2; exit 1"], timeout_s=5):
            raise AssertionError

    async def main():
        with pytest.raises(GatewayUnreachable, match="gw: no"):
            await work()

    during(server, main)


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
        server.handle.vici(timeout_s=5) as client,
        server.handle.vici(timeout_s=5) as second,
    ):
        assert (await client.command("version", {"big": ["x" * 60_000] * 5}))["version"] == "6.1.0"
        return (await second.command("version"))["version"]


def test_the_socket_is_forwarded_where_the_login_may_open_it(server):
    assert during(server, lambda: version(server)) == "6.1.0"
    assert server.forwarded == [f"{server.folder}/charon.vici"] * 2
    assert set(server.commands) == {_ssh_shell.GREETING}


BRIDGES = [name for name in ("socat", "python3", "perl") if shutil.which(name)]


@pytest.mark.parametrize("tool", BRIDGES)
def test_the_socket_is_bridged_where_it_cannot_be_forwarded(server, tool):
    server.forwards = False
    server.only(tool)
    assert during(server, lambda: version(server)) == "6.1.0"
    assert set(server.commands) == {_ssh_shell.GREETING, _ssh_shell.AS_ROOT}


def test_a_gateway_with_nothing_to_bridge_the_socket(server):
    server.forwards = False
    server.only()

    async def main():
        with pytest.raises(GatewayUnreachable, match="takes one of socat, python3, perl and nc") as caught:
            await version(server)
        return caught.value.charon_down

    assert during(server, main) is False


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
        async with server.handle.vici(timeout_s=5):
            raise AssertionError

    async def main():
        with pytest.raises(GatewayUnreachable, match="gw: charon is not running there") as caught:
            await left()
        return caught.value.charon_down

    assert during(server, main) is True


def test_charon_that_hangs_is_not_down(server):
    async def main():
        stop = asyncio.Event()

        async def silent(reader, writer):
            await stop.wait()
            writer.close()

        async with await asyncio.start_unix_server(silent, server.folder / "charon.vici"):
            with pytest.raises(GatewayUnreachable, match="charon did not answer") as caught:
                async with server.handle.vici(timeout_s=0.3):
                    raise AssertionError
            stop.set()
        return caught.value.charon_down

    assert during(server, main) is False


def test_a_connection_that_breaks_under_a_client(server):
    async def main():
        async with charon(server.folder / "charon.vici"):
            handle = server.handle
            async with handle.vici(timeout_s=5) as client:
                (await handle._connection()).abort()
                with pytest.raises(Exception, match="the SSH connection ended") as caught:
                    for _ in range(3):
                        await client.command("version")
                return type(caught.value).__name__

    assert during(server, main) == "ViciError"


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

    staged = during(server, work)
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

    during(server, work)


# ------------------------------------------------------------------------------------------------ host keys


def other_key():
    return asyncssh.generate_private_key("ssh-ed25519")


def test_an_unknown_host(server):
    (server.home / ".ssh/known_hosts").write_text("somewhere-else ssh-ed25519 AAAA\nrubbish\n@odd x y\n")
    error = refusal(server)
    fingerprint = server.host_key.get_fingerprint()
    assert error.cause == (
        f"the host key of [127.0.0.1]:{server.port} is not known: it offers ssh-ed25519 {fingerprint}, "
        f"{server.home}/.ssh/known_hosts has none for it"
    )
    assert error.hint == (
        "On the gateway, see that it is its own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. "
        f"Then: ssh-keyscan -t ed25519 -p {server.port} 127.0.0.1 >> {server.home}/.ssh/known_hosts"
    )
    assert not server.commands


@pytest.mark.parametrize(
    "config",
    [
        "UserKnownHostsFile none\nGlobalKnownHostsFile none\n",
        "UserKnownHostsFile /dev/null\n",
        "StrictHostKeyChecking no\n",
        "StrictHostKeyChecking accept-new\n",
    ],
)
def test_no_configuration_makes_an_unknown_host_known(server, config):
    (server.home / ".ssh/known_hosts").write_text("")
    (server.home / ".ssh/config").write_text(config)
    assert "is not known" in refusal(server).cause
    assert (server.home / ".ssh/known_hosts").read_text() == ""


def test_a_host_key_that_has_changed(server):
    async def prepared():
        (server.home / ".ssh/known_hosts").write_text(f"# comment\n{server.line(other)}")
        await server.handle.run(["true"], timeout_s=5)

    other = other_key()
    error = refusal(server, prepared)
    assert error.cause == (
        f"the host key of [127.0.0.1]:{server.port} is not the one that is known: it offers ssh-ed25519 "
        f"{server.host_key.get_fingerprint()}, {server.home}/.ssh/known_hosts:2 has {other.get_fingerprint()}"
    )
    assert f"ssh-keygen -f {server.home}/.ssh/known_hosts -R '[127.0.0.1]:{server.port}'" in error.hint
    assert not server.commands


def test_a_revoked_host_key(server):
    async def prepared():
        (server.home / ".ssh/known_hosts").write_text(f"{server.known}@revoked {server.known}")
        await server.handle.run(["true"], timeout_s=5)

    server.port = 0

    async def main():
        with pytest.raises(GatewayUnreachable, match="revoked"):
            await prepared()

    during(server, main)


def test_a_host_key_of_another_kind_than_is_known(server):
    async def prepared():
        key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
        (server.home / ".ssh/known_hosts").write_text(server.line(key))
        await server.handle.run(["true"], timeout_s=5)

    error = refusal(server, prepared)
    assert "have no algorithms in common" in error.cause and "ssh-keyscan" in error.hint


@pytest.mark.parametrize("where", ["global", "alias", "authority"])
def test_where_a_host_may_be_known(server, where):
    async def work():
        known = server.home / ".ssh/known_hosts"
        if where == "global":
            (server.folder / "ssh_known_hosts").write_text(known.read_text())
            known.unlink()
        elif where == "alias":
            known.write_text(server.known.replace(f"[127.0.0.1]:{server.port}", "the-gateway"))
            (server.home / ".ssh/config").write_text("HostKeyAlias the-gateway\n")
        else:
            known.write_text(f"@cert-authority * {authority.export_public_key().decode()}")
        assert (await server.handle.run(["echo", "in"])).stdout == b"in\n"

    authority = other_key()
    if where == "authority":
        cert = authority.generate_host_certificate(server.host_key, "gw", principals=["127.0.0.1"])
        server.host_key = (server.host_key, cert)
        (server.home / ".ssh/known_hosts").write_text("")
    during(server, work)


# ------------------------------------------------------------------------------------- the way, and the key


def test_a_key_that_is_not_accepted(server):
    (server.home / ".ssh/id_ed25519").write_bytes(other_key().export_private_key())
    error = refusal(server)
    assert error.cause.startswith(
        f"{USER}@127.0.0.1:{server.port} refuses the login: offered were ssh-ed25519"
    )
    assert "authorized_keys" in error.hint


# Made for this test; its passphrase is "geheim".
WITH_PASSPHRASE = """-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAzITpfWt
nxyhe6tj9hZB9RAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIOXy6OMLmVc4FhYL
1pQPpgfSx6eOGQMsSkxhdfFPjWZlAAAAkMqO0jQyLtKeBdhNRhtffwuRF90IyjJ0pX8B/+
ku0NnUuD7c3I/hgvdw8LkjYQCIy2nizxUyIaLyPXlkqZ3SsoVYuF4s7rHH3wjUSzr4in1v
idcWg4SJ5iaWLSILxZXtlfQMIsrDP4CHpX92yt8E4T/MzNjP6mBDzkl/ulPVWiPWjgcmE5
eu2VFN7VMKo7NAXw==
-----END OPENSSH PRIVATE KEY-----
"""


@pytest.mark.parametrize("passphrase", [False, True])
def test_no_key_at_all_and_one_that_wants_a_passphrase(server, passphrase):
    key = server.home / ".ssh/id_ed25519"
    key.unlink()
    if passphrase:
        key.write_text(WITH_PASSPHRASE)
        key.chmod(0o600)
    assert "refuses the login: there is no key to offer" in refusal(server).cause


def test_a_key_of_the_agent(server, monkeypatch):
    """An agent of this process: OpenSSH's protocol, with the one key in it."""
    (server.home / ".ssh/id_ed25519").unlink()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(server.folder / "agent"))

    async def agent(reader, writer):
        blob, comment = server.key.public_data, b"in the agent"
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = struct.unpack("!I", await reader.readexactly(4))
                asked = await reader.readexactly(length)
                if asked[0] == 11:
                    answer = b"\x0c" + struct.pack("!I", 1) + _string(blob) + _string(comment)
                elif asked[0] == 13:
                    size = struct.unpack("!I", asked[1:5])[0]
                    rest = asked[5 + size :]
                    data = rest[4 : 4 + struct.unpack("!I", rest[:4])[0]]
                    answer = b"\x0e" + _string(server.key.sign(data, b"ssh-ed25519"))
                else:
                    answer = b"\x05"
                writer.write(_string(answer))
        writer.close()

    async def work():
        async with await asyncio.start_unix_server(agent, server.folder / "agent"):
            return (await server.handle.run(["echo", "in"])).stdout

    assert during(server, work) == b"in\n"


def _string(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data


def test_the_configuration_of_both_files_with_aliases_and_matches(server):
    async def work():
        (server.folder / "more").write_text(f"Host gw-a\n  Port {server.port}\n")
        (server.home / ".ssh/config").write_text(
            f"Include {server.folder}/more\nHost gw-a\n  HostName 127.0.0.1\nMatch user nobody\n  Port 1\n"
        )
        (server.folder / "ssh_config").write_text(f"Host *\n  User {USER}\n  Port 2\n")
        assert (await SshHost("gw", "gw-a").run(["echo", "in"])).stdout == b"in\n"

    during(server, work)


def test_a_configuration_that_cannot_be_read(server):
    (server.home / ".ssh/config").write_text("Port never\n")
    error = refusal(server)
    assert "the SSH configuration for 127.0.0.1 cannot be used" in error.cause
    assert error.hint.startswith("Try: ssh -G ")


def unreachable(target: str, timeout_s: float = 5) -> GatewayUnreachable:
    async def main():
        with pytest.raises(GatewayUnreachable) as caught:
            await SshHost("gw", target).run(["true"], timeout_s=timeout_s)
        return caught.value

    return asyncio.run(main())


def test_nobody_listens(server):
    error = unreachable("127.0.0.1:1")
    assert error.cause == "127.0.0.1 port 1 refuses connections"
    assert error.hint == "Is sshd running there (systemctl status ssh), and is that its port?"


def test_a_name_that_there_is_not(server):
    assert unreachable("gw.invalid").cause == "the name 'gw.invalid' cannot be resolved"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (None, r"takes connections, but its SSH server says nothing within \d"),
        (b"", "ended the connection before the login"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "ended the connection before the login"),
        (b"SSH-2.0-test\r\n", "ended the connection before the login"),
    ],
)
def test_what_is_no_ssh_server(server, said, cause):
    async def main():
        stop = asyncio.Event()

        async def serve(reader, writer):
            if said is None:
                await stop.wait()
            else:
                writer.write(said)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(GatewayUnreachable, match=cause) as caught:
                await SshHost("gw", f"127.0.0.1:{port}").run(["true"], timeout_s=0.2 if said is None else 5)
            stop.set()
        assert caught.value.hint

    asyncio.run(main())


def test_two_who_wait_for_one_connection_hear_the_same(server):
    async def main():
        handle = SshHost("gw", "127.0.0.1:1")
        said = await asyncio.gather(*(handle.run(["true"]) for _ in range(2)), return_exceptions=True)
        return {str(error) for error in said}

    assert asyncio.run(main()) == {"gw: 127.0.0.1 port 1 refuses connections"}


def test_gateways_behind_one_jump_host_share_its_connection(server):
    async def work():
        (server.home / ".ssh/config").write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n"
            f"Host gw-*\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n  ProxyJump jump\n"
        )
        handles = [SshHost(name, name) for name in ("gw-a", "gw-b")]
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(handle.run(["true"]))

    during(server, work)
    assert server.connections == 3  # the jump host's, and two through it


def test_a_jump_host_that_cannot_be_reached(server):
    (server.home / ".ssh/config").write_text("Host gw-a\n  ProxyJump 127.0.0.1:1\n")
    error = unreachable("gw-a")
    assert error.cause == "by its jump host: 127.0.0.1 port 1 refuses connections"


def test_a_jump_host_for_all_is_not_its_own(server):
    async def work():
        (server.home / ".ssh/config").write_text("Host *\n  ProxyJump 127.0.0.1\n")
        assert (await server.handle.run(["echo", "in"])).stdout == b"in\n"

    during(server, work)


def test_a_proxy_command_that_fails(server):
    (server.home / ".ssh/config").write_text(
        "Host gw-a\n  ProxyCommand false\nHost gw-b\n  ProxyCommand /no/such\n"
    )
    assert "the ProxyCommand to" in unreachable("gw-a").cause
    assert "the ProxyCommand of gw-b cannot be run: No such file" in unreachable("gw-b").cause


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

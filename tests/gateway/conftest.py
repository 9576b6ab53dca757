"""SSH without a lab: a server of asyncssh's in this process, whose commands really run, and a fake sudo."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import _ssh_link, _ssh_shell, files, ssh
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
    user: str = USER
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

    def during(self, work: Callable[[], Awaitable[object]]) -> object:
        """Run the server and some work, and see that no connection is left when the work's loop has ended.

        Both have loops of their own, as a command's connections are to end with its loop.
        """

        async def serving(stop: asyncio.Event, ready: asyncio.Event) -> None:
            async with started(self):
                ready.set()
                await stop.wait()
                for _ in range(200):
                    if not self.open:
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

    def refusal(self, work: Callable[[], Awaitable[object]] | None = None) -> GatewayUnreachable:
        """Return why a gateway cannot be reached."""

        async def reached() -> object:
            return await (work() if work else self.handle.run(["true"], timeout_s=20))

        async def main() -> GatewayUnreachable:
            with pytest.raises(GatewayUnreachable) as caught:
                await reached()
            return caught.value

        found = self.during(main)
        assert isinstance(found, GatewayUnreachable)
        assert found.hint
        return found


async def _done(work: Callable[[], Awaitable[object]]) -> object:
    return await work()


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

"""A gateway that is reached by SSH, as root or as a login that may become root with sudo.

One connection serves everything as long as the event loop runs: commands (see ``_ssh_shell``), charon's
socket, which is forwarded where the login may open it and else joined to the standard streams of a program
there, and, to root's login, files by SFTP.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncssh

from ipsecctl.errors import GatewayUnreachable, ViciError
from ipsecctl.gateway import _ssh_shell as shell
from ipsecctl.gateway._ssh_link import Kept, connect
from ipsecctl.gateway._ssh_words import Destination, NotReached, not_root
from ipsecctl.gateway.handle import GREETING_S, Completed
from ipsecctl.gateway.names import STATE_DIR
from ipsecctl.patience import PATIENCE
from ipsecctl.vici import Client

__all__ = ["SshHost"]

_MARGIN_S = 2.0 * PATIENCE
_GRACE_S = 2.0 * PATIENCE
_BEAT_S = 15.0
_SILENCE_S = 60.0 * PATIENCE
_KILLED = 137
_MARK = f"{shell.MARK}\n".encode()
_CHARON_DOWN = ("Connection refused", "No such file or directory")


@dataclass(frozen=True, slots=True)
class _Login:
    """Who we are there: the user's name and number, and charon's socket if that user may open it."""

    user: str
    uid: int
    socket: str


class SshHost:
    """A gateway by its SSH destination, ``[USER@]HOST[:PORT]``; ``name`` is its name in the topology."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.destination = Destination.parse(target)
        self._kept: Kept | None = None
        self._logins: dict[int, asyncio.Task[_Login]] = {}
        self._lost = False

    # ------------------------------------------------------------------------------------------- Handle's own

    async def run(
        self, argv: Sequence[str], stdin: bytes = b"", *, timeout_s: float = 10.0 * PATIENCE
    ) -> Completed:
        """Run a command there as root; see ``Handle.run``."""
        script = shell.script_of(argv, timeout_s)
        async with self._in_time(f"'{argv[0]}' did not end", timeout_s + _MARGIN_S):
            connection = await self._connection()
            async with _process(connection, shell.AS_ROOT) as process:
                _give(process, shell.request(script) + stdin, whole=True)
                stdout, stderr = await process.communicate()
        noise, began, output = stdout.partition(_MARK)
        if not began:
            raise self._no_script(connection, process, noise, stderr)
        status = process.returncode
        if status == _KILLED:
            raise GatewayUnreachable(self.name, f"'{argv[0]}' did not end within {timeout_s:.3g} s")
        if status is None:
            raise self._gone()
        return Completed(status, output, stderr)

    @asynccontextmanager
    async def hold(self, argv: Sequence[str], *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[str]:
        """Run a command there as root for as long as the context lasts; see ``Handle.hold``.

        When it ends before that, as with the connection, the gateway counts as unreachable until the context
        is left: what was to be held is held no more.
        """
        async with self._in_time(f"'{argv[0]}' said nothing", timeout_s):
            connection = await self._connection()
            process = await _start(connection, shell.AS_ROOT)
        try:
            async with self._in_time(f"'{argv[0]}' said nothing", timeout_s):
                _give(process, shell.request(shell.held(argv, _SILENCE_S)))
                await self._until_begun(connection, process)
                line = (await process.stdout.readline()).decode("utf-8", "replace").strip()
                if not line:
                    said = (await process.stderr.read()).decode("utf-8", "replace").strip()
                    raise GatewayUnreachable(self.name, said or f"'{argv[0]}' said nothing")
            tasks = [asyncio.create_task(self._beat(process)), asyncio.create_task(self._watch(process))]
            try:
                yield line
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                self._lost = False
                await _let_end(process)
        finally:
            process.close()

    @asynccontextmanager
    async def vici(self, *, timeout_s: float = 10.0 * PATIENCE) -> AsyncIterator[Client]:
        """Connect to its charon; see ``Handle.vici``."""
        async with self._in_time("charon's socket could not be opened", timeout_s):
            connection = await self._connection()
            login = await self._login(connection)
            forwarded = await _forward(connection, login.socket) if login.socket else None
            process = None if forwarded else await _start(connection, shell.AS_ROOT)
        reader, writer = forwarded or (None, None)
        try:
            if process is not None:
                async with self._in_time("charon's socket could not be opened", timeout_s):
                    _give(process, shell.request(shell.bridge()))
                    await self._until_begun(connection, process)
                reader, writer = process.stdout, process.stdin
            if reader is None or writer is None:
                raise RuntimeError("there is one way or the other")
            async with Client(_Reader(reader, connection), _Writer(writer), timeout_s=timeout_s) as client:
                await self._greet(client, process)
                yield client
        finally:
            if process is not None:
                process.close()

    # ------------------------------------------------------------------------------------------------- files

    async def stage(self, content: bytes, *, timeout_s: float = 30.0 * PATIENCE) -> str | None:
        """Carry bytes over by SFTP; return the path of the file of root's, readable to nobody else.

        ``None`` where SFTP does not reach there: the login is not root, or there is no SFTP server, or it
        refuses. Who asked then takes another way, which also tells what is wrong.
        """
        async with self._in_time("SFTP did not end", timeout_s):
            connection = await self._connection()
            if (await self._login(connection)).uid != 0:
                return None
            path = f"{STATE_DIR}/.stage-{secrets.token_hex(8)}"
            try:
                async with connection.start_sftp_client() as sftp:
                    try:
                        await _put(sftp, path, content)
                    except asyncssh.SFTPNoSuchFile:
                        await sftp.mkdir(STATE_DIR, asyncssh.SFTPAttrs(permissions=0o700))
                        await _put(sftp, path, content)
            except (asyncssh.SFTPError, asyncssh.ChannelOpenError):
                return None
        return path

    # ------------------------------------------------------------------------------------------------ within

    async def _connection(self) -> asyncssh.SSHClientConnection:
        if self._lost:
            raise GatewayUnreachable(
                self.name,
                "the connection broke, or was silent for too long, and with it ended the lock of the gateway",
                "Nothing more was done there. Apply again.",
            )
        if self._kept is None or not self._kept.usable:
            self._kept = connect(self.destination)
            self._logins.clear()
        try:
            return await self._kept.connection()
        except NotReached as exc:
            raise GatewayUnreachable(self.name, exc.cause, exc.hint) from exc

    async def _login(self, connection: asyncssh.SSHClientConnection) -> _Login:
        """Ask, once for a connection, who we are there."""
        key = id(connection)
        if key not in self._logins:
            self._logins[key] = asyncio.create_task(self._ask_login(connection))
        try:
            return await asyncio.shield(self._logins[key])
        except GatewayUnreachable:
            self._logins.pop(key, None)
            raise

    async def _ask_login(self, connection: asyncssh.SSHClientConnection) -> _Login:
        async with _process(connection, shell.GREETING) as process:
            _give(process, b"", whole=True)
            stdout, stderr = await process.communicate()
        noise, began, told = stdout.partition(_MARK)
        lines = told.decode("utf-8", "replace").split()
        if not began or not lines:
            raise self._no_script(connection, process, noise, stderr)
        return _Login(_user(connection), int(lines[0]), lines[1] if len(lines) > 1 else "")

    async def _until_begun(
        self, connection: asyncssh.SSHClientConnection, process: asyncssh.SSHClientProcess[bytes]
    ) -> None:
        """Read what comes before the script's own output."""
        heard = b""
        while line := await process.stdout.readline():
            if line == _MARK:
                return
            heard += line
        raise self._no_script(connection, process, heard, await process.stderr.read())

    def _no_script(
        self,
        connection: asyncssh.SSHClientConnection,
        process: asyncssh.SSHClientProcess[bytes],
        stdout: bytes,
        stderr: bytes,
    ) -> GatewayUnreachable:
        """Return why nothing of what was sent has run."""
        said = (stderr or stdout).decode("utf-8", "replace").strip().splitlines()
        if not said and process.returncode is None:
            return self._gone()
        told = next((line for line in said if line.startswith("sudo:")), said[-1] if said else "")
        why = not_root(_user(connection), told.strip() or f"it ended with status {process.returncode}")
        return GatewayUnreachable(self.name, why.cause, why.hint)

    def _gone(self) -> GatewayUnreachable:
        return GatewayUnreachable(
            self.name,
            f"the SSH connection to {self.destination} broke",
            "Look whether the gateway is up; the next run connects anew.",
        )

    async def _greet(self, client: Client, process: asyncssh.SSHClientProcess[bytes] | None) -> None:
        """Have a first answer, as a connection that was refused shows only then."""
        try:
            await client.command("version", timeout_s=min(client.timeout_s, GREETING_S))
        except ViciError as exc:
            # A program that ends at once may do so before it was written to, or before it was read from.
            ended = process is not None and (process.stdout.at_eof() or isinstance(exc.__cause__, OSError))
            if process is None or not ended:
                raise GatewayUnreachable(self.name, exc.summary, exc.hint) from exc
            said = await _last_words(process)
            if any(sign in said for sign in _CHARON_DOWN):
                raise GatewayUnreachable(
                    self.name,
                    "charon is not running there",
                    "Start it (systemctl start strongswan) and look into its log if it does not stay.",
                    charon_down=True,
                ) from exc
            last = said.splitlines()[-1] if said else "the connection ended without a word"
            raise GatewayUnreachable(self.name, f"no connection to charon: {last}") from exc

    @asynccontextmanager
    async def _in_time(self, what: str, limit_s: float) -> AsyncIterator[None]:
        """Bound the waits inside, and say what a connection that fails meanwhile means."""
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            if self._kept is not None and self._kept.opening:
                why = self._kept.so_far.late(limit_s)
                raise GatewayUnreachable(self.name, why.cause, why.hint) from None
            raise GatewayUnreachable(
                self.name,
                f"{what} over SSH within {limit_s:.3g} s",
                f"Is the gateway up, and does its sshd answer? Try: ssh {self.destination}",
            ) from None
        except asyncssh.ChannelOpenError as exc:
            raise GatewayUnreachable(
                self.name,
                f"its sshd opens no session: {exc.reason}",
                "Does its sshd_config allow sessions (MaxSessions 6 at least), and the login a shell?",
            ) from exc
        except (asyncssh.Error, OSError) as exc:
            raise self._gone() from exc

    async def _beat(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        """Tell the gateway again and again that we are still there."""
        with suppress(OSError):  # it has ended; whoever watches says so
            while True:
                await asyncio.sleep(_BEAT_S)
                process.stdin.write(b".")

    async def _watch(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        await process.wait_closed()
        self._lost = True


def _user(connection: asyncssh.SSHClientConnection) -> str:
    return str(connection.get_extra_info("username"))


async def _start(connection: asyncssh.SSHClientConnection, command: str) -> asyncssh.SSHClientProcess[bytes]:
    process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(command, encoding=None)
    return process


def _give(process: asyncssh.SSHClientProcess[bytes], data: bytes, *, whole: bool = False) -> None:
    """Write to a program's standard input, and end that if it is the ``whole`` of it.

    One that has ended before it was written to, as sudo does where it refuses, has said why itself.
    """
    with suppress(OSError):
        process.stdin.write(data)
        if whole:
            process.stdin.write_eof()


@asynccontextmanager
async def _process(
    connection: asyncssh.SSHClientConnection, command: str
) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
    """Run a command there; on leaving, its channel is closed."""
    process = await _start(connection, command)
    try:
        yield process
    finally:
        process.close()


async def _put(sftp: asyncssh.SFTPClient, path: str, content: bytes) -> None:
    """Make a file that only its owner can read."""
    async with sftp.open(path, "xb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
        await file.write(content)


async def _last_words(process: asyncssh.SSHClientProcess[bytes]) -> str:
    """Return what a process that has ended, or is about to, complained about."""
    said = b""
    with suppress(TimeoutError, asyncssh.Error):
        async with asyncio.timeout(_GRACE_S):
            said = await process.stderr.read()
    return said.decode("utf-8", "replace").strip()


async def _let_end(process: asyncssh.SSHClientProcess[bytes]) -> None:
    """End a process's standard input, and wait a moment for it to end by itself."""
    with suppress(OSError, TimeoutError, asyncssh.Error):
        process.stdin.write_eof()
        async with asyncio.timeout(_GRACE_S):
            await process.wait_closed()


async def _forward(
    connection: asyncssh.SSHClientConnection, path: str
) -> tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]] | None:
    """Have sshd open a socket there; ``None`` when it does not: forbidden, or nobody listens."""
    try:
        reader, writer = await connection.open_unix_connection(path, encoding=None)
    except asyncssh.ChannelOpenError:
        return None
    return reader, writer


class _Reader:
    """A stream of asyncssh's whose errors are the system's own, as those of asyncio's streams."""

    def __init__(self, stream: asyncssh.SSHReader[bytes], connection: asyncssh.SSHClientConnection) -> None:
        self._stream = stream
        self._connection = connection

    async def read(self, count: int) -> bytes:
        try:
            data = await self._stream.read(count)
        except asyncssh.Error as exc:
            raise ConnectionResetError(str(exc)) from exc
        if not data and self._connection.is_closed():
            raise ConnectionResetError("the SSH connection ended")
        return data


class _Writer:
    def __init__(self, stream: asyncssh.SSHWriter[bytes]) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    async def drain(self) -> None:
        try:
            await self._stream.drain()
        except asyncssh.Error as exc:
            raise ConnectionResetError(str(exc)) from exc

    def close(self) -> None:
        self._stream.close()

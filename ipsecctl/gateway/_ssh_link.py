"""The one SSH connection to a gateway, as the system's own configuration has it.

What decides: ``~/.ssh/config`` and ``/etc/ssh/ssh_config`` as far as asyncssh reads them (docs/ssh.md), the
agent, and known_hosts. A host key that no file knows is never accepted, whatever the configuration says; no
password is asked for, and the agent is not forwarded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import asyncssh

from ipsecctl.gateway import _ssh_words as words
from ipsecctl.gateway._ssh_words import SSH_PORT, Destination, NotReached, Offered
from ipsecctl.patience import PATIENCE

__all__ = ["Kept", "connect"]

# What goes wrong is told in our words, once.
asyncssh.set_log_level(logging.CRITICAL)

_CONNECT_S = 10.0 * PATIENCE
_KEEPALIVE_S = 5.0 * PATIENCE
_KEEPALIVES = 3
_CLOSE_S = 1.0 * PATIENCE

_CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class Progress:
    """How far a connection has come that is being opened, for whoever waits no longer."""

    def __init__(self, destination: Destination) -> None:
        self.late: Callable[[float], NotReached] = lambda limit_s: words.late(
            str(destination), "connect", limit_s
        )


class Kept:
    """A connection that is opened at once and kept as long as the event loop runs.

    The loop's end cancels the task that keeps it, and waits until it is closed.
    """

    def __init__(self, opening: Coroutine[Any, Any, asyncssh.SSHClientConnection], so_far: Progress) -> None:
        self.so_far = so_far
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[asyncssh.SSHClientConnection] = self._loop.create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._task = self._loop.create_task(self._keep(opening))

    @property
    def usable(self) -> bool:
        """Whether it is open, or being opened, in the loop that runs now."""
        if self._loop is not asyncio.get_running_loop() or self._task.done():
            return False
        return self.opening or not self._ready.result().is_closed()

    @property
    def opening(self) -> bool:
        """Whether it does not stand yet."""
        return not self._ready.done()

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Wait until it is open. Raises ``NotReached``."""
        return await asyncio.shield(self._ready)

    async def _keep(self, opening: Coroutine[Any, Any, asyncssh.SSHClientConnection]) -> None:
        try:
            connection = await opening
        except asyncio.CancelledError:
            self._ready.cancel()
            raise
        except Exception as exc:
            self._ready.set_exception(exc)
            return
        self._ready.set_result(connection)
        try:
            await connection.wait_closed()
        finally:
            await _close(connection)


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        async with asyncio.timeout(_CLOSE_S):
            await connection.wait_closed()
    except TimeoutError:
        connection.abort()


def connect(destination: Destination) -> Kept:
    """Begin to connect and log in, by jump hosts where the configuration names them."""
    so_far = Progress(destination)
    return Kept(_connect(destination, None, frozenset(), so_far), so_far)


async def _connect(
    destination: Destination,
    via: asyncssh.SSHClientConnection | None,
    seen: frozenset[str],
    so_far: Progress,
) -> asyncssh.SSHClientConnection:
    client = _Client()
    options = await _options(destination, lambda: client)
    jump = options.tunnel
    if via is None and isinstance(jump, str):
        via = await _jump(jump, seen | {destination.host, options.host}, so_far)
    named = str(Destination(options.host, options.username, _port_shown(options.port)))
    files = _known_hosts_files(options)
    client.alias = bool(options.host_key_alias)
    if client.alias or via is not None or options.proxy_command:
        client.ask = str(destination)
    so_far.late = lambda limit_s: words.late(named, client.stage, limit_s)
    try:
        async with asyncio.timeout(_CONNECT_S):
            return await asyncssh.connect(
                destination.host,
                destination.port or (),
                options=options,
                tunnel=via,
                known_hosts=_known_hosts(files),
            )
    except TimeoutError:
        raise so_far.late(_CONNECT_S) from None
    except asyncssh.HostKeyNotVerifiable as exc:
        raise _host_key(client, files, str(exc)) from exc
    except asyncssh.PermissionDenied as exc:
        raise words.key_refused(named, list(_offered(options))) from exc
    except asyncssh.KeyExchangeFailed as exc:
        raise words.no_such_key(named, exc.reason) from exc
    except asyncssh.ChannelOpenError as exc:
        raise NotReached(
            f"the jump host could not connect to {options.host} port {options.port}: {exc.reason}",
            "Is the gateway up, and may the jump host reach it and forward (AllowTcpForwarding)?",
        ) from exc
    except asyncssh.Error as exc:
        raise _broken(named, client.stage, options.proxy_command, exc) from exc
    except OSError as exc:
        if options.proxy_command and via is None and isinstance(exc, FileNotFoundError | PermissionError):
            raise NotReached(f"the ProxyCommand of {destination.host} cannot be run: {exc.strerror}") from exc
        if client.stage != "connect" or options.proxy_command:
            raise _broken(named, client.stage, options.proxy_command, exc) from exc
        raise words.no_connection(options.host, options.port, exc) from exc


def _port_shown(port: int) -> int | None:
    return None if port == SSH_PORT else port


class _Client(asyncssh.SSHClient):
    """Notes how far a connection came, and which host key was refused."""

    def __init__(self) -> None:
        self.stage = "connect"
        self.alias = False
        self.ask = ""
        self.offered: Offered | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:  # noqa: ARG002 - asyncssh's
        self.stage = "greet"

    def begin_auth(self, username: str) -> None:  # noqa: ARG002
        self.stage = "login"

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Note a key that is in no known_hosts; it is never accepted."""
        del addr
        kind = key.get_algorithm()
        self.offered = Offered(host, port, kind, key.get_fingerprint(), self.alias, self.ask)
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """The same for the authority that has signed a host's certificate."""
        return self.validate_host_public_key(host, addr, port, key)


def _configs() -> list[Path]:
    return [path for name in _CONFIGS if (path := Path(name).expanduser()).is_file()]


async def _options(
    destination: Destination, client: Callable[[], asyncssh.SSHClient]
) -> asyncssh.SSHClientConnectionOptions:
    """Read the configuration for a destination. Raises ``NotReached`` for one that cannot be read."""
    try:
        options: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
            config=_configs(),
            host=destination.host,
            port=destination.port or (),
            username=destination.user or (),
            client_factory=client,
            # A connection that is gone is noticed in time, and one that is being made takes only so long.
            keepalive_interval=_KEEPALIVE_S,
            keepalive_count_max=_KEEPALIVES,
            connect_timeout=None,
            login_timeout=_CONNECT_S,
            agent_forwarding=False,
            x11_forwarding=False,
            request_pty=False,
            command=None,
            env=(),
            send_env=(),
            encoding=None,
        )
        return options
    except (ValueError, asyncssh.Error, asyncssh.KeyImportError, OSError) as exc:
        raise NotReached(
            f"the SSH configuration for {destination.host} cannot be used: {exc}",
            f"Try: ssh -G {destination}",
        ) from exc


def _broken(named: str, stage: str, proxy: object, exc: Exception) -> NotReached:
    """Return what the end of a connection before it was of use means."""
    if proxy and stage != "login":
        return NotReached(
            f"the ProxyCommand to {named} ended before an SSH server answered",
            f"Try: ssh {named.rpartition('@')[2]}",
        )
    if stage == "greet":
        return NotReached(
            f"{named} ended the connection before the login: {exc}",
            "Is it an SSH server that listens there, with a host key of the kind that known_hosts has "
            f"(ssh-keyscan {named.rpartition('@')[2]})? It may also be overloaded (MaxStartups), or have had "
            "too many failed logins from here (PerSourcePenalties): wait a minute then.",
        )
    return NotReached(f"{named} ended the connection at the login: {exc}", f"Try: ssh -v {named}")


def _offered(options: asyncssh.SSHClientConnectionOptions) -> Iterator[str]:
    """Yield the keys of files that were offered, and the agent, for whoever wonders which these are."""
    for pair in options.client_keys or ():
        comment = pair.get_comment()
        yield f"{pair.get_algorithm()} {comment}".strip()
    if options.agent_path:
        yield "those of the agent"


# ------------------------------------------------------------------------------------------------ known_hosts


def _known_hosts_files(options: asyncssh.SSHClientConnectionOptions) -> tuple[Path, ...]:
    """Return the files that may know the host: the configuration's, or else OpenSSH's; "none" is none."""
    users = options.config.get("UserKnownHostsFile", _USER_KNOWN_HOSTS)
    everyones = options.config.get("GlobalKnownHostsFile", _GLOBAL_KNOWN_HOSTS)
    return tuple(Path(str(name)).expanduser() for name in [*_each(users), *_each(everyones)])


def _each(names: object) -> Iterable[object]:
    return names if isinstance(names, list | tuple) else ()


def _known_hosts(files: Sequence[Path]) -> asyncssh.SSHKnownHosts:
    """Return what the files know: all lines that can be understood, as OpenSSH does."""
    versions = []
    for file in files:
        with suppress(OSError):  # most of them do not exist
            found = file.stat()
            versions.append((file, found.st_mtime_ns, found.st_size))
    return _read_known_hosts(tuple(versions))


class _KnownHosts(asyncssh.SSHKnownHosts):
    """Known by the name that was asked for: asyncssh would also take a key of whoever has the address."""

    def match(self, host: str, addr: str, port: int | None) -> Any:
        del addr
        return super().match(host, "", port)


@lru_cache(maxsize=8)
def _read_known_hosts(versions: tuple[tuple[Path, int, int], ...]) -> asyncssh.SSHKnownHosts:
    known = _KnownHosts()
    for file, *_ in versions:
        for _, line in _lines(file):
            with suppress(ValueError):
                known.load(line)
    return known


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except OSError:
        return
    yield from enumerate(text.splitlines(), 1)


def _host_key(client: _Client, files: Sequence[Path], said: str) -> NotReached:
    """Return what a refused host key means: unknown, another one than is known, or revoked."""
    offered = client.offered
    if offered is None:  # asyncssh has refused it by itself
        revoked = "revoked" in said
        return NotReached(said, "" if revoked else "Compare the gateway's host certificate with known_hosts.")
    port = None if offered.port == SSH_PORT else offered.port
    for file in files:
        for number, line in _lines(file):
            known = asyncssh.SSHKnownHosts()
            with suppress(ValueError):
                known.load(line)
                if keys := known.match(offered.host, "", port)[0]:
                    return words.changed_key(offered, file, number, keys[0].get_fingerprint())
    return words.unknown_key(offered, files[0] if files else Path(_USER_KNOWN_HOSTS[0]).expanduser())


# ------------------------------------------------------------------------------------------------- jump hosts

_jumps: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Kept]] = WeakKeyDictionary()


async def _jump(chain: str, seen: frozenset[str], so_far: Progress) -> asyncssh.SSHClientConnection | None:
    """Return the connection to the last of a chain of jump hosts; each is shared by all behind it.

    One that is in ``seen`` is where we go anyway, as when ``Host *`` names a jump host: no jump then.
    """
    kept = _jumps.setdefault(asyncio.get_running_loop(), {})
    via: asyncssh.SSHClientConnection | None = None
    hops = ""
    for hop in filter(None, (part.strip() for part in chain.split(","))):
        try:
            destination = Destination.parse(hop)
        except ValueError:
            raise NotReached(f"the ProxyJump '{hop}' is not USER@HOST:PORT") from None
        if via is None and destination.host in seen:
            return None
        hops = f"{hops},{hop}"
        if hops not in kept or not kept[hops].usable:
            progress = Progress(destination)
            kept[hops] = Kept(_connect(destination, via, seen, progress), progress)
        hop_so_far = kept[hops].so_far
        so_far.late = lambda limit_s, of=hop_so_far: _by_jump(of.late(limit_s))  # type: ignore[misc]
        try:
            via = await kept[hops].connection()
        except NotReached as exc:
            raise _by_jump(exc) from exc
    return via


def _by_jump(why: NotReached) -> NotReached:
    return NotReached(f"by its jump host: {why.cause}", why.hint)

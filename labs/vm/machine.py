"""Run QEMU in a network namespace, and join its guest's ports to UNIX sockets.

``machine.py SOCKET=PORT... QEMU ARGUMENT...``, started with ``unshare --net``: what QEMU offers on
127.0.0.1 is there in this namespace only. A UNIX socket is a file, so it is reached from everywhere, by those
whom its mode lets in; a TCP port would be anybody's. Ends when QEMU ends, and ends QEMU when it is told to
end, or killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import grp
import os
import signal
import socket
import struct
import sys
from typing import Any

_CHUNK_BYTES = 1 << 18
# <linux/if.h>, <linux/sockios.h>, <linux/prctl.h>
_SIOCSIFFLAGS, _IFF_UP, _PR_SET_PDEATHSIG = 0x8914, 0x1, 1


def _loopback_up() -> None:
    """Bring the namespace's loopback up: a new one is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _owners() -> tuple[int, int]:
    """Return who may use the socket: whoever asked by sudo, and those who may use Docker anyway."""
    try:
        group = grp.getgrnam("docker").gr_gid
    except KeyError:
        group = 0
    return int(os.environ.get("SUDO_UID", "0")), group


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, then say the end, and only that: the other direction may have more to tell."""
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _relay(path: str, port: int) -> asyncio.Server:
    """Serve at a socket that only its owners can use."""

    # The loop holds its tasks weakly, and once a client has said its end nothing else holds one that only
    # waits for the machine's answer: without this it is garbage, and the client takes the lost answer for an
    # empty one.
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
            task.add_done_callback(serving.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()

    os.umask(0o117)
    server = await asyncio.start_unix_server(serve, path)
    os.chown(path, *_owners())
    return server


async def main(argv: list[str]) -> int:
    """Run the machine; return QEMU's exit status."""
    _loopback_up()
    servers = []
    while "=" in argv[0]:
        path, _, port = argv.pop(0).rpartition("=")
        servers.append(await _relay(path, int(port)))
    qemu = await asyncio.create_subprocess_exec(*argv, preexec_fn=_die_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, qemu.terminate)
    status = await qemu.wait()
    for server in servers:
        server.close()
    return status


if __name__ == "__main__":
    # Connections that are open when QEMU ends are no concern of anybody's.
    os._exit(asyncio.run(main(sys.argv[1:])) & 0xFF)

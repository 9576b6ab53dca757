"""The far end of the one ``docker exec`` to a container: runs commands and opens sockets there for us.

This file's text is what ``python3 -c`` is given in the container, so it needs nothing but Python itself, and
imports little: on an emulated processor each module costs. Several things go on at a time, each on a channel
of its own, in frames both ways: channel (4 bytes), kind (1), length (4, all big-endian), and the content.

======  ==========================  ======  ==========================
to it   what                        from it what
======  ==========================  ======  ==========================
``R``   run: argv, joined by NUL    ``O``   output of it, or of socket
``S``   open the UNIX socket PATH   ``E``   what it complained about
``I``   input for it                ``Q``   it ended: its exit status
``C``   its input ends here
``D``   done with it: end it
``A``   more output may come: how   ``X``   no such socket: why
        many bytes (4) were read
======  ==========================  ======  ==========================

Of a channel's ``O`` at most ``WINDOW`` bytes are on their way to whoever reads slowly; it waits meanwhile,
and nobody else does. Each command is a session of its own, and all that is left of it is killed when nobody
waits for it any more. When our standard input ends, or nobody reads our output, the input of all that we run
ends; what has not ended after the seconds in the first argument is killed, and then we end. Daemons that
made a session of their own stay.
"""

import _socket  # what `socket` and `signal` add is `enum`, and with it a quarter of the time until we answer
import os
import select
import struct
import sys
import time

SIGKILL, SIGPIPE, SIGXFSZ = 9, 13, 25  # signal(7); those of every Linux but on MIPS and HPPA
HEAD = struct.Struct("!IcI")
COUNT = struct.Struct("!I")
READ = 1 << 16
WINDOW = 1 << 20
NEVER = select.POLLERR
CALL_AGAIN_MS = 50
LEFT_READS = 16  # a pipe holds 1 MiB at most, 64 KiB mostly


class Channel:
    """Something that goes on: ``into`` is where its input is written, ``pending`` what was not yet.

    ``room`` is how many bytes of output may still be sent, ``resting`` the descriptors that wait for room.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.into = -1
        self.pending = bytearray()
        self.ends = False
        self.outputs: dict[int, bytes] = {}
        self.room = WINDOW
        self.resting: set[int] = set()
        self.pid = 0
        self.process = -1


class Relay:
    """All channels, and the descriptors that are waited for."""

    def __init__(self) -> None:
        self.channels: dict[int, Channel] = {}
        self.owner: dict[int, Channel] = {}
        self.calling: dict[int, bytes] = {}
        self.poll = select.poll()
        self.received = bytearray()

    def tell(self, number: int, kind: bytes, content: bytes = b"") -> None:
        frame = memoryview(HEAD.pack(number, kind, len(content)) + content)
        while frame:
            frame = frame[os.write(1, frame) :]

    def watch(self, channel: Channel, descriptor: int, events: int) -> None:
        self.owner[descriptor] = channel
        self.poll.register(descriptor, events)

    def drop(self, channel: Channel, descriptor: int) -> None:
        """Close a descriptor if the channel still has it: once closed, its number may be another's."""
        if self.owner.get(descriptor) is channel:
            del self.owner[descriptor]
            if descriptor in channel.resting:
                channel.resting.remove(descriptor)
            else:
                self.poll.unregister(descriptor)
            os.close(descriptor)

    # ----------------------------------------------------------------------------------------- what is asked

    def hear(self, data: bytes) -> None:
        self.received += data
        while len(self.received) >= HEAD.size:
            number, kind, length = HEAD.unpack_from(self.received)
            if len(self.received) < HEAD.size + length:
                return
            content = bytes(self.received[HEAD.size : HEAD.size + length])
            del self.received[: HEAD.size + length]
            self.obey(number, kind, content)

    def obey(self, number: int, kind: bytes, content: bytes) -> None:
        channel = self.channels.get(number)
        if kind == b"R":
            self.run(number, content.split(b"\0"))
        elif kind == b"S":
            self.open(number, content)
        elif kind == b"D":
            self.calling.pop(number, None)
            if channel is not None:
                self.close(channel)
        elif channel is not None and kind == b"A":
            self.resume(channel, COUNT.unpack(content)[0])
        elif channel is not None:  # I and C
            channel.pending += content
            channel.ends |= kind == b"C"
            self.feed(channel)

    def run(self, number: int, argv: "list[bytes]") -> None:
        channel = self.channels[number] = Channel(number)
        pipes = [os.pipe() for _ in range(3)]
        inner = (pipes[0][0], pipes[1][1], pipes[2][1])
        channel.into = pipes[0][1]
        channel.outputs = {pipes[1][0]: b"O", pipes[2][0]: b"E"}
        actions = [(os.POSIX_SPAWN_DUP2, end, place) for place, end in enumerate(inner)]
        ignored = [SIGPIPE, SIGXFSZ]  # by Python
        try:
            channel.pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setsid=True, setsigdef=ignored
            )
        except OSError as error:
            self.tell(number, b"E", b"%s: %s\n" % (argv[0], (error.strerror or "").encode()))
            self.tell(number, b"Q", b"127")
            for descriptor in (channel.into, *channel.outputs):
                os.close(descriptor)
            del self.channels[number]
        else:
            channel.process = os.pidfd_open(channel.pid)
            self.watch(channel, channel.process, select.POLLIN)
            for descriptor in channel.outputs:
                os.set_blocking(descriptor, False)
                self.watch(channel, descriptor, select.POLLIN)
            os.set_blocking(channel.into, False)
            self.watch(channel, channel.into, NEVER)
        finally:
            for end in inner:
                os.close(end)

    def open(self, number: int, path: bytes) -> None:
        """Open a socket; whoever listens there may have no time yet, as a charon that hangs."""
        self.calling.pop(number, None)
        try:
            end = self.connect(path)
        except BlockingIOError:
            self.calling[number] = path
            return
        except OSError as error:
            self.tell(number, b"X", (error.strerror or "").encode())
            return
        channel = self.channels[number] = Channel(number)
        end.setblocking(False)
        descriptor = end.detach()
        channel.into = os.dup(descriptor)
        channel.outputs = {descriptor: b"O"}
        self.watch(channel, descriptor, select.POLLIN)
        self.watch(channel, channel.into, NEVER)

    def connect(self, path: bytes) -> _socket.socket:
        end = _socket.socket(_socket.AF_UNIX)
        end.setblocking(False)
        try:
            end.connect(path)
        except OSError:
            end.close()
            raise
        return end

    # -------------------------------------------------------------------------------------------- what moves

    def feed(self, channel: Channel) -> None:
        """Write what can be written now, and wait for room if something is left."""
        into = channel.into
        if self.owner.get(into) is not channel:
            channel.pending.clear()
            return
        try:
            while channel.pending:
                del channel.pending[: os.write(into, channel.pending[:READ])]
        except BlockingIOError:
            pass
        except OSError:  # it reads no more
            channel.pending.clear()
            channel.ends = True
        self.poll.modify(into, select.POLLOUT if channel.pending else NEVER)
        if channel.ends and not channel.pending:
            self.drop(channel, into)

    def drain(self, channel: Channel, descriptor: int) -> bool:
        """Pass on some output; return whether there may be more."""
        try:
            data = os.read(descriptor, READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            kind = channel.outputs[descriptor]
            self.tell(channel.number, kind, data)
            if kind == b"O":
                channel.room -= len(data)
                if channel.room <= 0 and descriptor not in channel.resting:
                    channel.resting.add(descriptor)
                    self.poll.unregister(descriptor)
            return True
        self.drop(channel, descriptor)
        if not channel.pid:  # a socket: its end is the channel's
            self.tell(channel.number, b"Q", b"0")
            self.close(channel)
        return False

    def resume(self, channel: Channel, count: int) -> None:
        channel.room += count
        while channel.room > 0 and channel.resting:
            self.poll.register(channel.resting.pop(), select.POLLIN)

    def ended(self, channel: Channel) -> None:
        """Pass on what a process left in its pipes, and how it ended; others may still hold its pipes."""
        how = os.waitid(os.P_PID, channel.pid, os.WEXITED | os.WNOWAIT)
        killed = how is not None and how.si_status in (SIGKILL, 128 + SIGKILL)
        heard = self.channels.get(channel.number) is channel
        if killed or not heard:
            kill(channel.pid)  # what a time limit did not reach; while nobody else can have its number
        status = os.waitstatus_to_exitcode(os.waitpid(channel.pid, 0)[1])
        channel.pid = 0
        self.drop(channel, channel.process)
        if not heard:
            return
        for descriptor, kind in channel.outputs.items():
            for _ in range(LEFT_READS):
                if self.owner.get(descriptor) is not channel or not self.left(channel, descriptor, kind):
                    break
        self.tell(channel.number, b"Q", b"%d" % (status if status >= 0 else 128 - status))
        self.close(channel)

    def left(self, channel: Channel, descriptor: int, kind: bytes) -> bool:
        """Pass on some of what a process left, whether there is room for it or not: it is little."""
        try:
            data = os.read(descriptor, READ)
        except OSError:
            data = b""
        if data:
            self.tell(channel.number, kind, data)
        return bool(data)

    def close(self, channel: Channel) -> None:
        """Forget a channel; of a process that still runs only its end is waited for."""
        self.channels.pop(channel.number, None)
        for descriptor in (channel.into, *channel.outputs):
            self.drop(channel, descriptor)
        if channel.pid:
            kill(channel.pid)

    # ------------------------------------------------------------------------------------------ how all moves

    def serve(self) -> None:
        self.poll.register(0, select.POLLIN)
        while self.turn(CALL_AGAIN_MS if self.calling else None):
            for number, path in list(self.calling.items()):
                self.open(number, path)

    def turn(self, wait_ms: "int | None") -> bool:
        """Wait for something and do it; return ``False`` when our standard input has ended."""
        ready = dict(self.poll.poll(wait_ms))
        asked = ready.pop(0, 0)
        for descriptor, events in ready.items():
            channel = self.owner.get(descriptor)
            if channel is None or descriptor in channel.resting:  # gone since
                continue
            if descriptor == channel.process:
                self.ended(channel)
            elif descriptor != channel.into:
                self.drain(channel, descriptor)
            elif events & (select.POLLERR | select.POLLHUP):
                channel.ends = True
                channel.pending.clear()
                self.drop(channel, descriptor)
            else:
                self.feed(channel)
        # Last, as what is opened for it may have the number of something that was closed above.
        if not asked:
            return True
        data = os.read(0, READ)
        self.hear(data)
        return bool(data)

    def end(self, grace_s: float) -> None:
        """End the input of all that runs; kill what has not ended after ``grace_s`` seconds."""
        running = {channel.process: channel.pid for channel in self.owner.values() if channel.pid}
        for channel in set(self.owner.values()):
            self.drop(channel, channel.into)
        ending = select.poll()
        for process in running:
            ending.register(process, select.POLLIN)
        for limit_s, last in ((grace_s, False), (1.0, True)):
            until = time.monotonic() + limit_s
            while running and (left_s := until - time.monotonic()) > 0:
                for process, _ in ending.poll(left_s * 1000):
                    ending.unregister(process)
                    os.waitpid(running.pop(process), 0)
            for pid in () if last else running.values():
                kill(pid)


def kill(leader: int) -> None:
    """Kill all of a session, by the number of its leader, who has not been waited for yet.

    Its process group is not enough: each ``timeout`` in a script makes one of its own.
    """
    killed: set[int] = set()
    while found := sessions().get(leader, set()) - killed:
        for pid in found:
            try:  # noqa: SIM105 - contextlib costs more than all that is imported here
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
        killed |= found


def sessions() -> "dict[int, set[int]]":
    """Return the processes of each session (man 5 proc: after the name state, parent, group, session)."""
    found: dict[int, set[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - as pathlib does
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - likewise
                    session = int(file.read().rpartition(b")")[2].split()[3])
            except OSError:  # it has ended meanwhile
                continue
            found.setdefault(session, set()).add(int(name))
    return found


def main() -> None:
    relay = Relay()
    try:
        relay.serve()
    except BrokenPipeError:  # nobody listens
        pass
    finally:
        relay.end(float(sys.argv[1]))


if __name__ == "__main__":
    main()

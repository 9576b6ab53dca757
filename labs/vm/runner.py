"""What ``docker exec`` does, on the machine itself at a tenth of its cost: run a command in a container.

By way of Docker Engine, containerd and its shim a command costs 0.4 s of an emulated processor, and each
piece of its output goes through two of them. This is one process that forks, joins the container's
namespaces, and executes: the command has its caller's connection as standard output. It gets what
``docker exec`` would give it: environment, capabilities and limits of the container, a session of its own,
a pipe as standard input.

``python3 -ISEc PROGRAM``, which is how ipsecctl reaches into a container, costs 0.6 s of such a processor
until it does something; so does wirekit. These are run in the child itself, joined to the container as any
command, by the interpreter that is there already. They can import what is loaded here (``LOADED``); the
container's python3 is not asked.

A caller (labs/vm/bin/docker) makes two connections. On the first he says what he wants, one line of JSON,
and hears of it: frames of a kind (1 byte) and a length (4, big-endian): ``B`` it begins, or ``N`` Docker has
to be asked; ``E`` what the command complained about, ``Q`` its exit status. The second begins with the 32
characters that he named in the request; after them comes what the command reads and, back, what it writes.

``runner.py PORT``, as root, in the machine's own namespaces.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import json
import os
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import time
import traceback
from contextlib import suppress
from types import CodeType
from typing import Any

ENGINE = "/run/docker.sock"
ADDRESS = "10.0.2.15"
PIECE = 1 << 16
TOKEN = 32
SPACES = os.CLONE_NEWNS | os.CLONE_NEWUTS | os.CLONE_NEWIPC | os.CLONE_NEWNET | os.CLONE_NEWCGROUP
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# <linux/prctl.h>, <linux/capability.h>, <asm/unistd_64.h>
PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
CAPABILITY_VERSION_3, SYS_CAPSET, LAST_CAPABILITY = 0x20080522, 126, 40

PYTHON = ["python3", "-ISEc"]
SCRIPT = b"#!/usr/bin/python3 -ISE\n"
LOADED = (_socket, os, select, signal, socket, struct, sys, time)

libc = ctypes.CDLL(None, use_errno=True)
home = os.pidfd_open(os.getpid())
wakes = selectors.EpollSelector()


def described(name: str, answer: bytes) -> dict[str, Any]:
    """Return what Docker Engine has answered of a container; raises ``LookupError`` where it knows none."""
    head, _, content = answer.partition(b"\r\n\r\n")
    if head.split()[1:2] != [b"200"]:
        raise LookupError(name)
    told: dict[str, Any] = json.loads(content)
    return told


class Container:
    """A container that runs, for as long as its first process does; ``LookupError`` where it does not.

    ``process`` is open as long as a job has the container: closed before, its number might be another's.
    """

    process = -1

    def __init__(self, told: dict[str, Any]) -> None:
        state = told["State"]
        if not state["Running"] or state["Paused"] or told["Config"]["User"]:
            raise LookupError(told["Name"])
        self.first: int = state["Pid"]
        self.process = os.pidfd_open(self.first)
        said = dict(pair.split("=", 1) for pair in told["Config"]["Env"] if "=" in pair)
        host = {"PATH": PATH, "HOSTNAME": told["Config"]["Hostname"], "HOME": "/root"}
        self.environment = host | said
        self.folder: str = told["Config"]["WorkingDir"] or "/"
        self.limits = {
            which: resource.prlimit(self.first, which)
            for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE)
        }
        with open(f"/proc/{self.first}/status") as lines:  # noqa: PTH123 - pathlib takes long to load
            values = dict(line.split(":", 1) for line in lines)
        self.capabilities = int(values["CapBnd"], 16)

    def __del__(self) -> None:
        if self.process >= 0:
            os.close(self.process)

    @property
    def runs(self) -> bool:
        """Whether the first process has not ended, not even as one that nobody has waited for yet."""
        return not select.select([self.process], [], [], 0)[0]


known: dict[str, Container] = {}


def still_there(name: str) -> Container | None:
    """Return a container that we know and that runs."""
    there = known.get(name)
    if there is not None and not there.runs:
        del known[name]
        return None
    return there


class Inquiry:
    """A question to Docker Engine about a container that we do not know; its job goes on with the answer.

    While Docker starts or ends a container it may be long in answering for it: nobody else waits for that.
    """

    def __init__(self, name: str, job: Job) -> None:
        self.name, self.job, self.answer = name, job, b""
        self.engine = socket.socket(socket.AF_UNIX)
        try:
            if not name.isascii() or not all(letter.isalnum() or letter in "_.-" for letter in name):
                raise LookupError(name)
            self.engine.connect(ENGINE)
            self.engine.sendall(f"GET /containers/{name}/json HTTP/1.0\r\n\r\n".encode())
        except (OSError, LookupError):
            self.engine.close()
            job.refuse()
            return
        watch(self.engine, self.hear)

    def hear(self) -> None:
        heard = receive(self.engine)
        if heard is None or heard:
            self.answer += heard or b""
            return
        forget(self.engine)
        self.engine.close()
        try:
            # Another job may have asked the same meanwhile.
            there = still_there(self.name) or Container(described(self.name, self.answer))
        except (OSError, LookupError, ValueError):  # Docker has to say what is the matter
            self.job.refuse()
            return
        known[self.name] = there
        self.job.in_container(there)


def confine(capabilities: int) -> None:
    """Have no more capabilities than these, whatever is executed."""
    for number in range(LAST_CAPABILITY + 1):
        if not capabilities >> number & 1:
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    if libc.syscall(SYS_CAPSET, head, data):
        raise OSError(ctypes.get_errno(), "capset")


codes: dict[str, CodeType] = {}


def program_of(container: Container, argv: list[str]) -> tuple[CodeType, list[str]] | None:
    """Return a command's program, compiled once, and its ``sys.argv``; ``None`` of what is not Python's."""
    if argv[:2] == PYTHON and len(argv) > 2:
        text, arguments = argv[2], ["-c", *argv[3:]]
    elif argv[0].startswith("/"):
        try:
            with open(f"/proc/{container.first}/root{argv[0]}", "rb") as file:  # noqa: PTH123 - likewise
                if file.readline() != SCRIPT:
                    return None
                text, arguments = "\n" + file.read().decode(), argv
        except (OSError, ValueError):
            return None
    else:
        return None
    if text not in codes:
        try:
            codes[text] = compile(text, arguments[0], "exec", dont_inherit=True)
        except (SyntaxError, ValueError):  # python3 itself says what is wrong
            return None
    return codes[text], arguments


def interpret(program: tuple[CodeType, list[str]], environment: dict[str, str]) -> int:
    """Run a program as ``python3`` would that has nothing else open; return its exit status."""
    os.closerange(3, 1 << 16)
    os.environ.clear()
    os.environ.update(environment)
    code, sys.argv = program
    try:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - as a caller wants it
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        with suppress(OSError):  # nobody listens
            sys.stdout.flush()
    return 0


def become(
    container: Container,
    asked: dict[str, Any],
    program: tuple[CodeType, list[str]] | None,
    files: tuple[int, int, int],
) -> None:
    """Be the command, in the child; returns never."""
    status = 126
    try:
        for place, file in enumerate(files):
            os.dup2(file, place)
        for number in (signal.SIGPIPE, signal.SIGXFSZ) if program is None else ():
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for which, limit in container.limits.items():
            resource.setrlimit(which, limit)
        os.setns(container.process, SPACES)
        os.chdir(container.folder)
        os.setgroups([0])
        if not asked["privileged"]:
            confine(container.capabilities)
        argv = asked["argv"]
        if program is not None:
            status = interpret(program, container.environment)
            return
        try:
            os.execvpe(argv[0], argv, container.environment)  # noqa: S606
        except FileNotFoundError:
            status = 127
            os.write(2, f'exec: "{argv[0]}": executable file not found in $PATH\n'.encode())
    except BaseException as failed:
        os.write(2, f"{failed}\n".encode())
    finally:
        os._exit(status)


class Job:
    """A command of a caller's, from his request to its end."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.heard = b""
        self.asked: dict[str, Any] = {}
        self.data: socket.socket | None = None
        self.container: Container | None = None
        self.into = self.complaints = self.process = self.pid = -1
        self.pending = b""
        self.ended: int | None = None
        watch(control, self.hear)

    def tell(self, kind: bytes, content: bytes = b"") -> None:
        with suppress(OSError):  # nobody listens any more
            self.control.sendall(kind + len(content).to_bytes(4, "big") + content)

    def hear(self) -> None:
        """Read the request. Later there is only its end to hear: then nobody waits for the command."""
        heard = receive(self.control)
        if heard is None:
            return
        self.heard += heard
        if not heard:
            forget(self.control)
            if self.asked.get("token") in waiting:
                del waiting[self.asked["token"]]
                self.control.close()
            elif not self.asked:
                self.control.close()
            return
        if self.asked or not self.heard.endswith(b"\n"):
            return
        self.asked = json.loads(self.heard)
        if (there := still_there(self.asked["container"])) is not None:
            self.in_container(there)
        else:
            Inquiry(self.asked["container"], self)

    def in_container(self, container: Container) -> None:
        """Begin in a container that runs, as soon as the second connection is there."""
        self.container = container
        if (data := early.pop(self.asked["token"], None)) is not None:
            self.begin(data)
        else:
            waiting[self.asked["token"]] = self

    def refuse(self) -> None:
        """Leave it to Docker, which can say what is the matter."""
        self.tell(b"N")
        forget(self.control)
        self.control.close()
        if (data := early.pop(self.asked["token"], None)) is not None:
            data.close()

    def begin(self, data: socket.socket) -> None:
        """Start the command with its caller's second connection, or leave it to Docker."""
        if self.container is None:
            raise RuntimeError("a job is begun for a container")
        try:
            self.start(self.container, data)
        except OSError:  # the container has ended this very moment, or there is no room for another process
            os.setns(home, os.CLONE_NEWPID)
            data.close()
            self.refuse()

    def start(self, container: Container, data: socket.socket) -> None:
        os.setns(container.process, os.CLONE_NEWPID)  # of the children that come
        self.data = data
        if self.asked["stdin"]:
            reads, self.into = os.pipe2(os.O_CLOEXEC)
        else:
            reads = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.complaints, complains = os.pipe2(os.O_CLOEXEC)
        program = program_of(container, self.asked["argv"])
        self.pid = os.fork()
        if not self.pid:
            become(container, self.asked, program, (reads, data.fileno(), complains))
        os.setns(home, os.CLONE_NEWPID)
        os.close(reads)
        os.close(complains)
        self.tell(b"B")
        self.process = os.pidfd_open(self.pid)
        watch(self.process, self.end)
        watch(self.complaints, self.complain)
        if self.into >= 0:
            os.set_blocking(self.into, False)
            watch(data, self.feed)
        else:
            self.let_go()

    def let_go(self) -> None:
        """Leave the second connection to the command."""
        if self.data is not None:
            forget(self.data)
            self.data.close()
            self.data = None

    def feed(self) -> None:
        """Pass on what the command is to read. While it does not read, nor do we."""
        heard = receive(self.data) if self.data is not None else b""
        if heard is None:
            return
        self.pending = heard
        if self.pending:
            self.write()
        else:
            self.end_input()

    def write(self) -> None:
        try:
            self.pending = self.pending[os.write(self.into, self.pending) :]
        except BlockingIOError:
            pass
        except OSError:  # it reads no more
            self.end_input()
            return
        if self.pending and self.into not in wakes.get_map():
            if self.data is not None:
                forget(self.data)
            watch(self.into, self.write, selectors.EVENT_WRITE)
        elif not self.pending and self.into in wakes.get_map():
            forget(self.into)
            if self.data is not None:
                watch(self.data, self.feed)

    def end_input(self) -> None:
        if self.into >= 0:
            forget(self.into)
            os.close(self.into)
            self.into = -1
        self.let_go()

    def complain(self) -> None:
        """Pass on what the command complains about; those that it left behind may hold the pipe for ever."""
        said = os.read(self.complaints, PIECE)
        if said:
            self.tell(b"E", said)
            return
        forget(self.complaints)
        os.close(self.complaints)
        self.complaints = -1

    def end(self) -> None:
        """Tell how the command ended, after all that it said."""
        forget(self.process)
        os.close(self.process)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.end_input()
        if self.complaints >= 0:
            os.set_blocking(self.complaints, False)
            try:
                while said := os.read(self.complaints, PIECE):
                    self.tell(b"E", said)
            except BlockingIOError:
                pass
            forget(self.complaints)
            os.close(self.complaints)
        self.tell(b"Q", b"%d" % (status if status >= 0 else 128 - status))
        forget(self.control)
        self.control.close()


waiting: dict[str, Job] = {}
early: dict[str, socket.socket] = {}


class Caller:
    """A connection of which it is not known yet which of the two it is."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        watch(connection, self.hear)

    def hear(self) -> None:
        """A request begins with a brace. A token comes as a whole: it is the first that its caller sends."""
        first = receive(self.connection, TOKEN, socket.MSG_PEEK)
        if first is None or (first and first[:1] != b"{" and len(first) < TOKEN):
            return
        forget(self.connection)
        if first[:1] == b"{":
            Job(self.connection)
        elif first:
            token = (receive(self.connection, TOKEN) or b"").decode("ascii", "replace")
            if (job := waiting.pop(token, None)) is not None:
                job.begin(self.connection)
            else:
                early[token] = self.connection
        else:
            self.connection.close()


def receive(connection: socket.socket, count: int = PIECE, flags: int = 0) -> bytes | None:
    """Return what has come, ``b""`` at the end, ``None`` when nothing has come.

    It stays a blocking socket: the command has it, too.
    """
    try:
        return connection.recv(count, flags | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def watch(what: Any, wake: Any, events: int = selectors.EVENT_READ) -> None:
    wakes.register(what, events, wake)


def forget(what: Any) -> None:
    if what in wakes.get_map():
        wakes.unregister(what)


def main(port: int) -> None:
    gc.freeze()
    door = socket.create_server((ADDRESS, port), backlog=128)
    watch(door, lambda: Caller(door.accept()[0]))
    while True:
        for key, _ in wakes.select():
            # What one of them did may have ended another.
            if wakes.get_map().get(key.fd) is key:
                try:
                    key.data()
                except Exception:  # one command's trouble is not the others': the console keeps what it was
                    traceback.print_exc()


if __name__ == "__main__":
    main(int(sys.argv[1]))

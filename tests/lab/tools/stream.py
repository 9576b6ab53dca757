"""Send numbered UDP packets to a host at a steady rate, and count what comes from it. Runs in a lab's host.

    stream.py DIRECTORY PORT HOST RATE

Waits for the file ``go`` in the directory, sends ``RATE`` packets a second until there is a file ``stop``,
listens for as long again as a packet may be late, and writes ``PORT.json``: how many were sent, and the
numbers that arrived, as ranges. There is a file ``PORT.ready`` when it listens.
"""

import json
import select
import socket
import struct
import sys
import time
from pathlib import Path

BUFFER_BYTES = 16 << 20
LATE_S = 2.0
FORCE = {socket.SO_RCVBUF: 33, socket.SO_SNDBUF: 32}  # SO_RCVBUFFORCE and SO_SNDBUFFORCE, for root


def ranges(numbers):
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def receive(sock, seen):
    try:
        while True:
            seen.add(struct.unpack("!Q", sock.recv(2048)[:8])[0])
    except BlockingIOError:
        pass


def main(directory, port, host, rate):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option, forced in FORCE.items():
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except OSError:
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    sock.setblocking(False)
    sock.bind(("", int(port)))
    place = Path(directory)
    (place / f"{port}.ready").touch()
    while not (place / "go").exists():
        time.sleep(0.01)
    seen, sent, refused, began = set(), 0, 0, time.monotonic()
    while sent % 50 or not (place / "stop").exists():
        due = began + sent / float(rate)
        while (wait := due - time.monotonic()) > 0:
            if select.select([sock], [], [], wait)[0]:
                receive(sock, seen)
        try:
            sock.sendto(struct.pack("!Q", sent) + b"x" * 92, (host, int(port)))
        except OSError:  # counted as sent and lost
            refused += 1
        sent += 1
    quiet = time.monotonic() + LATE_S
    while (wait := quiet - time.monotonic()) > 0:
        if select.select([sock], [], [], wait)[0]:
            receive(sock, seen)
    told = {"sent": sent, "refused": refused, "arrived": ranges(seen), "s": quiet - LATE_S - began}
    new = place / f"{port}.json.new"
    new.write_text(json.dumps(told))
    new.rename(place / f"{port}.json")


main(*sys.argv[1:])

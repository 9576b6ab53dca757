"""What is run on a gateway that is reached by SSH, and how it becomes root there. Pure.

Whatever is to be done as root, the login starts one and the same command line: ``BOOT``, by sudo unless it
is root's login. It reads the length of a script, then the script, from its standard input; what follows there
is the script's own. So one line of sudoers is enough for all, nothing of a script is on sudo's command line
or in its log, and the login's shell (whichever it is) has nothing to parse but this line. The script's first
output is ``MARK``: before it may come whatever the login's shell says; without it no script has run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from ipsecctl.gateway.names import VICI_SOCKETS

__all__ = [
    "AS_ROOT",
    "BOOT",
    "GREETING",
    "MARK",
    "bridge",
    "held",
    "request",
    "script_of",
    "sudoers_line",
]

BOOT: Final = 'read -r n && eval "$(head -c $n)"'
"""``read`` takes no byte behind the end of the line, ``head -c`` none behind the last that it was told of."""

AS_ROOT: Final = (
    """/bin/sh -c 'r=; [ "$(id -u)" = 0 ] || r="sudo -n"; exec $r /bin/sh -c "$0"' """ + shlex.quote(BOOT)
)

MARK: Final = "ipsecctl-begins-here"

# Who the login is, and the socket of charon's that it may open itself.
GREETING: Final = "/bin/sh -c " + shlex.quote(
    f"echo {MARK}; id -u; "
    f"for s in {' '.join(VICI_SOCKETS)}; do if [ -S $s ] && [ -w $s ]; then echo $s; break; fi; done"
)

# A login need not have the directories of administration in its path, and sudo need not add them.
_BEGIN: Final = f"echo {MARK}; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; LC_ALL=C; export PATH LC_ALL\n"

_PYTHON: Final = r"""
import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
except OSError as exc:
    sys.exit(exc.strerror)
def there():
    for data in iter(lambda: os.read(0, 65536), b""):
        s.sendall(data)
    os._exit(0)
threading.Thread(target=there, daemon=True).start()
with os.fdopen(1, "wb", 0) as out:
    for data in iter(lambda: s.recv(65536), b""):
        while data:
            data = data[out.write(data):]
os._exit(0)
"""

_PERL: Final = r"""
use IO::Socket::UNIX;
$s = IO::Socket::UNIX->new(Peer => shift) or die "$!\n";
sub put {
    my ($to, $at) = (shift, 0);
    $at += syswrite($to, $b, length($b) - $at, $at) || exit 1 while $at < length $b
}
while (1) {
    $r = ""; vec($r, 0, 1) = 1; vec($r, fileno $s, 1) = 1; select($r, undef, undef, undef);
    if (vec($r, 0, 1)) { sysread(STDIN, $b, 65536) or exit; put($s) }
    if (vec($r, fileno $s, 1)) { sysread($s, $b, 65536) or exit; put(STDOUT) }
}
"""

_BRIDGE: Final = f"""
for s in {" ".join(VICI_SOCKETS)}; do [ ! -S "$s" ] || break; done
[ -S "$s" ] || {{ echo 'No such file or directory' >&2; exit 1; }}
has() {{ command -v "$1" >/dev/null 2>&1; }}
if has socat; then exec socat -t 0 STDIO "UNIX-CONNECT:$s"; fi
if has python3; then exec python3 -c '{_PYTHON}' "$s"; fi
if has perl; then exec perl -e '{_PERL}' "$s"; fi
if has nc; then exec nc -U "$s"; fi
echo 'nothing there can open a Unix socket: it takes one of socat, python3, perl and nc' >&2; exit 1
"""


def request(script: str) -> bytes:
    """Return what ``BOOT`` must read for a script to run."""
    encoded = (_BEGIN + script).encode()
    return b"%d\n%s" % (len(encoded), encoded)


def script_of(argv: Sequence[str], limit_s: float) -> str:
    """Return the script that runs a command, for at most ``limit_s`` seconds: with status 137 it was late.

    The gateway itself ends it, as it would go on there when nobody waits for it any more.
    """
    return f"exec timeout -s KILL {limit_s:g} {shlex.join(argv)}\n"


def held(argv: Sequence[str], silence_s: float) -> str:
    """Return the script that runs a command whose standard input ends when ours does, or falls silent.

    sshd may take hours to find out that nobody is there any more; so bytes must come, at least one every
    ``silence_s`` seconds.
    """
    return f"""
{{ sh -c 'echo $PPID'; while [ -n "$(timeout {silence_s:g} head -c 1)" ]; do echo; done; }} 2>/dev/null | {{
    read -r beats; {shlex.join(argv)}; status=$?
    kill "$beats" 2>/dev/null
    exit $status
}}
"""


def bridge() -> str:
    """Return the script that joins its standard streams to charon's socket, with what is there for that."""
    return _BRIDGE


def sudoers_line(user: str) -> str:
    """Return the line of sudoers that lets a login do what is needed, and no other command line."""
    return f"{user} ALL=(root) NOPASSWD: /bin/sh -c {BOOT}"

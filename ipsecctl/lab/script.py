"""The shell scripts that run inside nodes: one that makes a node what the wiring says, one that looks. Pure.

A script goes to ``docker exec`` on standard input: what is in it, secrets too, is in no process list.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from shlex import quote

from ipsecctl.errors import LabError
from ipsecctl.lab.firewall import internet_rules, nat_rules
from ipsecctl.lab.networkd import network_files
from ipsecctl.lab.wiring import Init, Interface, Lab, Node, NodeRoute, Role
from ipsecctl.patience import PATIENCE

__all__ = ["LOOK", "Seen", "check", "configure", "read_look"]

# The first process takes a gateway's links down before anything else: what is raised before that would not
# stay.
_AWAIT_INIT = f"""\
tries={round(200 * PATIENCE)}
until [ -e /run/ipsecctl-lab/waiting ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "the node's first process has not come to wait for its links after {10 * PATIENCE:g} s" >&2
        exit 1
    fi
    sleep 0.05
done
"""

# docker exec --privileged may mount; other processes of the node may only write. /proc/sys/net is that of the
# node's own network namespace, the rest of /proc/sys is the machine's and stays read-only.
_PROLOGUE = """\
set -eu
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,rw /proc/sys/net

set_sysctl() { if [ -e "/proc/sys/net/$1" ]; then echo "$2" >"/proc/sys/net/$1"; fi; }

# name_interface MAC NAME OWN_MAC: Docker numbers interfaces as it likes; only the MAC says which link one is
# on. The one that it gets from us stays the same from start to start, as a machine's does: its neighbours
# have it in their tables.
name_interface() {
    for device in /sys/class/net/*; do
        read -r mac <"$device/address"
        if [ "$mac" = "$1" ]; then
            ip link set dev "${device##*/}" down
            ip link set dev "${device##*/}" name "$2" address "$3"
            return
        fi
    done
    echo "no interface has the address $1, which $2 should have" >&2
    return 1
}

# A probe may ask for an ICMP error a packet.
set_sysctl ipv4/icmp_ratelimit 0
set_sysctl ipv6/icmp/ratelimit 0
set_sysctl ipv6/conf/all/disable_ipv6 0
set_sysctl ipv6/conf/default/disable_ipv6 0
set_sysctl ipv6/conf/default/accept_ra 0
"""

_CHARON = f"""\
tries={round(200 * PATIENCE)}
until [ -S /run/charon.vici ] && swanctl --stats </dev/null >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "charon does not answer after {10 * PATIENCE:g} s; its log ends:" >&2
        tail -n 5 /var/log/charon.log >&2
        exit 1
    fi
    sleep 0.05
done
"""

# Says nothing of failed units: they are for whoever looks at the gateway, as on any machine.
_BOOTED = f"""\
tries={round(200 * PATIENCE)}
until [ -S /run/systemd/private ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "systemd does not answer after {10 * PATIENCE:g} s" >&2
        exit 1
    fi
    sleep 0.05
done
timeout {20 * PATIENCE:g} systemctl is-system-running --wait >/dev/null 2>&1 || [ $? -ne 124 ] || {{
    echo 'systemd has not come to the end of the boot; it waits for:' >&2
    systemctl list-jobs --no-legend >&2
    exit 1
}}
"""

# swanctl's exit status is 0 although a credential could not be loaded; what it writes to stderr is the truth.
_LOAD = """\
complaints=$(swanctl --load-all </dev/null 2>&1 >/dev/null) || complaints="${complaints:-loading failed}"
if [ -n "$complaints" ]; then
    echo "$complaints" >&2
    exit 1
fi
"""

LOOK = f"""\
charon=- data_path=-
if [ "$1" = gateway ]; then
    charon=down data_path=unknown
    if stats=$(timeout {3 * PATIENCE:g} swanctl --stats </dev/null 2>/dev/null); then
        charon=running data_path=kernel
        sa='src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1badcaff'
        key=0x$(printf '%072d' 0)
        case $stats in
            *kernel-libipsec*) data_path=libipsec ;;
            *) if said=$(ip xfrm state add $sa mode tunnel aead 'rfc4106(gcm(aes))' "$key" 128 2>&1); then
                   ip xfrm state delete $sa
               else # of two that look at once, one finds the other's SA there
                   case $said in *exists*) ;; *) data_path=none ;; esac
               fi ;;
        esac
    fi
fi
echo "$charon $data_path"
ip -json address show
"""
"""Run with ``sh -s ROLE``: prints charon's state and the data path, then the addresses in JSON."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node says of itself.

    ``charon`` is ``running``, ``down`` or ``-`` where there is none; ``data_path`` is ``kernel``,
    ``libipsec``, ``none``, ``unknown`` or ``-``. It comes from the plugins that charon has loaded, and where
    ESP is left to the kernel, from the kernel: ``none`` when that takes no SA. ``addresses`` holds, by
    interface, its global addresses with prefix lengths.
    """

    charon: str
    data_path: str
    addresses: Mapping[str, tuple[str, ...]]


def read_look(output: str) -> Seen:
    """Read what ``LOOK`` printed; raises ``LabError`` when it is something else."""
    try:
        first, document = output.split("\n", 1)
        charon, data_path = first.split()
        addresses = {
            link["ifname"]: tuple(
                f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a.get("scope") == "global"
            )
            for link in json.loads(document)
            if link.get("ifname") != "lo"
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LabError("a node answered in an unexpected way", "Is it still starting? Try again.") from error
    return Seen(charon, data_path, addresses)


def configure(
    lab: Lab, node: Node, macs: Mapping[str, str], files: Mapping[str, bytes], *, again: bool = False
) -> str:
    """Return the script that makes a container that has just started the node.

    ``macs`` has the MAC address on each link of the node, ``files`` the content of each file that goes into
    it. The script ends when the node is ready; in a gateway that is when charon answers. With ``again`` the
    node has been one before: its files are there, and may have become others; and where systemd starts
    charon, whether that runs is not ours to want.
    """
    of_its_own = node.init is Init.SYSTEMD
    parts = [_AWAIT_INIT] if node.role is Role.GATEWAY else []
    parts.append(_PROLOGUE)
    parts += [f"name_interface {macs[i.link]} {i.name} {_own_mac(lab, node, i)}\n" for i in node.interfaces]
    if not of_its_own:
        parts += list(_sysctls(node))
        parts.append(_heredoc("ip -batch -", "\n".join(_addresses(node))))
    parts += [_heredoc("nft -f -", rules) for rules in _rules(lab, node)]
    # Docker's resolver would be a way out of the lab; without one a look-up fails at once.
    parts.append(": >/etc/resolv.conf\n")
    parts += [f"echo {quote(f'{address} {name}')} >>/etc/hosts\n" for name, address in lab.names]
    if not again:
        own = network_files(node) if of_its_own else {}
        parts += [_file(path, text.encode(), 0o644) for path, text in sorted(own.items())]
        parts += [_file(path, content) for path, content in sorted(files.items())]
    parts.append("touch /run/ipsecctl-lab/ready\nkill -s USR1 1\n")  # init looks, and naps between
    if of_its_own:
        parts.append(_BOOTED)
    if node.role is Role.GATEWAY and not (of_its_own and again):
        parts.append(_CHARON)
        if files:
            parts.append(_LOAD)
    return "".join(parts)


def _own_mac(lab: Lab, node: Node, interface: Interface) -> str:
    """Return the MAC address of an interface: locally administered, the same for the same lab."""
    digits = hashlib.sha256(f"{lab.name} {node.name} {interface.link}".encode()).hexdigest()
    return ":".join(["02", *(digits[place : place + 2] for place in range(0, 10, 2))])


def check(node: Node) -> str:
    """Return the script that has a node reach each of its next hops."""
    hops = sorted({route.via for route in node.routes if route.via is not None})
    pings = [
        f"ping -n -q -c 1 -i 0.2 -w 3 {hop} >/dev/null || {{ echo 'no answer from {hop}' >&2; exit 1; }}\n"
        for hop in hops
    ]
    return "".join(pings) or "true\n"


def _sysctls(node: Node) -> Iterator[str]:
    if node.role is not Role.HOST:
        yield "set_sysctl ipv6/conf/all/forwarding 1\n"
    dual_stack = any(a.version == 6 for interface in node.interfaces for a in interface.addresses)
    for interface in node.interfaces:
        path = f"ipv6/conf/{interface.name}"
        if any(address.version == 6 for address in interface.addresses):
            yield f"set_sysctl {path}/disable_ipv6 0\n"
            yield f"set_sysctl {path}/accept_ra 0\n"
            yield f"set_sysctl {path}/accept_dad 0\n"
        elif dual_stack and node.role is Role.GATEWAY:
            # What the kernel has decrypted comes in at the WAN interface once more, IPv6 out of IPv4 too, and
            # is dropped where IPv6 is off. Without an address the interface says nothing on the wire.
            yield f"set_sysctl {path}/addr_gen_mode 1\n"
            yield f"set_sysctl {path}/accept_ra 0\n"
            yield f"set_sysctl {path}/router_solicitations 0\n"
            yield f"set_sysctl {path}/disable_ipv6 0\n"
        else:
            # No router solicitations on a wire that has no IPv6: captures show what matters.
            yield f"set_sysctl {path}/disable_ipv6 1\n"


def _addresses(node: Node) -> Iterator[str]:
    """Yield the lines for ``ip -batch``. Routes come last: a next hop must be on a link that is up."""
    for interface in node.interfaces:
        yield from _interface(interface)
    for route in node.routes:
        yield _route(route)


def _interface(interface: Interface) -> Iterator[str]:
    yield f"address flush dev {interface.name}"
    yield f"link set dev {interface.name} mtu {interface.mtu} up"
    for address in interface.addresses:
        yield f"address add {address} dev {interface.name}{' nodad' if address.version == 6 else ''}"


def _route(route: NodeRoute) -> str:
    via = f" via {route.via}" if route.via is not None else ""
    # Spelt out, the prefix says which family it is; the word "default" would mean IPv4.
    return f"route replace {route.prefix}{via} dev {route.interface}"


def _rules(lab: Lab, node: Node) -> Iterator[str]:
    if node.role is Role.INTERNET:
        yield internet_rules(lab)
    if node.nat is not None:
        yield nat_rules(node.nat)


def _file(path: str, content: bytes, mode: int = 0o600) -> str:
    encoded = base64.encodebytes(content).decode().strip()
    folder = path.rpartition("/")[0] or "/"
    target = quote(path)
    return (
        f"mkdir -p {quote(folder)}\n"
        f"(umask 077; : >{target})\n"
        + _heredoc(f"base64 -d >{target}", encoded)
        + f"chmod {mode:o} {target}\n"
    )


def _heredoc(command: str, text: str) -> str:
    return f"{command} <<'END_OF_INPUT'\n{text.rstrip()}\nEND_OF_INPUT\n"

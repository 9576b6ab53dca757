"""What a gateway is and can do, for people: what is lacking first, then what was found, in groups."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ipsecctl.cli._view import console, paint, print_error, terminal_width

if TYPE_CHECKING:
    from ipsecctl.deploy.facts import GatewayFacts
    from ipsecctl.gateway import Capabilities, Clock

__all__ = ["print_facts", "print_side_by_side"]

_LABEL_WIDTH = 18
_PLAIN_WIDTH = 200


def print_facts(one: GatewayFacts) -> None:
    """Print one gateway's facts; an error goes to standard error."""
    if one.found is None:
        if one.error is not None:
            print_error(one.error)
        return
    print(f"{paint(one.name, 'bold', sys.stdout)}: {one.found.data_path_said}")
    for line in _problems(one, one.found):
        print(line)
    for title, entries in _groups(one.found):
        print(f"\n{paint(title, 'bold', sys.stdout)}")
        for label, value in entries:
            print(f"  {label:<{_LABEL_WIDTH}} {value}")


def print_side_by_side(gathered: tuple[GatewayFacts, ...]) -> None:
    """Print the facts that fit into a table of gateways, and below it what is lacking or in the way."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("", *(one.name for one in gathered)):
        table.add_column(title, overflow="fold")
    columns = [dict(_summary(one)) for one in gathered]
    for label in dict.fromkeys(label for column in columns for label in column):
        table.add_row(Text(label), *(Text(column.get(label, "-")) for column in columns))
    console(terminal_width() or _PLAIN_WIDTH).print(table)
    for one in gathered:
        if one.found is None:
            if one.error is not None:
                print_error(one.error)
            continue
        for line in _problems(one, one.found):
            print(f"{one.name}: {line}")


def _problems(one: GatewayFacts, found: Capabilities) -> Iterator[str]:
    from ipsecctl.gateway import notes

    for lack in one.lacking:
        label = paint("lacks", "red", sys.stdout) if lack.stops else paint("unclear", "yellow", sys.stdout)
        if lack.spare and lack.certain:
            label = paint("not used", "yellow", sys.stdout)
        yield f"{label}: {lack.what}; needed: {lack.why_needed}"
        yield f"    {lack.mend}"
    for note in notes(found):
        yield f"{paint('note', 'cyan', sys.stdout)}: {note}"


def _summary(one: GatewayFacts) -> Iterator[tuple[str, str]]:
    found = one.found
    if found is None:
        yield "reached", "no"
        return
    kernel, charon = found.kernel, found.charon
    yield "reached", "yes"
    yield "lacks", str(sum(lack.stops for lack in one.lacking) or "nothing")
    yield "data path", found.data_path_said.partition(":")[0]
    yield "charon", charon.version if charon else "not known"
    yield "ML-KEM", ("yes" if charon.ml_kem else "no") if charon else "not known"
    yield "kernel", kernel.release or "not known"
    yield "ESP in the kernel", str(kernel.esp.has)
    yield "xfrm interfaces", str(kernel.xfrm_interfaces.has)
    yield "hardware offload", str(kernel.offload.has)
    yield "nftables", found.firewall.nftables.split(" (")[0] or "no"
    yield "FRR", found.frr.version or str(found.frr.installed.has)
    yield "clock", _offset(found.clock)


def _groups(found: Capabilities) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    yield "charon", list(_charon(found))
    yield "kernel", list(_kernel(found))
    yield "firewall", list(_firewall(found))
    yield "network", list(_network(found))
    yield "system", list(_system(found))


def _charon(found: Capabilities) -> Iterator[tuple[str, str]]:
    charon = found.charon
    if charon is None:
        yield "version", f"not known: {found.charon_why}"
    else:
        yield "version", charon.version
        yield "ML-KEM", _list(charon.ml_kem) if charon.ml_kem else "no: none of its plugins can do it"
        for label, kinds in (
            ("ciphers", ("aead", "encryption")),
            ("integrity", ("integrity",)),
            ("PRF", ("prf",)),
            ("key exchange", ("ke", "dh")),
        ):
            yield label, _list(sorted(charon.named(*kinds)))
        yield "plugins", _list(charon.plugins)
    yield "VICI socket", _list(found.vici_sockets)
    for listener in found.listeners:
        yield f"UDP {listener.port}", f"{listener.address}: {listener.process or 'somebody who is not told'}"


def _kernel(found: Capabilities) -> Iterator[tuple[str, str]]:
    kernel = found.kernel
    yield "release", kernel.release or "not known"
    yield "ESP", str(kernel.esp)
    yield "ESP over IPv6", str(kernel.esp_ipv6)
    for has in dict.fromkeys(str(answer.has) for _, answer in kernel.suites):
        yield f"suites: {has}", _list([name for name, answer in kernel.suites if str(answer.has) == has])
    yield "UDP encapsulation", str(kernel.udp_encapsulation)
    yield "ESN, replay window", str(kernel.esn)
    yield "xfrm interfaces", str(kernel.xfrm_interfaces)
    yield "dummy interfaces", str(kernel.dummy)
    yield "IP-TFS", str(kernel.iptfs)
    yield "per-CPU SAs", str(kernel.per_cpu_sas)
    yield "hardware offload", str(kernel.offload)


def _firewall(found: Capabilities) -> Iterator[tuple[str, str]]:
    firewall = found.firewall
    yield "nftables", firewall.nftables or f"no: {firewall.nftables_why}"
    yield "takes our rules", str(firewall.sets)
    yield "can tell IPsec", str(firewall.xfrm)
    yield "tables", _list(firewall.tables)
    yield "iptables-legacy", _list(firewall.legacy_tables)
    for rule in firewall.source_nat:
        yield "source NAT", f"{rule.where}: {rule.rule}"


def _network(found: Capabilities) -> Iterator[tuple[str, str]]:
    for link in found.interfaces:
        details = [f"MTU {link.mtu}", *(str(address) for address in link.addresses)]
        details += [f"if_id {link.if_id}"] if link.if_id is not None else []
        details += [f"of {link.owner}"] if link.owner else []
        yield link.name, ", ".join(details)
    for route in found.default_routes:
        yield f"IPv{route.family} route", route.route
    for rule in found.rules:
        yield f"IPv{rule.family} rule {rule.priority}", f"{rule.selector} -> table {rule.table or 'none'}"
    for table in found.tables:
        yield f"IPv{table.family} table {table.name}", f"{table.routes} routes, {table.ours} of them ours"
    yield "IPv6 off", _list(found.ipv6_off)
    yield "if_ids in use", _list([str(number) for number in found.kernel.if_ids])


def _system(found: Capabilities) -> Iterator[tuple[str, str]]:
    yield "clock", _offset(found.clock)
    yield "clock kept right", str(found.clock.synchronised)
    yield "systemd", str(found.systemd)
    yield "systemd-networkd", str(found.networkd)
    yield "NetworkManager", str(found.network_manager)
    frr = found.frr
    yield (
        "FRR",
        f"{frr.version or 'installed'}, zebra running: {frr.running}"
        if frr.installed.yes
        else str(frr.installed),
    )


def _offset(clock: Clock) -> str:
    if clock.low_s is None or clock.high_s is None:
        return "not known"
    return f"{clock.low_s:+.2f} to {clock.high_s:+.2f} s against this one"


def _list(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names) or "none"

"""From what the script printed on a gateway, and from charon's answers, to ``Capabilities``: pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ipsecctl.errors import CannotTell
from ipsecctl.gateway._capability_answers import Answers, read_answers, whole
from ipsecctl.gateway._capability_network import (
    read_default_routes,
    read_firewall,
    read_interfaces,
    read_listeners,
    read_rules,
    read_tables,
)
from ipsecctl.gateway._capability_script import KERNEL_SUITES
from ipsecctl.gateway.capabilities import (
    Answer,
    Capabilities,
    Charon,
    Clock,
    Frr,
    Has,
    Interface,
    Kernel,
)

__all__ = ["parse_capabilities", "parse_charon"]


def parse_charon(version: Mapping[str, Any], stats: Mapping[str, Any], listed: Mapping[str, Any]) -> Charon:
    """Return charon's answers to ``version``, ``stats`` and ``get-algorithms``; what is not of their kind is
    left out."""
    plugins = stats.get("plugins")
    names = version.get("version")
    return Charon(
        version=names if isinstance(names, str) else "",
        plugins=tuple(p for p in plugins if isinstance(p, str)) if isinstance(plugins, list) else (),
        algorithms=tuple(
            sorted(
                (kind, tuple(sorted(name for name in found if isinstance(name, str))))
                for kind, found in listed.items()
                if isinstance(found, Mapping)
            )
        ),
    )


def parse_capabilities(
    gateway: str,
    text: str,
    charon: Charon | None,
    *,
    charon_why: str = "",
    asked_s: float | None = None,
    answered_s: float | None = None,
) -> Capabilities:
    """Return what a gateway is, from the text that the script printed there.

    ``asked_s`` and ``answered_s`` are our own clock (Unix time, seconds) before and after. Raises
    ``CannotTell`` when the text is not a whole answer; single answers that cannot be read are "not known".
    """
    answers = read_answers(text)
    if not answers.first("begin") or not answers.first("end"):
        raise CannotTell(
            f"{gateway}: its answer about itself came only in part",
            "Was the command ended there? Try again; a gateway under load may need a longer --timeout.",
        )
    unknown = dict(_unread(answers))
    interfaces = tuple(sorted(read_interfaces(answers, charon)))
    return Capabilities(
        gateway=gateway,
        charon=charon,
        charon_why=charon_why,
        kernel=_kernel(answers, interfaces),
        firewall=read_firewall(answers),
        interfaces=interfaces,
        default_routes=tuple(sorted(read_default_routes(answers))),
        rules=tuple(sorted(read_rules(answers))),
        tables=tuple(sorted(read_tables(answers))),
        frr=_frr(answers),
        clock=_clock(answers, asked_s, answered_s),
        vici_sockets=answers.lines.get("vici", ()),
        listeners=tuple(sorted(set(read_listeners(answers)))),
        systemd=_yes_or_no(answers.first("systemd"), "yes", "no"),
        networkd=_service(answers, "networkd"),
        network_manager=_service(answers, "network_manager"),
        ipv6_off=tuple(sorted(set(answers.lines.get("ipv6_off", ())) - {"all"})),
        unknown=tuple(sorted(unknown.items())),
    )


def _unread(answers: Answers) -> Iterator[tuple[str, str]]:
    """Yield what could not be listed, and why."""
    for name, what in (
        ("addresses", "interfaces"),
        ("rules4", "rules"),
        ("rules6", "IPv6 rules"),
        ("routes4", "routes"),
        ("routes6", "IPv6 routes"),
        ("policies", "if_ids in use"),
        ("ruleset", "nftables rules"),
        ("listeners", "listeners"),
    ):
        as_json = name in ("addresses", "rules4", "rules6")
        if not answers.ended_well(name):
            yield what, answers.why_not(name)
        elif as_json and answers.document(name) is None:
            yield what, "the gateway's ip command does not answer in JSON"


def _kernel(answers: Answers, interfaces: tuple[Interface, ...]) -> Kernel:
    suites = tuple((name, answers.trial(f"suite4 {name}")) for name in KERNEL_SUITES)
    esp = _esp(answers, dict(_suite_trials(answers, 4)))
    without_esp = Answer(Has.NO, "the kernel has no ESP") if esp.no else None
    return Kernel(
        release=answers.first("release"),
        esp=esp,
        esp_ipv6=_esp(answers, dict(_suite_trials(answers, 6))),
        suites=suites,
        xfrm_interfaces=answers.trial("xfrm_interfaces"),
        dummy=answers.trial("dummy"),
        iptfs=_iptfs(answers),
        per_cpu_sas=without_esp or _seen(answers, "per_cpu", "pcpu-num"),
        udp_encapsulation=without_esp or answers.trial("udp_encapsulation"),
        esn=without_esp or _seen(answers, "esn", "esn"),
        offload=_any_offload(answers, interfaces),
        if_ids=tuple(sorted({n for text in answers.lines.get("policies", ()) if (n := whole(text))})),
    )


def _suite_trials(answers: Answers, family: int) -> Iterator[tuple[str, Answer]]:
    for name in KERNEL_SUITES:
        if f"suite{family} {name}" in answers.statuses:
            yield name, answers.trial(f"suite{family} {name}")


def _esp(answers: Answers, suites: Mapping[str, Answer]) -> Answer:
    """Return whether the kernel has ESP at all: one suite is enough.

    A kernel looks for the cipher of an AEAD before it looks for ESP, so only what it says to suites of a
    cipher and a hash is about ESP itself.
    """
    if any(answer.yes for answer in suites.values()):
        return Answer(Has.YES)
    plain = [answer for name, answer in suites.items() if "-" in name] or list(suites.values())
    if not plain:
        return answers.trial("suite4")
    return next((answer for answer in plain if answer.has is Has.UNKNOWN), plain[0])


def _seen(answers: Answers, trial: str, word: str) -> Answer:
    """Return what came of an SA with an option, which a kernel may also have passed over in silence."""
    answer = answers.trial(trial)
    made = any(word in line.split() for line in answers.lines.get("made", ()))
    return Answer(Has.NO, "the kernel left it out of the SA") if answer.yes and not made else answer


def _iptfs(answers: Answers) -> Answer:
    """Return whether IP-TFS is there; where ip cannot ask for it, the kernel's configuration says it.

    Where that cannot be read either, the names of its functions tell a kernel that has no room for it (before
    Linux 6.14) from one that may have it.
    """
    answer = answers.trial("iptfs")
    if answer.has is not Has.UNKNOWN:
        return answer
    if not answers.first("config_file"):
        functions = answers.lines.get("symbol", ())
        if "xfrm_state_add" in functions and "xfrm_register_mode_cbs" not in functions:
            return Answer(Has.NO, "by /proc/kallsyms: no mode can be added to this kernel's IPsec")
        return answer
    source = f"{answers.first('config_file')}, not tried: {answer.why}"
    built = any(re.fullmatch(r"CONFIG_XFRM_IPTFS=[ym]", line) for line in answers.lines.get("config", ()))
    return Answer(Has.YES if built else Has.NO, f"by {source}")


_SOFTWARE = frozenset(("bridge", "dummy", "ifb", "tun", "veth", "wireguard", "xfrm"))
"""Kinds of interfaces behind which there is no network card."""


def _any_offload(answers: Answers, interfaces: tuple[Interface, ...]) -> Answer:
    """Return whether some network card takes ESP over; where none is there, nobody need be asked."""
    told = [i for i in interfaces if i.offload.has is not Has.UNKNOWN]
    able = [i.name for i in told if i.offload.yes]
    if able:
        return Answer(Has.YES, ", ".join(able))
    if told:
        return Answer(Has.NO, "no interface has esp-hw-offload on")
    if interfaces and all(link.name == "lo" or link.kind in _SOFTWARE for link in interfaces):
        return Answer(Has.NO, "there is no network card: all interfaces are software")
    return Answer(Has.UNKNOWN, answers.refusals.get("offload", "no interface tells"))


def _frr(answers: Answers) -> Frr:
    if "frr" in answers.refusals:
        absent = Answer(Has.NO, answers.refusals["frr"])
        return Frr(absent, absent)
    running = answers.ended_well("zebra")
    version = re.search(
        r"FRRouting (\S+)", " ".join(answers.lines.get("zebra", answers.lines.get("frr", ())))
    )
    return Frr(
        installed=Answer(Has.YES),
        running=Answer(Has.YES) if running else Answer(Has.NO, "zebra does not answer vtysh"),
        version=version[1] if version else "",
    )


def _clock(answers: Answers, asked_s: float | None, answered_s: float | None) -> Clock:
    """Return how far the clock is ahead. The first of its two times is from after we asked, the last from
    before we had the answer."""
    begin, end = _seconds(answers.first("begin")), _seconds(answers.first("end"))
    synchronised = _synchronised(answers)
    if begin is None or end is None or asked_s is None or answered_s is None:
        return Clock(None, None, synchronised)
    low, high = end - answered_s, begin - asked_s
    # Bounds the wrong way round: one of the clocks was set meanwhile.
    return Clock(low, high, synchronised) if low <= high else Clock(None, None, synchronised)


def _seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,9}", text) else None


def _synchronised(answers: Answers) -> Answer:
    """Return whether something keeps the clock right, by the first program that knows."""
    if answers.ended_well("timedatectl") and (said := answers.first("timedatectl")) in ("yes", "no"):
        return _yes_or_no(said, "yes", "no", "timedatectl")
    for line in answers.lines.get("chronyc", ()):
        name, _, state = line.partition(":")
        if name.strip() == "Leap status" and answers.ended_well("chronyc"):
            normal = state.strip() != "Not synchronised"
            return Answer(Has.YES if normal else Has.NO, "chronyc")
    for line in answers.lines.get("adjtimex", ()):
        found = re.fullmatch(r"status:\s*([0-9]{1,9})", line)
        if found is not None:
            unsynchronised = int(found[1]) & 0x40  # STA_UNSYNC of <sys/timex.h>
            return Answer(Has.NO if unsynchronised else Has.YES, "adjtimex")
    return Answer(Has.UNKNOWN, "none of timedatectl, chronyc and adjtimex answers")


def _service(answers: Answers, name: str) -> Answer:
    """Return whether one of systemd's services runs."""
    if answers.first("systemd") == "no":
        return Answer(Has.NO, "there is no systemd")
    return _yes_or_no(answers.first(name), "active", "inactive")


def _yes_or_no(said: str, yes: str, no: str, why: str = "") -> Answer:
    has = {yes: Has.YES, no: Has.NO}.get(said, Has.UNKNOWN)
    return Answer(has, why if has is not Has.UNKNOWN else said or "no answer")

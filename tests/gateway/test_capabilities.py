"""What a gateway is and can do, from answers recorded on real ones."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netaddr import IPNetwork

from ipsecctl.errors import CannotTell, GatewayUnreachable, ViciError
from ipsecctl.gateway import Charon, Completed, Has, capabilities, facts_json, notes
from ipsecctl.gateway._capability_parser import parse_capabilities, parse_charon
from ipsecctl.topology import DataPath

RECORDED = Path(__file__).parent / "recorded"
LIBIPSEC = (RECORDED / "lab-libipsec.txt").read_text()
KERNEL = (RECORDED / "debian-13-kernel.txt").read_text()
LEGACY = (RECORDED / "iptables-legacy.txt").read_text()
CHARON = json.loads((RECORDED / "charon-6.1.0.json").read_text())


def charon(*, libipsec=False, algorithms=None, version="6.1.0"):
    stats = dict(CHARON["stats"])
    stats["plugins"] = [*(["kernel-libipsec"] if libipsec else []), *stats["plugins"]]
    return parse_charon({"version": version}, stats, algorithms or CHARON["get-algorithms"])


def parsed(text, daemon=None, **more):
    return parse_capabilities("gw", text, daemon, **more)


def test_charon():
    told = charon()
    assert (told.version, told.version_numbers) == ("6.1.0", (6, 1, 0))
    assert told.ml_kem == ("ML_KEM_1024", "ML_KEM_512", "ML_KEM_768")
    assert "AES_GCM_16" in told.named("aead") and "CURVE_25519" in told.key_exchanges
    older = parse_charon({"version": "5.9.8"}, {}, {"dh": {"CURVE_25519": "openssl"}})
    assert (older.key_exchanges, older.ml_kem) == ({"CURVE_25519"}, ())
    assert Charon("6.0.2rc1").version_numbers == (6, 0, 2) < told.version_numbers
    assert Charon("").version_numbers == ()


def test_a_kernel_with_esp():
    found = parsed(KERNEL, charon())
    kernel = found.kernel
    assert found.data_path is DataPath.KERNEL
    assert kernel.release == "6.12.107+deb13-cloud-amd64"
    assert {name for name, answer in kernel.suites if answer.yes} == {name for name, _ in kernel.suites}
    assert {"aes256gcm16", "aes128gcm16", "chacha20poly1305", "aes256-sha256", "aes256-sha1"} <= dict(
        kernel.suites
    ).keys()
    for answer in (kernel.esp, kernel.esp_ipv6, kernel.xfrm_interfaces, kernel.udp_encapsulation, kernel.esn):
        assert answer.has is Has.YES
    assert kernel.per_cpu_sas.yes
    assert kernel.iptfs.no and "/boot/config-" in kernel.iptfs.why
    assert (kernel.offload.has, kernel.dummy.has) == (Has.NO, Has.YES)
    assert kernel.offload.why == "there is no network card: all interfaces are software"
    (link,) = found.xfrm_links
    assert (link.name, link.if_id, link.owner) == ("x0", 42, "")
    assert IPNetwork("10.9.9.1/30") in link.addresses
    assert kernel.if_ids == (7,)
    assert [nat.where for nat in found.firewall.source_nat] == ["ip nat post"]
    assert ("220", 1) in {(table.name, table.routes) for table in found.tables}
    assert {listener.process for listener in found.listeners} == {"charon-systemd"}
    said = "\n".join(notes(found))
    assert "x0 with if_id 42" in said and "if_id 7, and no interface" in said
    assert "source NAT in ip nat post" in said


@pytest.mark.parametrize(
    ("lines", "has"),
    [
        ("symbol | xfrm_state_add", Has.NO),
        ("symbol | xfrm_state_add\nsymbol | xfrm_register_mode_cbs", Has.UNKNOWN),
        ("", Has.UNKNOWN),
    ],
)
def test_ip_tfs_without_a_configuration_to_read(lines, has):
    """The names of the kernel's functions say when there is no room for it; with room a module may lack."""
    bare = re.sub(r"(?m)^config.*\n", "", KERNEL)
    kernel = parsed(bare.replace("\nend |", f"\n{lines}\nend |"), charon()).kernel
    assert kernel.iptfs.has is has
    assert ("/proc/kallsyms" in kernel.iptfs.why) is (has is Has.NO)


def test_a_card_that_nobody_could_ask_may_take_esp_over():
    with_card = KERNEL.replace('"info_kind":"veth"', '"info_kind":""', 1)
    kernel = parsed(with_card, charon()).kernel
    assert (kernel.offload.has, kernel.offload.why) == (Has.UNKNOWN, "ethtool is not installed")


def test_ipv6_that_is_off_on_the_way_out():
    (default,) = {route.route for route in parsed(KERNEL, charon()).default_routes if route.family == 4}
    device = default.partition("dev ")[2].split()[0]
    lines = f"ipv6_off | {device}\nipv6_off | all\nipv6_off | lan"
    found = parsed(KERNEL.replace("\nend |", f"\n{lines}\nend |"), charon())
    assert found.ipv6_off == tuple(sorted((device, "lan")))
    assert [note for note in notes(found) if f"IPv6 is off on {device}" in note]
    libipsec = parsed(LIBIPSEC.replace("\nend |", f"\n{lines}\nend |"), charon(libipsec=True))
    assert not [note for note in notes(libipsec) if "IPv6 is off" in note]


def test_a_kernel_without_esp_and_charon_that_carries_it():
    found = parsed(LIBIPSEC, charon(libipsec=True))
    assert found.data_path is DataPath.LIBIPSEC
    assert found.kernel.esp.no and found.kernel.xfrm_interfaces.no
    assert found.kernel.udp_encapsulation.why == "the kernel has no ESP"
    device = found.interface("ipsec0")
    assert device is not None and (device.mtu, device.owner) == (1400, "charon (kernel-libipsec)")
    assert found.firewall.sets.yes and found.firewall.xfrm.yes
    assert found.vici_sockets == ("/run/charon.vici",)
    assert "inet ipsecctl" in found.firewall.tables
    assert all(rule.only_loopback for rule in found.firewall.source_nat)
    assert notes(found) == ("the kernel has no ESP: charon carries it itself, in user space",)


def test_nobody_carries_esp():
    found = parsed(LIBIPSEC, charon())
    assert found.data_path is None
    assert found.data_path_said.startswith("none: the kernel has no ESP (Requested type not found)")
    assert "ipsec0 already" in "\n".join(notes(found))


def test_without_charon_the_data_path_is_not_known():
    found = parsed(KERNEL, None, charon_why="charon is not running")
    assert found.data_path is None
    assert found.data_path_said.startswith("not known: charon could not be asked (charon is not running)")


def test_iptables_legacy():
    found = parsed(LEGACY, charon())
    firewall = found.firewall
    assert firewall.legacy_tables == ("ip filter", "ip nat", "ip6 filter")
    assert firewall.legacy_rules is not None and len(firewall.legacy_rules) == 5
    assert [nat.rule for nat in firewall.source_nat] == ["-A POSTROUTING -o eth9 -j MASQUERADE"]
    assert [nat.rule.split()[-1] for nat in firewall.ike_redirected] == ["10.0.0.9"]
    assert (firewall.sets.has, firewall.sets.why) == (Has.NO, "nft is not installed")
    assert "iptables-legacy is in use (ip filter, ip nat, ip6 filter; 5 rules)" in "\n".join(notes(found))
    unread = parsed(LEGACY.replace("legacy_rule |", "legacy_unread |"), charon())
    assert unread.firewall.legacy_rules is None


def without(text, *names):
    """Leave out the answers with these names."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(names))


def test_where_no_namespace_can_be_made_nothing_is_claimed():
    names = (
        "suite",
        "udp_",
        "esn",
        "iptfs",
        "per_cpu",
        "made",
        "xfrm_interfaces",
        "nft_sets",
        "nft_xfrm",
        "trials",
    )
    refused = without(KERNEL, *names, "config") + "trials ? unshare is not installed\n"
    found = parsed(refused, charon())
    kernel = found.kernel
    for answer in (
        kernel.esp,
        kernel.esp_ipv6,
        kernel.esn,
        kernel.iptfs,
        kernel.xfrm_interfaces,
        found.firewall.sets,
    ):
        assert (answer.has, answer.why) == (Has.UNKNOWN, "unshare is not installed")
    assert found.data_path is None and found.data_path_said.startswith("not known")


@pytest.mark.parametrize(
    ("said", "has"),
    [
        ("2 RTNETLINK answers: Protocol not supported", Has.NO),
        ("2 RTNETLINK answers: Function not implemented", Has.NO),
        ("2 RTNETLINK answers: Operation not permitted", Has.UNKNOWN),
        ("2 RTNETLINK answers: File exists", Has.UNKNOWN),
        ('255 Error: argument "xfrm" is wrong: unknown', Has.UNKNOWN),
        ("127 sh: 1: ip: not found", Has.UNKNOWN),
        ("0 ", Has.YES),
    ],
)
def test_what_a_refusal_means(said, has):
    text = without(KERNEL, "xfrm_interfaces") + f"xfrm_interfaces = {said}\n"
    assert parsed(text, charon()).kernel.xfrm_interfaces.has is has


def test_an_option_that_the_kernel_passed_over_is_not_there():
    found = parsed(without(KERNEL, "made"), charon())
    assert found.kernel.esn.no and found.kernel.per_cpu_sas.no


def test_a_cipher_that_is_missing_is_no_missing_esp():
    line = "suite4 chacha20poly1305 = "
    text = without(KERNEL, line) + f"{line}2 Error: Requested AEAD algorithm not found.\n"
    kernel = parsed(text, charon()).kernel
    assert kernel.esp.yes
    assert (kernel.suite("chacha20poly1305").has, kernel.suite("aes192ctr-sha1").has) == (Has.NO, Has.UNKNOWN)


def test_clock_and_programs():
    text = "begin | 1000.500000000\nend | 1001.500000000\nadjtimex |        status: 64\nadjtimex = 0\n"
    clock = parsed(text, asked_s=990.0, answered_s=991.75).clock
    assert (clock.low_s, clock.high_s) == (9.75, 10.5)
    assert clock.synchronised.no
    assert parsed(text + "timedatectl | yes\ntimedatectl = 0\n").clock.synchronised.yes
    assert parsed(text, asked_s=990.0, answered_s=990.5).clock.low_s is None, "set back in between"
    behind = parsed(text, asked_s=2000.0, answered_s=2001.0)
    assert "behind this one" in "\n".join(notes(behind))
    chrony = "chronyc | Leap status     : Not synchronised\nchronyc = 0\n"
    assert parsed(without(text, "adjtimex") + chrony).clock.synchronised.no


def test_frr_offload_and_somebody_else_on_our_ports():
    text = KERNEL.replace(
        "frr ? vtysh is not installed\n", "frr | x\nfrr = 0\nzebra | FRRouting 10.4 (gw)\nzebra = 0\n"
    )
    text = text.replace("offload ? ethtool is not installed\n", "offload | v0 on\noffload | v1 off [fixed]\n")
    text = text.replace('"charon-systemd"', '"isakmpd"')
    found = parsed(text, charon())
    assert (found.frr.version, found.frr.running.has) == ("10.4", Has.YES)
    assert (found.kernel.offload.has, found.kernel.offload.why) == (Has.YES, "v0")
    assert "isakmpd, not charon, listens on UDP 500" in "\n".join(notes(found))
    ours = parsed(KERNEL + "netdev | x0 /etc/systemd/network/60-ipsecctl-x0.netdev\n", charon())
    assert ours.xfrm_links[0].owner == "ipsecctl"


def test_an_answer_cut_short_is_no_answer():
    with pytest.raises(CannotTell, match="only in part"):
        parsed(KERNEL.rpartition("end |")[0], charon())


def test_what_could_not_be_listed_is_named():
    text = without(KERNEL, "addresses", "ruleset") + "addresses | {oops\naddresses = 0\nruleset = 124\n"
    found = parsed(text, charon())
    assert dict(found.unknown) == {
        "interfaces": "the gateway's ip command does not answer in JSON",
        "nftables rules": "the command for it did not end in time",
    }


def test_the_document_is_json_and_says_null_for_what_is_not_known():
    document = json.loads(json.dumps(facts_json(parsed(KERNEL, charon()))))
    assert document["schema"] == "ipsecctl/facts/1" and document["gateway"] == "gw"
    assert document["data_path"]["value"] == "kernel"
    assert document["kernel"]["suites"]["aes256gcm16"] == {"value": True, "why": ""}
    assert document["kernel"]["offload"]["value"] is False
    assert document["clock"]["synchronised"]["value"] is None
    assert document["charon"]["ml_kem"] == ["ML_KEM_1024", "ML_KEM_512", "ML_KEM_768"]


_JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.lists(st.text(max_size=3), max_size=2)
)
_VALUES = st.recursive(
    _JUNK, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
_KEYS = ("ifname", "mtu", "linkinfo", "addr_info", "priority", "table", "ifalias")


@settings(max_examples=settings.default.max_examples // 2)
@given(st.data())
def test_garbage_raises_nothing_but_the_one_error(data):
    """Lines of a real answer replaced, doubled, cut or filled with junk; also no line of it left at all."""
    lines = data.draw(st.sampled_from([LIBIPSEC, KERNEL, LEGACY])).splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        name = lines[at].split(" ")[0] or "x"
        sign = data.draw(st.sampled_from("|=?"))
        entry = data.draw(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4))
        lines[at] = data.draw(
            st.sampled_from(
                [
                    lines[at][: len(lines[at]) // 2],
                    f"{name} {sign} {data.draw(st.text(max_size=30))}",
                    f"{name} | {json.dumps([entry])}",
                    data.draw(st.text(max_size=30)),
                ]
            )
        )
    try:
        found = parsed("\n".join(lines), charon(), asked_s=1.0, answered_s=2.0)
    except CannotTell:
        return
    json.dumps(facts_json(found))
    assert all(isinstance(note, str) for note in notes(found))
    assert isinstance(hash(found), int)


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.text(), st.dictionaries(st.text(max_size=5), _VALUES, max_size=4))
def test_anything_at_all(text, answer):
    told = parse_charon(answer, answer | {"plugins": answer.get("", [])}, answer)
    assert isinstance(told.version_numbers, tuple)
    with pytest.raises(CannotTell):
        parsed(text.replace("begin", ""), told)


class Gateway:
    """A handle with recorded answers."""

    name = "gw"

    def __init__(self, completed, error=None):
        self._completed, self._error = completed, error

    async def run(self, argv, stdin=b"", *, timeout_s=10.0):
        return self._completed

    @asynccontextmanager
    async def vici(self, *, timeout_s=10.0):
        if self._error:
            raise self._error
        yield self

    async def command(self, name):
        return CHARON[name]


def ask(completed, error=None):
    return asyncio.run(capabilities(Gateway(completed, error)))


def test_asking():
    fine = Completed(0, KERNEL.encode(), b"")
    found = ask(fine)
    assert found.data_path is DataPath.KERNEL and found.charon == charon()
    down = ask(fine, GatewayUnreachable("gw", "charon is not running", charon_down=True))
    assert (down.charon, down.charon_why) == (None, "charon is not running")
    assert ask(fine, ViciError("charon did not answer")).charon_why == "charon did not answer"
    with pytest.raises(GatewayUnreachable, match="gone"):
        ask(fine, GatewayUnreachable("gw", "gone"))
    with pytest.raises(CannotTell, match="root's rights are needed"):
        ask(Completed(1, b"", b"root's rights are needed\n"))

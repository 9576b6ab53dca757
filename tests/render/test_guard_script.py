"""The script of the boot and of ``apply``, below a directory, with programs that note their use."""

from __future__ import annotations

import os
import subprocess

import pytest

from ipsecctl.desired import ROUTES_FILE, GatewayState
from ipsecctl.errors import CannotQuote
from ipsecctl.render import GUARD_FILE, GUARD_UNIT_FILE, INTERFACES_FILE, SYSCTL_FILE, render_files
from ipsecctl.render.quoting import units
from ipsecctl.topology import DataPath

STATE = GatewayState("gw", "site", DataPath.KERNEL, (), (), (), (), (), (), 0)
FILES = {file.path: file for file in render_files(STATE, {}, {})}
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >>"{log}"
{does}
"""


class Gateway:
    """A directory with the rendered files of a gateway, and fake programs."""

    def __init__(self, root):
        self.root = root
        self.log = root / "log"
        for path, file in FILES.items():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_bytes(file.content)
        for program in ("nft", "ip"):
            self.fake(program)

    def fake(self, program, does=":"):
        place = self.root / "bin" / program
        place.parent.mkdir(exist_ok=True)
        place.write_text(FAKE.format(log=self.log, does=does))
        place.chmod(0o755)

    def sysctl(self, values):
        for key, value in values.items():
            place = self.root / "proc/sys" / key
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{value}\n")

    def running(self, key):
        return (self.root / "proc/sys" / key).read_text().strip()

    def guard(self, *tasks):
        env = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        script = str(self.root / GUARD_FILE[1:])
        return subprocess.run(
            ["sh", script, *tasks], check=False, timeout=10, capture_output=True, text=True, env=env
        )

    def used(self):
        return self.log.read_text().replace(str(self.root), "").splitlines() if self.log.exists() else []


@pytest.fixture
def gateway(tmp_path):
    return Gateway(tmp_path)


NFT = "nft -f /etc/ipsecctl/firewall.nft"
IP = "ip -force -batch -"


@pytest.mark.parametrize(
    ("tasks", "used"),
    [
        ([], [NFT, IP]),
        (["interfaces"], []),
        (["firewall"], [NFT]),
        (["routes"], [IP]),
        (["sysctl"], []),
        (["routes", "firewall"], [IP, NFT]),
    ],
)
def test_without_a_word_all_of_it_comes_into_force(gateway, tasks, used):
    done = gateway.guard(*tasks)
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.used() == used


def test_what_fails_is_said_and_does_not_keep_the_rest_from_being_done(gateway):
    gateway.fake("nft", "echo 'syntax error' >&2; exit 1")
    gateway.sysctl({"net/ipv4/ip_forward": 0})
    done = gateway.guard()
    assert done.returncode == 1
    assert done.stderr == "nft refuses the firewall: syntax error\n"
    assert gateway.used() == [NFT, IP]
    assert gateway.running("net/ipv4/ip_forward") == "1"
    (gateway.root / SYSCTL_FILE[1:]).unlink()
    assert "60-ipsecctl.conf is not there" in gateway.guard("sysctl").stderr
    assert gateway.guard("firewal").returncode == 2


def test_settings_for_every_interface(gateway):
    conf = "net/ipv4/conf"
    gateway.sysctl({f"{conf}/{name}/send_redirects": 1 for name in ("all", "default", "eth0", "eth0.7")})
    assert gateway.guard("sysctl").returncode == 0
    assert {
        gateway.running(f"{conf}/{name}/send_redirects") for name in ("all", "default", "eth0", "eth0.7")
    } == {"0"}


def accept_ra(gateway):
    conf = gateway.root / "proc/sys/net/ipv6/conf"
    return {place.parent.name: place.read_text().strip() for place in sorted(conf.glob("*/accept_ra"))}


def ipv6_host(gateway, forwarding):
    (gateway.root / SYSCTL_FILE[1:]).write_text("# x\nnet.ipv6.conf.all.forwarding = 1\n")
    values = {"all": 1, "default": 1, "eth0": 1, "eth1": 0, "eth2": 2}
    gateway.sysctl({f"net/ipv6/conf/{name}/accept_ra": value for name, value in values.items()})
    gateway.sysctl({"net/ipv6/conf/all/forwarding": forwarding})


HOST = {"all": "1", "default": "1", "eth0": "1", "eth1": "0", "eth2": "2"}
ROUTER = {**HOST, "default": "2", "eth0": "2"}


def test_a_host_that_becomes_a_router_keeps_listening_to_routers_also_after_a_reboot(gateway):
    ipv6_host(gateway, 0)
    assert gateway.guard("sysctl").returncode == 0
    assert accept_ra(gateway) == ROUTER
    assert gateway.running("net/ipv6/conf/all/forwarding") == "1"
    ipv6_host(gateway, 1)  # systemd-sysctl has set that before us
    assert gateway.guard().returncode == 0
    assert accept_ra(gateway) == ROUTER


def test_a_host_that_was_a_router_before_is_left_as_it_listens(gateway):
    ipv6_host(gateway, 1)
    assert gateway.guard().returncode == 0
    assert accept_ra(gateway) == HOST


WANTED = "# x\nix-a 0x2a 1438 169.254.1.1/30 fd00:ff::1/64\nix-b 0x7 1400\n"
LINK = r"7: {name}@NONE: <NOARP,UP,LOWER_UP> mtu 1300 state UNKNOWN \\    {kind} promiscuity 0 "
SHOWN = r"""7: ix-a    inet 169.254.1.1/30 scope global ix-a\       valid_lft forever preferred_lft forever
7: ix-a    inet 169.254.9.9/32 scope global ix-a\       valid_lft forever preferred_lft forever
7: ix-a    inet6 fe80::1/64 scope link stable-privacy proto kernel_ll \       valid_lft forever
"""


def interfaces(gateway, links=None, addresses="", wanted=WANTED):
    """Let ``ip`` show interfaces (name to kind and if_id, as ``ip -d`` has them) and addresses of ix-a."""
    (gateway.root / INTERFACES_FILE[1:]).write_text(wanted)
    for name, kind in (links or {}).items():
        (gateway.root / f"link-{name}").write_text(LINK.format(name=name, kind=kind))
    (gateway.root / "addresses-ix-a").write_text(addresses)
    gateway.fake(
        "ip",
        f"""case "$*" in
            "-d -o link show dev "*) cat {gateway.root}/link-$6 ;;
            "-o address show dev "*) cat {gateway.root}/addresses-$5 2>/dev/null || : ;;
        esac""",
    )


def done_to(gateway, *names):
    changes = ("ip link add", "ip link set", "ip address")
    return [line for line in gateway.used() if line.startswith(changes) and set(names) & set(line.split())]


def test_interfaces_that_are_missing_are_made_with_their_addresses_and_mtu(gateway):
    interfaces(gateway)
    done = gateway.guard("interfaces")
    assert (done.returncode, done.stderr) == (0, "")
    assert done_to(gateway, "ix-a", "ix-b") == [
        "ip link add ix-a type xfrm if_id 0x2a",
        "ip link set dev ix-a mtu 1438 alias ipsecctl up",
        "ip address add 169.254.1.1/30 dev ix-a",
        "ip address add fd00:ff::1/64 dev ix-a",
        "ip link add ix-b type xfrm if_id 0x7",
        "ip link set dev ix-b mtu 1400 alias ipsecctl up",
    ]


@pytest.mark.parametrize("kind", ["xfrm if_id 0x2a", "xfrm dev eth0 if_id 0x2a", "xfrm if_id 0x2a external"])
def test_an_interface_that_is_there_is_only_adjusted(gateway, kind):
    interfaces(gateway, {"ix-a": kind, "ix-b": "xfrm if_id 0x7"}, SHOWN)
    done = gateway.guard("interfaces")
    assert (done.returncode, done.stderr) == (0, "")
    assert done_to(gateway, "ix-a", "ix-b") == [
        "ip link set dev ix-a mtu 1438 alias ipsecctl up",
        "ip address add fd00:ff::1/64 dev ix-a",
        "ip address delete 169.254.9.9/32 dev ix-a",
        "ip link set dev ix-b mtu 1400 alias ipsecctl up",
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("xfrm if_id 0x2b", "ix-a is there with another if_id than 0x2a: it is somebody else's"),
        ("xfrm if_id 0x2ab", "ix-a is there with another if_id than 0x2a: it is somebody else's"),
        ("dummy", "ix-a is there and no xfrm interface: it is somebody else's"),
        ("bridge if_id 0x2a", "ix-a is there and no xfrm interface: it is somebody else's"),
    ],
)
def test_an_interface_of_somebody_elses_is_not_touched_and_the_others_are_made(gateway, kind, said):
    interfaces(gateway, {"ix-a": kind})
    done = gateway.guard("interfaces")
    assert done.returncode == 1
    assert done.stderr == f"an interface cannot be set: {said}\n"
    assert done_to(gateway, "ix-a") == []
    assert done_to(gateway, "ix-b") == [
        "ip link add ix-b type xfrm if_id 0x7",
        "ip link set dev ix-b mtu 1400 alias ipsecctl up",
    ]


NOWHERE = "ix-hold dummy 65535 10.1.0.1/32\n"
MADE_NOWHERE = [
    "ip link set dev ix-hold addrgenmode none",
    "ip link set dev ix-hold mtu 65535 alias ipsecctl up",
    "ip address add 10.1.0.1/32 dev ix-hold",
]


@pytest.mark.parametrize(
    ("links", "first"),
    [({}, ["ip link add ix-hold type dummy"]), ({"ix-hold": "dummy addrgenmode none"}, [])],
)
def test_the_interface_that_leads_nowhere(gateway, links, first):
    interfaces(gateway, links, wanted=NOWHERE)
    done = gateway.guard("interfaces")
    assert (done.returncode, done.stderr) == (0, "")
    assert done_to(gateway, "ix-hold") == [*first, *MADE_NOWHERE]


def test_one_of_its_name_and_another_kind_is_not_touched(gateway):
    interfaces(gateway, {"ix-hold": "xfrm if_id 0x2a"}, wanted=NOWHERE)
    done = gateway.guard("interfaces")
    assert (done.returncode, done_to(gateway, "ix-hold")) == (1, [])
    said = "ix-hold is there and no dummy interface: it is somebody else's"
    assert done.stderr == f"an interface cannot be set: {said}\n"


def test_a_kernel_without_ipv6_or_without_dummies(gateway):
    interfaces(gateway, wanted=NOWHERE)
    text = (gateway.root / "bin/ip").read_text()
    refuses = "echo 'RTNETLINK answers: Operation not supported' >&2; exit 2"

    def refusing(what):
        (gateway.root / "bin/ip").write_text(
            text.replace('case "$*" in', f'case "$*" in {what}) {refuses} ;;')
        )
        return gateway.guard("interfaces")

    assert refusing("*addrgenmode*").returncode == 0
    assert refusing("*'type dummy'").stderr == (
        "an interface cannot be set: ix-hold, a dummy: RTNETLINK answers: Operation not supported\n"
    )


def test_why_an_interface_cannot_be_made_is_said_with_its_name(gateway):
    interfaces(gateway)
    text = (gateway.root / "bin/ip").read_text()
    refuses = "echo 'RTNETLINK answers: File exists' >&2; exit 2"
    (gateway.root / "bin/ip").write_text(
        text.replace('case "$*" in', f'case "$*" in "link add ix-a "*) {refuses} ;;')
    )
    done = gateway.guard("interfaces")
    assert done.returncode == 1
    assert done.stderr == "an interface cannot be set: ix-a, if_id 0x2a: RTNETLINK answers: File exists\n"
    assert len(done_to(gateway, "ix-b")) == 2


def test_interfaces_come_before_the_rest_and_their_failure_does_not_keep_it_from_being_done(gateway):
    interfaces(gateway, {"ix-a": "dummy"})
    done = gateway.guard()
    assert done.returncode == 1
    order = [line for line in gateway.used() if line.startswith(("ip link add", "nft", "ip -force"))]
    assert order == ["ip link add ix-b type xfrm if_id 0x7", NFT, IP]


def test_without_the_file_of_interfaces_that_is_said(gateway):
    (gateway.root / INTERFACES_FILE[1:]).unlink()
    assert "/etc/ipsecctl/interfaces is not there" in gateway.guard("interfaces").stderr


RULE = "not from all iif lo lookup 213 proto 213"
OTHERS = "0:\tfrom all lookup 255\n220:\tfrom all lookup 220\n32766:\tfrom all lookup 254\n"


OWN = """218 from all nop proto 213
215 from all iif lo goto 218 proto 213
216 from all to 10.1.0.0/24 lookup 254 suppress_prefixlength 7 proto 213
217 from all to 10.1.0.0/24 unreachable proto 213
216 from all to 10.1.9.9 lookup 254 suppress_prefixlength 7 proto 213
217 from all to 10.1.9.9 unreachable proto 213
219 not from all iif lo lookup 213 proto 213""".splitlines()


def shown(lines):
    """Return rules of the file as ``ip -N rule`` shows them."""
    told = (line.replace(" ", ":\t", 1).replace(" unreachable", " 7") for line in lines)
    return "".join(f"{line} \n" for line in told)


def rules(gateway, listed, wanted=f"rule -4 219 {RULE}"):
    """Let ``ip`` show rules; return what the guard then does to them."""
    (gateway.root / ROUTES_FILE[1:]).write_text(f"route replace 10.2.0.0/24 dev ix-hold\n{wanted}\n")
    (gateway.root / "rules").write_text(OTHERS + listed)
    done_to = gateway.root / "done"
    done_to.unlink(missing_ok=True)
    gateway.fake(
        "ip",
        f'case "$*" in "-N -4 rule show") cat {gateway.root}/rules ;; '
        f'"-4 -force -batch -") cat >{done_to} ;; *-batch*) cat ;; esac',
    )
    done = gateway.guard("routes")
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway.used()[0] == IP
    return done_to.read_text().splitlines() if done_to.exists() else []


@pytest.mark.parametrize("blank", ["", " "])
def test_a_rule_that_is_there_stays(gateway, blank):
    assert rules(gateway, f"219:\t{RULE}{blank}\n") == []


@pytest.mark.parametrize(
    ("listed", "removed"),
    [
        ("", []),
        (f"219:\t{RULE}4\n218:\t{RULE.replace('213 proto', '214 proto')}0\n", []),  # others' marks
        ("219:\tfrom all lookup 213 proto 213 \n", ["219 from all lookup 213"]),
        (
            f"219:\t{RULE}\n5:\tfrom all lookup 213 proto 213\n",
            [f"219 {RULE[:-10]}", "5 from all lookup 213"],
        ),
        (f"100:\t{RULE}\n", [f"100 {RULE[:-10]}"]),
    ],
)
def test_of_our_rules_only_the_right_one_is_left(gateway, listed, removed):
    deleted = [f"rule delete pref {rule} proto 213" for rule in removed]
    assert rules(gateway, listed) == [*deleted, f"rule add pref 219 {RULE}"]


ALL_OWN = "\n".join(f"rule -4 {line}" for line in OWN)


def test_rules_for_own_networks_are_made_with_the_leap_over_them_first(gateway):
    assert rules(gateway, "", wanted=ALL_OWN) == [f"rule add pref {line}" for line in OWN]
    assert rules(gateway, shown(OWN), wanted=ALL_OWN) == []
    assert rules(gateway, shown(OWN).replace("goto 218", "goto 218 [unresolved]"), wanted=ALL_OWN) == []


@pytest.mark.parametrize("missing", range(len(OWN)))
def test_a_rule_that_is_missing_is_made_and_the_others_stay(gateway, missing):
    there = [line for number, line in enumerate(OWN) if number != missing]
    assert rules(gateway, shown(there), wanted=ALL_OWN) == [f"rule add pref {OWN[missing]}"]


def test_of_the_rules_to_one_network_all_are_made_anew_if_one_is_wrong(gateway):
    wrong = "216 from all to 10.1.0.0/24 lookup 99 proto 213"
    stale = "216 from all to 10.9.0.0/24 lookup 254 suppress_prefixlength 7 proto 213"  # goes by a plan
    assert rules(gateway, shown([*OWN, wrong, stale]), wanted=ALL_OWN) == [
        *(f"rule delete pref {line}" for line in (*OWN[2:4], wrong)),
        *(f"rule add pref {line}" for line in OWN[2:4]),
    ]


def test_a_gateway_without_rules_asks_for_none(gateway):
    assert rules(gateway, "219:\tfrom all lookup 213 proto 213\n", wanted="") == []


def test_a_rule_that_cannot_be_made_is_said(gateway):
    (gateway.root / ROUTES_FILE[1:]).write_text(f"rule -6 219 {RULE}\n")
    gateway.fake("ip", 'case "$*" in *rule*) echo "no IPv6 here" >&2; exit 2 ;; esac')
    done = gateway.guard("routes")
    assert (done.returncode, done.stderr) == (1, "a route cannot be set: no IPv6 here\n")
    (gateway.root / ROUTES_FILE[1:]).unlink()
    assert "/etc/ipsecctl/routes is not there" in gateway.guard("routes").stderr


def lines(section):
    unit = FILES[GUARD_UNIT_FILE].content.decode()
    body = unit.partition(f"[{section}]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in body.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_is_loaded_before_the_network_and_again_after_whoever_empties_the_ruleset():
    unit = lines("Unit")
    assert {"local-fs.target", "systemd-sysctl.service", "nftables.service"} <= {*unit["After"].split()}
    assert {"network-pre.target", "strongswan.service", "shutdown.target"} <= {*unit["Before"].split()}
    assert (unit["DefaultDependencies"], unit["Wants"]) == ("no", "network-pre.target")
    assert unit["PartOf"] == unit["ReloadPropagatedFrom"] == "nftables.service"
    assert lines("Install")["WantedBy"].split() == ["sysinit.target", "nftables.service"]
    service = lines("Service")
    assert service["ExecStart"] == service["ExecReload"] == f"/bin/sh {GUARD_FILE}"
    assert (service["Type"], service["RemainAfterExit"]) == ("oneshot", "yes")
    assert FILES[GUARD_FILE].mode == 0o755


def test_a_units_name_is_one_word():
    assert units(["a.service", "b@1.target"]) == "a.service b@1.target"
    for bad in ("a b", "a\nExecStart=x", "", "-a"):
        with pytest.raises(CannotQuote):
            units([bad])

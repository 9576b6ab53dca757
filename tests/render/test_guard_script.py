"""The script of the boot and of ``apply``, below a directory, with programs that note their use."""

from __future__ import annotations

import os
import subprocess

import pytest

from ipsecctl.desired import GatewayState
from ipsecctl.errors import CannotQuote
from ipsecctl.render import GUARD_FILE, GUARD_UNIT_FILE, SYSCTL_FILE, render_files
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
IP = "ip -force -batch /etc/ipsecctl/routes"


@pytest.mark.parametrize(
    ("tasks", "used"),
    [
        ([], [NFT, IP]),
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

"""Two gateways with real charon, without the lab room: containers joined by a network of Docker's own."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipsecctl.lab import image_name
from ipsecctl.secrets import generate_psk

TOPOLOGY = """
ipsecctl: 1
name: {name}
defaults: {{control: lab, profile: {profile}, credential: {{psk: "file:{{tunnel}}.psk"}}}}
sites:
  a: {{networks: {{lan: 10.1.0.0/24}}, gateway: {a}}}
  b: {{networks: {{lan: 10.2.0.0/24}}, gateway: {b}}}
  p: {{managed: false, networks: {{lan: 10.3.0.0/24}}, gateway: 192.0.2.3}}
tunnels:
  t: {{between: [a, b]}}
"""


def docker(*argv, stdin=None, check=True):
    done = subprocess.run(
        ["docker", *argv], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Pair:
    """Gateways ``a`` and ``b`` and a directory for their topology."""

    lab: str
    addresses: dict[str, str]
    directory: Path

    def container(self, gateway):
        return f"ipsecctl-{self.lab}-{gateway}"

    def on(self, gateway, *argv, stdin=None, check=True):
        return docker("exec", "-i", self.container(gateway), *argv, stdin=stdin, check=check)

    def prepare(self, gateway):
        """Do what the lab room does for a node that was started: addresses, settings that can be written.

        Then wait until its charon runs.
        """
        script = _PREPARE.format(n="ab".index(gateway) + 1)
        docker("exec", "--privileged", self.container(gateway), "sh", "-ec", script)

    def charon(self, gateway, action):
        return self.on(gateway, "/usr/lib/ipsecctl-lab/charon", action)

    def psk(self, tunnel):
        """Make the pre-shared key of a tunnel."""
        file = self.directory / f"{tunnel}.psk"
        file.touch(0o600)
        file.write_text(generate_psk())

    def topology(self, profile="modern", second=""):
        """Write the topology; return its path. ``second``: a tunnel from b to a partner that is not there."""
        extra = f"  {second}: {{between: [b, p]}}\n" if second else ""
        file = self.directory / "pair.yaml"
        file.write_text(TOPOLOGY.format(name=self.lab, profile=profile, **self.addresses) + extra)
        return str(file)


_PREPARE = """
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net
while [ ! -e /run/ipsecctl-lab/waiting ]; do sleep 0.1; done # it begins with its links down
ip address add 10.{n}.0.1/24 dev lo
ip link set eth0 up
rm -f /run/ipsecctl-lab/boot
touch /run/ipsecctl-lab/ready && kill -s USR1 1
while ! grep -qs 'charon started' /run/ipsecctl-lab/boot; do sleep 0.1; done # by the first process, not twice
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two gateways that are running and know nothing yet."""
    lab = f"dev-deploy-{secrets.token_hex(3)}"
    network = f"ipsecctl-{lab}"
    made = Pair(lab, {}, tmp_path_factory.mktemp("pair"))
    made.psk("t")
    try:
        docker("network", "create", "--label", "org.ipsecctl=lab", network)
        for gateway in "ab":
            docker(
                *("run", "--detach", "--name", made.container(gateway), "--network", network),
                *("--label", "org.ipsecctl=lab", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"),
                *("--security-opt", "apparmor=unconfined", "--security-opt", "seccomp=unconfined"),
                *("--device", "/dev/net/tun", "--sysctl", "net.ipv4.ip_forward=1", image_name(), "gateway"),
            )
            where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            made.addresses[gateway] = docker("inspect", "--format", where, made.container(gateway))
            made.prepare(gateway)
        yield made
    finally:
        docker("rm", "--force", *(made.container(gateway) for gateway in "ab"), check=False)
        docker("network", "rm", network, check=False)

"""Gateways reached by SSH: real sshd's, an unprivileged login with one line of sudoers, and bad weather.

Each gateway of the lab has one more interface, on a network of its own that this machine is on, too. Root
cannot log in at port 22; a second sshd at port 2222 takes root alone, for what only root's login does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipsecctl import lab as labs
from ipsecctl.errors import GatewayUnreachable
from ipsecctl.gateway import locked
from ipsecctl.gateway.ssh import SshHost
from ipsecctl.lab import Lab
from ipsecctl.lab.compose import LABEL, LABEL_LAB
from ipsecctl.patience import PATIENCE
from ipsecctl.resources import resource_dir

from .conftest import RunningLab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("ssh")]

GATEWAYS = ("clinic-a", "clinic-b", "dc")


def _sudoers() -> str:
    """Return the line for sudoers, word for word as the documentation has it."""
    text = (Path(__file__).parents[2] / "docs/ssh.md").read_text()
    return next(line.strip() for line in text.splitlines() if line.startswith("    netops ALL="))


@dataclass(frozen=True)
class OverSsh:
    """A lab, the SSH configuration that leads to its gateways, and the topology that says so."""

    lab: Lab
    home: Path
    file: Path
    addresses: dict[str, str]

    def ipsecctl(
        self, *args: str, home: Path | None = None, statuses: Sequence[int] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
        done = subprocess.run(
            [sys.executable, "-m", "ipsecctl", *args],
            env={**env, "HOME": str(home or self.home)},
            capture_output=True,
            text=True,
            timeout=120 * PATIENCE,
            check=False,
        )
        assert done.returncode in statuses, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def sh(self, node: str, command: str, stdin: bytes = b"") -> str:
        done = labs.run(self.lab, node, ["sh", "-c", command], stdin, timeout_s=30 * PATIENCE)
        assert done.status == 0, f"{node}: {command}: {done.status}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def logins(self, node: str, user: str = "netops") -> int:
        """Return how many connections have logged in at a gateway so far."""
        return len(re.findall(f"Accepted publickey for {user} ", self.sh(node, "cat /var/log/sshd*.log")))

    def host_key(self, node: str, kind: str = "ed25519") -> str:
        """Return a gateway's host key, looked at on the gateway itself."""
        return " ".join(self.sh(node, f"cat /etc/ssh/ssh_host_{kind}_key.pub").split()[:2])

    def fingerprints(self, node: str) -> set[str]:
        listed = self.sh(node, "for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -lf $key; done")
        return set(re.findall(r"SHA256:\S+", listed))

    def another_home(self, folder: Path, **files: str) -> Path:
        """Return a copy of the home with some files of its .ssh replaced."""
        shutil.copytree(self.home, folder / "home")
        for name, content in files.items():
            (folder / "home/.ssh" / name).write_text(content)
        return folder / "home"

    def config(self, **more: str) -> str:
        """Return an SSH configuration; ``more`` are lines for a gateway that come before the usual ones."""
        hosts = [
            f"Host {name}\n{more.get(name.replace('-', '_'), '')}\nHostName {address}\nUser netops\n"
            for name, address in self.addresses.items()
        ]
        return "".join(hosts)


def _keygen(file: Path) -> str:
    """Make a key pair with the library, as no SSH client need be installed here; return the public key."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519", comment="the test's key")
    file.write_bytes(key.export_private_key())
    file.chmod(0o600)
    return key.export_public_key().decode()


@pytest.fixture(scope="module")
def ssh(
    lab_of: Callable[[Lab], AbstractContextManager[RunningLab]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OverSsh]:
    """The lab ``clinic-dc`` with sshd on its gateways, nothing applied."""
    lab = labs.load("clinic-dc").called("ssh")
    folder = tmp_path_factory.mktemp("ssh")
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    public = _keygen(home / ".ssh/id_ed25519")
    with lab_of(lab) as up:
        lab = up.lab
        network = f"ipsecctl-{lab.name}-management"
        labels = [f"--label={LABEL}=lab", f"--label={LABEL_LAB}={lab.name}"]
        _make_network(network, labels)
        addresses = {}
        for name in GATEWAYS:
            _docker("network", "connect", network, lab.container(name))
            inspected = json.loads(_docker("inspect", lab.container(name)))
            addresses[name] = inspected[0]["NetworkSettings"]["Networks"][network]["IPAddress"]
        running = OverSsh(lab, home, folder / "clinic-dc.yaml", addresses)
        for name in GATEWAYS:
            running.sh(name, _prepared(), f"{_sudoers()}\n{public}".encode())
        known = [f"{address} {running.host_key(name)}\n" for name, address in addresses.items()]
        (home / ".ssh/known_hosts").write_text("".join(known))
        (home / ".ssh/config").write_text(running.config())
        _write_topology(running.file)
        yield running


def _make_network(name: str, labels: Sequence[str]) -> None:
    """Make a network that this machine is on, too.

    Its addresses are chosen here: those of Docker's own choice may be ones that the lab has behind a NAT box.
    """
    for third in range(255, 191, -1):
        subnet = f"--subnet=198.19.{third}.0/26"
        made = subprocess.run(
            ["docker", "network", "create", "--internal", subnet, *labels, name],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode == 0:
            return
        assert "overlaps" in made.stderr, made.stderr
    raise AssertionError("all of 198.19.192.0/18 is taken")


def _docker(*args: str) -> str:
    done = subprocess.run(["docker", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr}"
    return done.stdout


def _prepared() -> str:
    """Return the script that makes a gateway one that is reached by SSH: sudoers line and key on stdin."""
    return r"""
set -eu
install -d -m 755 /run/sshd
ssh-keygen -A >/dev/null
useradd --create-home --shell /bin/bash netops
read -r line; printf '%s\n' "$line" >/etc/sudoers.d/ipsecctl
chmod 440 /etc/sudoers.d/ipsecctl
printf 'Defaults logfile=/var/log/sudo.log\nDefaults loglinelen=0\n' >/etc/sudoers.d/log
chmod 440 /etc/sudoers.d/log
visudo -cq
cat >/tmp/key
for user in netops root; do
    eval "home=~$user"
    install -d -o $user -m 700 "$home/.ssh"
    install -o $user -m 600 /tmp/key "$home/.ssh/authorized_keys"
done
cat >/etc/ssh/sshd_config.d/lab.conf <<'END'
PasswordAuthentication no
KbdInteractiveAuthentication no
END
/usr/sbin/sshd -E /var/log/sshd.log -o PidFile=/run/sshd.pid -o PermitRootLogin=no
/usr/sbin/sshd -E /var/log/sshd-root.log -o PidFile=/run/sshd-root.pid -p 2222 -o AllowUsers=root \
    -o LogLevel=VERBOSE
"""


def _write_topology(file: Path) -> None:
    """Write the example with SSH for every gateway, by its alias in the configuration."""
    original = resource_dir("topologies") / "clinic-dc.yaml"
    (file.parent / "secrets").symlink_to(original.parent / "secrets")
    text = original.read_text()
    for before, after in (
        ("  control: lab", "  mode: policy #"),
        ("gateway: 198.51.100.10", 'gateway: {address: 198.51.100.10, control: "ssh://dc"}'),
        ("gateway: 203.0.113.20", 'gateway: {address: 203.0.113.20, control: "ssh://clinic-a"}'),
        ("behind_nat: true,", 'behind_nat: true, control: "ssh://clinic-b",'),
    ):
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


@pytest.fixture
def applied(ssh: OverSsh) -> OverSsh:
    """The lab with its topology applied over SSH: the first time that is work, later it is nothing."""
    ssh.ipsecctl("apply", str(ssh.file), "--yes")
    return ssh


def test_from_nothing_to_tunnels_by_an_unprivileged_login(ssh: OverSsh) -> None:
    before = {name: ssh.logins(name) for name in GATEWAYS}
    applied = ssh.ipsecctl("apply", str(ssh.file), "--yes").stdout
    assert "2 of 2 tunnels up" in applied
    assert {name: ssh.logins(name) - before[name] for name in GATEWAYS} == dict.fromkeys(GATEWAYS, 1)
    assert all("root" not in ssh.sh(name, "cat /var/log/sshd.log") for name in GATEWAYS)

    assert "Nothing to do" in ssh.ipsecctl("apply", str(ssh.file)).stdout
    ssh.ipsecctl("plan", str(ssh.file), "--detailed-exitcode")
    assert ssh.ipsecctl("status", str(ssh.file)).stdout.startswith("all 2 tunnels up")
    facts = json.loads(ssh.ipsecctl("facts", "--all", str(ssh.file), "--json").stdout)
    assert [gateway["gateway"] for gateway in facts["gateways"]] == list(GATEWAYS)


def test_sudo_has_been_asked_for_one_command_line_only(applied: OverSsh) -> None:
    log = applied.sh("dc", "cat /var/log/sudo.log")
    # Newer sudo shows where an argument ends.
    lines = (line for line in log.splitlines() if "COMMAND=" in line)
    commands = {line.partition("COMMAND=")[2].replace("'", "") for line in lines}
    assert commands == {_sudoers().partition("NOPASSWD: ")[2]}


def test_the_files_are_what_a_push_without_ssh_would_have_written(applied: OverSsh) -> None:
    plan = applied.ipsecctl("plan", str(applied.file), "--lab", applied.lab.name, "--detailed-exitcode")
    assert "Nothing to do" in plan.stdout


def test_root_has_files_by_sftp_and_charon_by_forwarding(applied: OverSsh, tmp_path: Path) -> None:
    as_root = "User root\nPort 2222\n"
    home = applied.another_home(
        tmp_path, config=applied.config(dc=as_root, clinic_a=as_root, clinic_b=as_root)
    )
    known = [f"[{address}]:2222 {applied.host_key(name)}\n" for name, address in applied.addresses.items()]
    (home / ".ssh/known_hosts").write_text("".join(known))
    applied.sh("dc", "rm /etc/ipsecctl/routes; : >/var/log/sudo.log")
    done = applied.ipsecctl("apply", str(applied.file), "--yes", home=home)
    assert "1 change" in done.stdout
    log = applied.sh("dc", "cat /var/log/sshd-root.log")
    assert "Starting session: subsystem 'sftp' for root" in log
    assert applied.sh("dc", "cat /var/log/sudo.log") == ""
    assert applied.sh("dc", "ls -A /var/lib/ipsecctl") == "applied.json\n"
    assert "Nothing to do" in applied.ipsecctl("apply", str(applied.file), home=home).stdout


def test_an_unknown_host_is_refused_and_the_message_says_how_it_becomes_known(
    applied: OverSsh, tmp_path: Path
) -> None:
    known = (applied.home / ".ssh/known_hosts").read_text()
    others = "".join(line for line in known.splitlines(True) if applied.addresses["dc"] not in line)
    home = applied.another_home(tmp_path, known_hosts=others)
    config = home / ".ssh/config"
    config.write_text("StrictHostKeyChecking no\n" + config.read_text())
    before = applied.logins("dc")
    said = applied.ipsecctl("facts", "dc", str(applied.file), home=home, statuses=(3,)).stderr
    address = applied.addresses["dc"]
    assert f"dc: the host key of {address} is not known" in said
    assert any(fingerprint in said for fingerprint in applied.fingerprints("dc"))
    assert "ssh-keygen -lf /etc/ssh/ssh_host_" in said
    assert re.search(rf"Then: ssh-keyscan -t \w+ {address} >> {home}/.ssh/known_hosts\n", said)
    assert applied.logins("dc") == before
    assert (home / ".ssh/known_hosts").read_text() == others


@pytest.mark.parametrize("files", ["none", "/nonexistent"])
def test_no_configuration_makes_an_unknown_host_known(applied: OverSsh, tmp_path: Path, files: str) -> None:
    home = applied.another_home(tmp_path)
    config = home / ".ssh/config"
    config.write_text(f"UserKnownHostsFile {files}\nStrictHostKeyChecking no\n" + config.read_text())
    said = applied.ipsecctl("facts", "dc", str(applied.file), home=home, statuses=(3,)).stderr
    assert "is not known" in said


def test_a_wrong_host_key_is_refused(applied: OverSsh, tmp_path: Path) -> None:
    other = _keygen(tmp_path / "other").split()
    address = applied.addresses["dc"]
    known = (applied.home / ".ssh/known_hosts").read_text()
    lines = [line for line in known.splitlines() if address not in line]
    text = "\n".join([*lines, f"{address} {other[0]} {other[1]}", ""])
    home = applied.another_home(tmp_path, known_hosts=text)
    before = applied.logins("dc")
    done = applied.ipsecctl("status", str(applied.file), home=home, statuses=(1, 3))
    assert "up" not in done.stdout.splitlines()[0]
    plan = applied.ipsecctl("plan", str(applied.file), home=home, statuses=(3,)).stdout
    assert f"dc: the host key of {address} is not the one that is known" in plan
    assert any(fingerprint in plan for fingerprint in applied.fingerprints("dc"))
    assert f"{home}/.ssh/known_hosts:{len(lines) + 1} has SHA256:" in plan
    assert f"ssh-keygen -f {home}/.ssh/known_hosts -R {address}" in plan
    assert "clinic-a" not in plan  # the others were looked at, and are right
    assert applied.logins("dc") == before


def test_a_key_that_is_not_accepted(applied: OverSsh, tmp_path: Path) -> None:
    home = applied.another_home(tmp_path)
    _keygen(home / ".ssh/id_ed25519")
    said = applied.ipsecctl("facts", "dc", str(applied.file), home=home, statuses=(3,)).stderr
    assert f"dc: netops@{applied.addresses['dc']} refuses the login: offered were ssh-ed25519" in said
    assert "authorized_keys" in said


def test_a_login_that_may_not_become_root(applied: OverSsh) -> None:
    applied.sh("dc", "mv /etc/sudoers.d/ipsecctl /root/")
    try:
        plan = applied.ipsecctl("plan", str(applied.file), statuses=(3,)).stdout
        facts = applied.ipsecctl("facts", "dc", str(applied.file), statuses=(3,)).stderr
    finally:
        applied.sh("dc", "mv /root/ipsecctl /etc/sudoers.d/")
    for said in (plan, facts):
        assert "dc: the login netops is not root, and may not become it: sudo: a password is required" in said
        assert _sudoers() in said


def test_sshd_that_does_not_run_and_an_address_without_a_gateway(applied: OverSsh, tmp_path: Path) -> None:
    nobody = applied.addresses["dc"].rpartition(".")[0] + ".60"
    home = applied.another_home(
        tmp_path, config=applied.config(dc=f"HostName {nobody}", clinic_a="Port 2022")
    )
    plan = applied.ipsecctl("plan", str(applied.file), home=home, statuses=(3,)).stdout
    assert f"clinic-a: {applied.addresses['clinic-a']} port 2022 refuses connections" in plan
    assert f"dc: {nobody} port 22 cannot be reached" in plan or f"{nobody} does not answer" in plan
    assert "clinic-b:" not in plan


def test_a_gateway_that_hangs_holds_up_nobody(applied: OverSsh) -> None:
    """Its sshd is stopped: it takes connections, and says nothing."""
    applied.sh("dc", "kill -STOP $(cat /run/sshd.pid)")
    try:
        began = time.monotonic()
        status = applied.ipsecctl("status", str(applied.file), "--verbose", statuses=(1, 3)).stdout
        took_s = time.monotonic() - began
        plan = applied.ipsecctl("plan", str(applied.file), statuses=(3,)).stdout
    finally:
        applied.sh("dc", "kill -CONT $(cat /run/sshd.pid)")
    assert took_s < 15 * PATIENCE  # four seconds, and what a busy machine takes to begin
    assert "dc" in status
    assert "dc: netops@" in plan and "but its SSH server says nothing within" in plan
    assert "clinic-a:" not in plan


def test_a_connection_that_dies_under_way_is_given_up(
    applied: OverSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of sshd's stops, as with a line that is cut: nothing ends the connection."""
    monkeypatch.setenv("HOME", str(applied.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    async def work() -> str:
        handle = SshHost("dc", "dc")
        assert (await handle.run(["id", "-u"])).stdout == b"0\n"
        applied.sh("dc", "pkill -STOP -f '^sshd'")
        try:
            with pytest.raises(GatewayUnreachable) as caught:
                await handle.run(["id", "-u"], timeout_s=2 * PATIENCE)
        finally:
            applied.sh("dc", "pkill -CONT -f '^sshd'")
        return caught.value.summary

    assert "did not end over SSH within" in asyncio.run(work())


def test_a_gateway_behind_a_jump_host(applied: OverSsh, tmp_path: Path) -> None:
    """clinic-a by its WAN address from dc, which is the jump host."""
    home = applied.another_home(
        tmp_path, config=applied.config(clinic_a="HostName 203.0.113.20\nProxyJump dc")
    )
    with (home / ".ssh/known_hosts").open("a") as known:
        known.write(f"203.0.113.20 {applied.host_key('clinic-a')}\n")
    before = applied.logins("dc")
    facts = applied.ipsecctl("facts", "clinic-a", str(applied.file), home=home).stdout
    assert facts.startswith("clinic-a:")
    assert "from 198.51.100.10 " in applied.sh("clinic-a", "cat /var/log/sshd.log")
    assert applied.logins("dc") == before + 1
    assert "Nothing to do" in applied.ipsecctl("apply", str(applied.file), home=home).stdout


def test_the_host_key_of_a_jump_host_counts_as_well(applied: OverSsh, tmp_path: Path) -> None:
    home = applied.another_home(
        tmp_path, config=applied.config(clinic_a="HostName 203.0.113.20\nProxyJump dc"), known_hosts=""
    )
    said = applied.ipsecctl("facts", "clinic-a", str(applied.file), home=home, statuses=(3,)).stderr
    assert f"clinic-a: by its jump host: the host key of {applied.addresses['dc']} is not known" in said


def test_charon_that_does_not_run_is_told_apart_from_a_gateway_that_is_gone(applied: OverSsh) -> None:
    applied.sh("clinic-b", "/usr/lib/ipsecctl-lab/charon stop")
    try:
        plan = applied.ipsecctl("plan", str(applied.file), statuses=(3,)).stdout
    finally:
        applied.sh("clinic-b", "/usr/lib/ipsecctl-lab/charon start")
    assert "clinic-b: charon is not running there" in plan


def test_a_lock_is_held_over_ssh_and_ends_with_its_holder(applied: OverSsh) -> None:
    holder = (
        "import asyncio\n"
        "from ipsecctl.gateway import locked\n"
        "from ipsecctl.gateway.ssh import SshHost\n"
        "async def work():\n"
        "    async with locked(SshHost('dc', 'dc')):\n"
        "        print('held', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(work())\n"
    )
    env = {**os.environ, "HOME": str(applied.home)}
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True, env=env
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        refused = applied.ipsecctl("apply", str(applied.file), statuses=(1,)).stderr
        child.kill()
    assert "another apply is at work on dc" in refused and f"pid {child.pid}" in refused
    assert "Nothing to do" in applied.ipsecctl("apply", str(applied.file)).stdout


def test_when_the_lock_is_lost_nothing_more_is_done(
    applied: OverSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(applied.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    async def work() -> None:
        handle = SshHost("dc", "dc")
        async with locked(handle):
            await handle.run(["true"])
            applied.sh("dc", "pkill -f '^sshd-session: netops'")
            with pytest.raises(GatewayUnreachable, match="with it ended the lock"):
                for _ in range(100):
                    try:
                        await handle.run(["true"], timeout_s=5 * PATIENCE)
                    except GatewayUnreachable as exc:
                        if "lock" in exc.summary:
                            raise
                    await asyncio.sleep(0.05)
        assert (await handle.run(["id", "-u"])).stdout == b"0\n"  # a new piece of work connects anew

    asyncio.run(work())


def _cut_off(applied: OverSsh, folder: Path) -> str:
    """Write a topology that leads what this machine and clinic-a say to each other into a tunnel."""
    there = applied.addresses["clinic-a"]
    with socket.create_connection((there, 22)) as connection:
        here = connection.getsockname()[0]
    text = applied.file.read_text()
    for before, after in (
        ("imaging: 10.10.8.0/24", f"imaging: 10.10.8.0/24\n      admin: {here}/32"),
        ("{lan: 10.20.1.0/24}", f"{{lan: 10.20.1.0/24, office: {there}/32}}"),
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "secrets").symlink_to((applied.file.parent / "secrets").resolve())
    file = folder / "clinic-dc.yaml"
    file.write_text(text)
    return str(file)


def _answers(applied: OverSsh, gateway: str) -> bool:
    try:
        with socket.create_connection((applied.addresses[gateway], 22), timeout=2 * PATIENCE) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@pytest.mark.change
@pytest.mark.parametrize("killed", [False, True])
def test_what_cuts_us_off_is_taken_back_by_the_gateway_itself(
    applied: OverSsh, tmp_path: Path, killed: bool
) -> None:
    file = _cut_off(applied, tmp_path)
    assert _answers(applied, "clinic-a")
    argv = [sys.executable, "-m", "ipsecctl", "apply", file, "--yes", "--confirm", "20s", "--wait", "1"]
    env = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    with subprocess.Popen(
        argv, env={**env, "HOME": str(applied.home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as working:
        deadline = time.monotonic() + 60 * PATIENCE
        # In its memory, as in its files it may not be yet.
        while applied.addresses["clinic-a"] not in applied.sh("clinic-a", "nft list table inet ipsecctl"):
            assert time.monotonic() < deadline
            assert working.poll() is None
            time.sleep(0.1)
        assert not _answers(applied, "clinic-a")
        if killed:
            working.kill()
        working.communicate(timeout=300 * PATIENCE)
    assert working.returncode == (-9 if killed else 1)
    for name in ("clinic-a", "dc"):
        while (
            " back" not in (said := applied.sh(name, "cat /var/lib/ipsecctl/undone 2>/dev/null || :"))
            and time.monotonic() < deadline + 60 * PATIENCE
        ):
            time.sleep(0.5)
        assert said.split(maxsplit=2)[2] == "back\n"
    assert _answers(applied, "clinic-a")
    while applied.ipsecctl("status", str(applied.file), statuses=(0, 1, 3)).returncode:
        assert time.monotonic() < deadline + 120 * PATIENCE
    assert "Nothing to do" in applied.ipsecctl("plan", str(applied.file)).stdout

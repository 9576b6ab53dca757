"""Plan, apply and status against real charon: the tests run in this order on one pair of gateways."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipsecctl.errors import ApplyFailed, GatewayUnreachable, ViciRefused
from ipsecctl.gateway import Container, NewFile, locked, look, observe, write_files

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("deploy-pair")]

FOREIGN = """connections { foreign { version = 2
 remote_addrs = 192.0.2.99
 local { auth = psk }
 remote { auth = psk }
 children { f { remote_ts = 10.99.0.0/24 } } } }
"""


def ipsecctl(*argv, status=0):
    argv = (*argv, "--yes") if argv[0] == "apply" else argv  # there is nobody to ask
    done = subprocess.run(
        [sys.executable, "-m", "ipsecctl", *argv], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def apply(pair, profile="modern", *options, status=0, wait="15"):
    out = ipsecctl("apply", pair.topology(profile), *options, "--wait", wait, "--json", status=status)
    return json.loads(out)


def plan(pair, profile="modern"):
    out = ipsecctl("plan", pair.topology(profile), "--json")
    return {(c["kind"], c["part"], c["gateway"], c["name"]) for c in json.loads(out)["changes"]}


def verdict(pair, *options, status=0):
    out = ipsecctl("status", pair.topology(), "--json", *options, status=status)
    (tunnel,) = json.loads(out)["tunnels"]
    return tunnel["verdict"], tunnel["causes"]


def ping(pair):
    pair.on("a", "ping", "-c", "2", "-i", "0.2", "-W", "2", "-I", "10.1.0.1", "10.2.0.1")


def test_vici_with_a_real_charon(pair):
    async def main():
        async with Container("a", pair.container("a")).vici() as client:
            version = await client.command("version")
            assert version["daemon"].startswith("charon")
            assert "plugins" in await client.command("stats")
            conn = {
                "version": "2",
                "remote_addrs": ["192.0.2.7"],
                "children": {"v": {"local_ts": ["10.9.0.0/24"]}},
            }
            await client.command("load-conn", {"v": conn})
            (listed,) = await client.stream("list-conns", "list-conn")
            assert listed["v"]["remote_addrs"] == ["192.0.2.7"]
            await client.command("unload-conn", {"name": "v"})
            with pytest.raises(ViciRefused, match="not found"):
                await client.command("unload-conn", {"name": "v"})
            with pytest.raises(ViciRefused, match="does not know"):
                await client.command("no-such-command")
            assert await client.stream("list-conns", "list-conn") == []

    asyncio.run(main())


def test_files_are_written_whole_with_their_mode_and_removed(pair):
    handle = Container("a", pair.container("a"))
    secret, public = "/etc/ipsecctl/test dir/secret", "/etc/ipsecctl/public"
    files = [NewFile(secret, b"\x00secret\xff", 0o600), NewFile(public, b"x" * 200_000, 0o644)]
    asyncio.run(write_files(handle, files))
    assert pair.on("a", "stat", "-c", "%a %U %s", secret) == "600 root 8"
    assert pair.on("a", "stat", "-c", "%a %U %s", public) == "644 root 200000"
    seen = asyncio.run(observe(handle)).facts.files
    assert (seen[secret].mode, seen[public].mode) == (0o600, 0o644)
    asyncio.run(write_files(handle, [], [secret, public]))
    assert not asyncio.run(observe(handle)).facts.files
    with pytest.raises(ApplyFailed, match="cannot be written"):
        asyncio.run(write_files(handle, [NewFile("/proc/no/such", b"", 0o644)]))
    assert pair.on("a", "sh", "-c", "ls -A /var/lib/ipsecctl") == ""


def test_first_apply_and_then_nothing_to_do(pair):
    assert all(kind in ("create", "change") for kind, *_ in plan(pair))
    first = apply(pair)
    assert [t["verdict"] for t in first["tunnels"]] == ["up"]
    assert plan(pair) == set()
    second = apply(pair)
    assert second["nothing_to_do"], json.dumps(second)
    assert verdict(pair) == ("up", [])
    ping(pair)
    ipsecctl("plan", pair.topology(), "--detailed-exitcode")


def test_secrets_are_for_their_owner_only(pair):
    psk = (pair.directory / "t.psk").read_text()
    mode = pair.on("a", "stat", "-c", "%a", "/etc/swanctl/conf.d/ipsecctl-secrets.conf")
    record = pair.on("a", "cat", "/var/lib/ipsecctl/applied.json")
    assert (mode, psk in record) == ("600", False)
    assert (
        pair.on("a", "stat", "-c", "%a", "/var/lib/ipsecctl", "/var/lib/ipsecctl/applied.json") == "700\n600"
    )
    assert psk not in ipsecctl("plan", pair.topology("nist-800-77"), "--json", "--wide")


def test_anothers_connection_survives_and_one_in_our_place_is_a_conflict(pair):
    pair.on("b", "sh", "-c", "cat /etc/swanctl/conf.d/ipsecctl.conf - > /tmp/all.conf", stdin=FOREIGN)
    pair.on("b", "swanctl", "--load-conns", "--file", "/tmp/all.conf")
    apply(pair, "nist-800-77")
    assert "foreign:" in pair.on("b", "swanctl", "--list-conns")
    ping(pair)
    pair.psk("foreign")
    out = ipsecctl("plan", pair.topology("nist-800-77", "foreign"), "--json", status=1)
    conflicts = [c["summary"] for g in json.loads(out)["gateways"] for c in g["conflicts"]]
    assert conflicts == ["b: charon has a connection 'foreign' that ipsecctl did not load"]
    apply(pair)


def test_drift_is_found_named_and_mended(pair):
    pair.on("a", "sh", "-c", "echo '# x' >>/etc/swanctl/conf.d/ipsecctl.conf")
    pair.on("a", "nft", "delete", "table", "inet", "ipsecctl")
    pair.on("b", "chmod", "644", "/etc/swanctl/conf.d/ipsecctl-secrets.conf")
    pair.on("b", "nft", "add", "rule", "inet", "ipsecctl", "forward", "accept")
    pair.on("b", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
    pair.on("b", "sh", "-c", "grep -v . /dev/null >/tmp/none; swanctl --load-conns --file /tmp/none || true")
    found = plan(pair)
    assert {
        ("change", "file", "a", "/etc/swanctl/conf.d/ipsecctl.conf"),
        ("create", "firewall", "a", "inet ipsecctl"),
        ("change", "file", "b", "/etc/swanctl/conf.d/ipsecctl-secrets.conf"),
        ("change", "firewall", "b", "inet ipsecctl"),
        ("change", "sysctl", "b", "net.ipv4.conf.all.rp_filter"),
        ("create", "connection", "b", "t"),
    } <= found
    apply(pair)
    assert plan(pair) == set()
    ping(pair)


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("nft delete table inet ipsecctl", "is not loaded: apply the topology"),
        ("nft add rule inet ipsecctl forward accept", "is not as it was applied: apply the topology"),
        ("sysctl -qw net.ipv4.ip_forward=0", "the kernel does not forward packets: apply the topology"),
    ],
)
def test_a_tunnel_without_its_guard_is_degraded_and_apply_mends_it(pair, command, cause):
    assert verdict(pair) == ("up", [])
    pair.on("a", *command.split())
    said, (why,) = verdict(pair, status=1)
    assert said == "degraded"
    assert why.startswith("a: ") and why.endswith(cause)
    apply(pair)
    assert verdict(pair) == ("up", [])


def test_of_two_applies_at_once_one_does_nothing(pair):
    async def main():
        async with locked(Container("a", pair.container("a"))):
            return await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "ipsecctl", "apply", pair.topology("nist-800-77"), "--yes"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

    second = asyncio.run(main())
    assert second.returncode == 1
    assert "another apply is at work on a since" in second.stderr
    assert "Nothing was done" in second.stderr
    done = apply(pair)
    assert done["nothing_to_do"], json.dumps(done)


def test_after_a_restart_the_firewall_is_there_before_the_network(pair):
    # Without its ready file the node waits, as it does after a reboot, for somebody to configure it.
    pair.on("b", "rm", "/run/ipsecctl-lab/ready", "/run/ipsecctl-lab/waiting")
    subprocess.run(["docker", "restart", "-t", "1", pair.container("b")], capture_output=True, check=True)
    assert "table inet ipsecctl" in pair.on("b", "nft", "list", "tables")
    assert "charon-systemd" not in pair.on("b", "ps", "ax")
    if "kernel-libipsec" in pair.on("a", "swanctl", "--stats"):
        assert "10.1.0.0/24" in pair.on("b", "ip", "route", "show", "type", "unreachable")
    pair.prepare("b")
    ends = json.loads(ipsecctl("status", pair.topology(), "--json", status=1))["tunnels"][0]["ends"]
    assert {end["gateway"]: end["guard"] for end in ends}["b"] == "loaded"
    assert ("create", "firewall", "b", "inet ipsecctl") not in plan(pair)
    apply(pair)
    ping(pair)


def test_a_connection_altered_with_swanctl_is_found(pair):
    pair.on(
        "b",
        "sh",
        "-c",
        "sed 's/dpd_delay = .*/dpd_delay = 77s/' /etc/swanctl/conf.d/ipsecctl.conf >/tmp/x.conf",
    )
    pair.on("b", "swanctl", "--load-conns", "--file", "/tmp/x.conf")
    assert plan(pair) == {("change", "connection", "b", "t")}
    apply(pair)
    assert plan(pair) == set()


@pytest.mark.parametrize("gateway", ["a", "b"])
def test_a_charon_that_died_is_named_and_after_its_return_apply_mends_it(pair, gateway):
    pair.charon(gateway, "kill")
    started = time.monotonic()
    said, causes = verdict(pair, status=1)
    assert time.monotonic() - started < 5
    assert said == "down"
    assert causes[0].startswith(f"{gateway}: charon is not running")
    failed = apply(pair, status=1, wait="5")
    assert [bool(g["error"]) for g in failed["gateways"]] == [gateway == "a", gateway == "b"]
    pair.charon(gateway, "start")
    assert verdict(pair, status=1)[0] == "down"
    assert [t["verdict"] for t in apply(pair)["tunnels"]] == ["up"]
    ping(pair)


def test_a_charon_that_hangs_is_unknown_in_time(pair):
    pair.on("b", "pkill", "-STOP", "charon-systemd")
    try:
        started = time.monotonic()
        said, causes = verdict(pair, "--timeout", "1.5", status=3)
        assert time.monotonic() - started < 4
        assert said == "unknown"
        assert "did not answer" in causes[0]
        assert causes[1] == "as a sees it, it is up"
        with pytest.raises(GatewayUnreachable) as hung:
            asyncio.run(look(Container("b", pair.container("b")), timeout_s=0.5))
        assert not hung.value.charon_down
    finally:
        pair.on("b", "pkill", "-CONT", "charon-systemd")
    assert verdict(pair) == ("up", [])


def test_what_charon_reads_only_at_its_start_is_pending_until_then(pair):
    libipsec = "kernel-libipsec" in pair.on("a", "swanctl", "--stats")
    file = pair.directory / "narrow.yaml"
    file.write_text(Path(pair.topology()).read_text().replace("control: lab,", "control: lab, mtu: 1400,"))
    narrow = str(file)
    if not libipsec:  # on the kernel's data path no option waits for a restart
        assert "restarted" not in ipsecctl("apply", narrow, "--wait", "15")
        return
    notice = "charon on a must be restarted for kernel-netlink.mtu = 13"
    assert notice in ipsecctl("apply", narrow, "--wait", "15", status=1)
    assert notice in ipsecctl("apply", narrow, "--wait", "15", status=1)  # nothing changes, nor is it right
    cause = "charon on a runs with other options than applied (kernel-netlink.mtu: 13"
    assert cause in ipsecctl("status", narrow, status=1)
    assert "Nothing to apply: charon must be restarted on a, b." in ipsecctl("plan", narrow)
    for gateway in "ab":
        pair.charon(gateway, "stop")
        pair.charon(gateway, "start")
    pending = json.loads(ipsecctl("plan", narrow, "--json"))["gateways"]
    assert [gateway["restart_for"] for gateway in pending] == [[], []]
    assert "restarted" not in ipsecctl("apply", narrow, "--wait", "15")
    assert "restarted for kernel-netlink.mtu = default" in ipsecctl("apply", pair.topology(), "--wait", "15")
    pair.on("a", "swanctl", "--terminate", "--ike", "t", "--force")  # now nobody uses either of them
    done = json.loads(ipsecctl("apply", pair.topology(), "--yes", "--json"))
    assert [gateway["restarted"] for gateway in done["gateways"]] == [True, True]
    assert "Nothing to do" in ipsecctl("apply", pair.topology())


def test_a_wrong_psk_is_told_in_charons_own_words(pair):
    apply(pair)
    pair.on(
        "b",
        "sh",
        "-c",
        "sed 's/secret = 0s..../secret = 0sAAAA/' /etc/swanctl/conf.d/ipsecctl-secrets.conf >/tmp/s",
    )
    pair.on("b", "swanctl", "--load-creds", "--clear", "--file", "/tmp/s")
    pair.on("a", "swanctl", "--terminate", "--ike", "t", "--force")
    failed = apply(pair, status=1, wait="5")
    assert any("AUTHENTICATION_FAILED" in cause for cause in failed["tunnels"][0]["causes"])
    pair.on("b", "swanctl", "--load-creds", "--clear")
    apply(pair)


def test_what_is_no_longer_declared_is_removed_with_its_sas(pair):
    pair.psk("u")
    ipsecctl("apply", pair.topology(second="u"), "--wait", "0.5", status=1)
    assert "u: #" in pair.on("b", "swanctl", "--list-sas")  # it calls somebody who does not answer
    removed = {change for change in plan(pair) if change[0] == "remove"}
    assert {("remove", "connection", "b", "u"), ("remove", "shared", "b", "ike-u")} <= removed
    apply(pair, "modern", "--allow", "u")
    assert "u: #" not in pair.on("b", "swanctl", "--list-sas")
    assert "u:" not in pair.on("b", "swanctl", "--list-conns").split()
    assert "10.3.0.0" not in pair.on("b", "ip", "route", "show", "table", "all")
    assert plan(pair) == set()
    ping(pair)


def test_a_stopped_container_is_unreachable_and_hides_nothing(pair):
    subprocess.run(["docker", "stop", "-t", "1", pair.container("a")], capture_output=True, check=True)
    said, causes = verdict(pair, status=3)
    assert said == "unknown"
    assert causes[0].startswith("a cannot be reached: container")
    failed = apply(pair, status=1, wait="5")
    assert [bool(g["error"]) for g in failed["gateways"]] == [True, False]

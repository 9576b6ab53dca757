"""The rendered files in the kernel: every nft takes the firewall, and packets take no other way."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from netaddr import IPAddress, IPNetwork

from ipsecctl.desired import FirewallRule, GatewayState, Interface, Route, RouteKind
from ipsecctl.lab import Release, image_name
from ipsecctl.render import render_files
from ipsecctl.topology import DataPath

pytestmark = pytest.mark.lab

GOLDEN = Path(__file__).parent / "golden"
LOADS = (
    "cd /golden; for f in $(find * -name firewall.nft | sort); do nft -c -f $f && nft -f $f && echo $f; done"
)
NODES = """
set -e
for n in lan gw far; do ip netns add $n; ip -n $n link set lo up; done
up() { ip -n $1 link set $2 up; }
join() { ip link add $1 netns $2 type veth peer name $3 netns $4; up $2 $1; up $4 $3; }
join eth0 lan lan0 gw; join wan far wan0 gw
ip -n lan address add 10.10.0.5/24 dev eth0; ip -n lan route add default via 10.10.0.1
ip -n gw address add 198.51.100.10/24 dev wan0; ip -n far address add 198.51.100.20/24 dev wan
ip -n far address add 10.20.1.1/24 dev lo
ip netns exec gw sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2
for key in all wan; do ip netns exec far sysctl -qw net.ipv4.conf.$key.rp_filter=0; done
passes() { ip netns exec lan ping -c 2 -i 0.2 -W 2 10.20.1.1 >/dev/null && echo yes || echo no; }
called() { ip netns exec far ping -I 10.20.1.1 -c 2 -i 0.2 -W 2 10.10.0.5 >/dev/null && echo yes || echo no; }
dropped() { ip netns exec gw nft list counter inet ipsecctl $1 | sed -n 's/.*packets \\([0-9]*\\) .*/\\1/p'; }
"""
WAYS = """
join way far ix-office gw
ip -n gw address add 10.10.0.1/24 dev lan0
ip -n gw address add 169.254.10.2/30 dev ix-office; ip -n far address add 169.254.10.1/30 dev way
ip netns exec far sysctl -qw net.ipv4.conf.way.rp_filter=0
ip netns exec gw nft -f /golden/route-mode/expected/head-office/etc/ipsecctl/firewall.nft
lead() { ip -n gw route replace 10.20.1.0/24 via $1; ip -n far route replace 10.10.0.0/24 via $2; }
lead 169.254.10.1 169.254.10.2; echo interface $(passes)
lead 198.51.100.20 169.254.10.2; echo leaving $(passes) $(dropped leaving_in_clear)
lead 169.254.10.1 198.51.100.10; echo arriving $(passes) $(dropped arriving_in_clear)
"""
# Policies and SAs by hand, as charon would install them; the far end has no interface.
IPSEC = """
esp="mode tunnel aead rfc4106(gcm(aes)) 0x$(printf %040d 7) 128"
ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 $esp 2>/dev/null || { echo no ESP; exit 0; }
ipsec() { # NODE HERE THERE LOCAL REMOTE [if_id ID]
    node=$1; here=$2; there=$3; local=$4; remote=$5; shift 5
    ip -n $node xfrm state add src 198.51.100.10 dst 198.51.100.20 proto esp spi 0x1001 reqid 1 $esp "$@"
    ip -n $node xfrm state add src 198.51.100.20 dst 198.51.100.10 proto esp spi 0x1002 reqid 1 $esp "$@"
    by="proto esp reqid 1 mode tunnel"
    ip -n $node xfrm policy add src $local dst $remote dir out tmpl src $here dst $there $by "$@"
    for dir in in fwd; do
        ip -n $node xfrm policy add src $remote dst $local dir $dir tmpl src $there dst $here $by "$@"
    done
}
ipsec far 198.51.100.20 198.51.100.10 10.20.1.0/24 10.10.0.0/24
ip -n far route add 10.10.0.0/24 via 198.51.100.10
guard() { ip netns exec gw sh /etc/ipsecctl/guard "$@" 2>&1 || echo failed; }
in_clear() { # how many requests of `passes` the far end sees without ESP
    ip netns exec far nft -f - <<END
table ip watch
delete table ip watch
table ip watch {
    chain in {
        type filter hook prerouting priority raw; policy accept;
        iifname "wan" meta ipsec missing icmp type echo-request counter
    }
}
END
    passes >/dev/null
    ip netns exec far nft list table ip watch | sed -n 's/.*packets \\([0-9]*\\) .*/\\1/p'
}
"""
MASQUERADE = """
guard firewall
ip -n gw address add 10.10.0.1/24 dev lan0; ip -n gw route add default via 198.51.100.20
ipsec gw 198.51.100.10 198.51.100.20 10.10.0.0/24 10.20.1.0/24
echo before $(passes) $(called) $(dropped leaving_after_nat)
ip netns exec gw nft add table ip nat
ip netns exec gw nft 'add chain ip nat post { type nat hook postrouting priority srcnat; }'
ip netns exec gw nft add rule ip nat post oifname wan0 masquerade
echo masqueraded $(in_clear) $(dropped leaving_after_nat) $(called)
ip netns exec gw nft flush chain inet ipsecctl after_nat
echo unguarded $(in_clear)
"""
ROUTED = """
guard interfaces firewall routes
ip -n gw address add 10.10.0.1/24 dev lan0
ip -n gw route show 10.20.1.0/24
guard interfaces routes; ip -n gw -4 -br address show dev ix-ab | tr -s ' '
ipsec gw 198.51.100.10 198.51.100.20 10.10.0.0/24 10.20.1.0/24 if_id 0x2a
echo up $(passes) $(called) $(ip netns exec gw ping -c 1 -W 2 10.20.1.1 >/dev/null && echo yes)
probe() { ip netns exec lan ping -M do -c 1 -W 2 -s $(($1 - 28)) 10.20.1.1 >/dev/null; }
sized() { probe $1 && echo yes || echo no; }
echo 1446 $(sized 1446) 1447 $(sized 1447)
ip -n gw link delete ix-ab; ip -n gw route add default via 198.51.100.20
echo gone $(in_clear) $(dropped leaving_in_clear)
ip -n gw route flush proto 213
echo unheld $(in_clear) $(dropped leaving_in_clear)
ip -n gw link add other type xfrm if_id 0x2a; guard interfaces
ip -n gw link delete other; ip -n gw link add ix-ab type dummy; guard interfaces
"""


def run(release: Release, script: str, files: dict[str, bytes]) -> list[str]:
    """Run a script in a container of a lab image without any network; return the lines that it printed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    argv = [
        "docker",
        "run",
        "--rm",
        "--interactive",
        "--network",
        "none",
        "--privileged",
        "--entrypoint",
        "sh",
    ]
    argv += [image_name(release), "-c", f"tar -x -C /; {script}"]
    done = subprocess.run(argv, input=packed.getvalue(), capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def golden() -> dict[str, bytes]:
    files = GOLDEN.rglob("firewall.nft")
    return {f"golden/{path.relative_to(GOLDEN)}": path.read_bytes() for path in files}


def gateway(interface: str) -> dict[str, bytes]:
    """The files of a gateway with one tunnel, in route mode if it has an interface."""
    local, remote = IPNetwork("10.10.0.0/24"), IPNetwork("10.20.1.0/24")
    rule = FirewallRule("ab", 4, (local,), (remote,), 1406, interface)
    inside = IPNetwork("10.10.0.1/32")
    into = Route(remote, "ab", RouteKind.INTO, interface, 50, IPAddress("10.10.0.1"))
    state = GatewayState(
        "gw",
        "site",
        DataPath.KERNEL,
        (),
        (),
        (),
        (),
        (rule,),
        (into, Route(remote, "ab")) if interface else (),
        1446,
        interfaces=(Interface(interface, 0x2A, 1446, (inside,), "ab"),) if interface else (),
    )
    return {file.path: file.content for file in render_files(state, {}, {})}


@pytest.mark.parametrize("release", Release)
def test_every_nft_takes_every_firewall(release):
    files = golden()
    assert files
    assert sorted(f"golden/{name}" for name in run(release, LOADS, files)) == sorted(files)


def test_only_its_own_interface_is_the_way_between_the_networks_of_a_tunnel():
    assert run(Release.FORKY, NODES + WAYS, golden()) == ["interface yes", "leaving no 2", "arriving no 2"]


def on_kernel_esp(script: str, interface: str) -> list[str]:
    return run(Release.FORKY, NODES + IPSEC + script, gateway(interface))


@pytest.mark.esp
@pytest.mark.kernel
def test_a_masquerade_on_the_gateway_leads_nothing_past_ipsec_and_would_without_us():
    assert on_kernel_esp(MASQUERADE, "") == [
        "before yes yes 0",
        "masqueraded 0 2 yes",
        "unguarded 2",
    ]


@pytest.mark.esp
@pytest.mark.kernel
def test_a_tunnel_in_route_mode_comes_up_from_its_files_and_leaks_nothing_without_its_interface():
    assert on_kernel_esp(ROUTED, "ix-ab") == [
        "10.20.1.0/24 dev ix-ab proto 213 scope link src 10.10.0.1 metric 50 ",
        "unreachable 10.20.1.0/24 proto 213 metric 4278198272 ",
        "ix-ab@NONE UNKNOWN 10.10.0.1/32 ",
        "up yes yes yes",
        "1446 yes 1447 no",
        "gone 0 0",
        "unheld 0 2",
        "an interface cannot be set: ix-ab, if_id 0x2a: RTNETLINK answers: File exists",
        "failed",
        "an interface cannot be set: ix-ab is there and no xfrm interface: it is somebody else's",
        "failed",
    ]

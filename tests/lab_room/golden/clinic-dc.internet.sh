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
name_interface 02:00:00:00:00:00 to-clinic-a 02:b9:9a:4a:e5:1d
name_interface 02:00:00:00:00:01 to-clinic-b-box 02:45:04:8c:48:dd
name_interface 02:00:00:00:00:02 to-dc 02:66:be:37:03:1c
set_sysctl ipv6/conf/all/forwarding 1
set_sysctl ipv6/conf/to-clinic-a/disable_ipv6 1
set_sysctl ipv6/conf/to-clinic-b-box/disable_ipv6 1
set_sysctl ipv6/conf/to-dc/disable_ipv6 1
ip -batch - <<'END_OF_INPUT'
address flush dev to-clinic-a
link set dev to-clinic-a mtu 1500 up
address add 203.0.113.1/24 dev to-clinic-a
address flush dev to-clinic-b-box
link set dev to-clinic-b-box mtu 1492 up
address add 192.0.2.1/24 dev to-clinic-b-box
address flush dev to-dc
link set dev to-dc mtu 1500 up
address add 198.51.100.1/24 dev to-dc
END_OF_INPUT
nft -f - <<'END_OF_INPUT'
table inet internet {
	counter private_source { }
	counter private_destination { }
	counter unknown { }
	chain prerouting {
		type filter hook prerouting priority filter; policy accept;
		ip saddr { 10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 } counter name private_source drop
		ip6 saddr fc00::/7 counter name private_source drop
		ip daddr { 10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 } counter name private_destination drop
		ip6 daddr fc00::/7 counter name private_destination drop
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ip saddr { 192.0.2.30, 198.51.100.10, 203.0.113.20 } ip daddr { 192.0.2.30, 198.51.100.10, 203.0.113.20 } accept
		counter name unknown drop
	}
}
END_OF_INPUT
: >/etc/resolv.conf
touch /run/ipsecctl-lab/ready
kill -s USR1 1

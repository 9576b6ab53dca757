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
name_interface 02:00:00:00:00:00 wan 02:90:6d:5c:3d:de
name_interface 02:00:00:00:00:01 lan 02:2a:b3:cf:d3:56
set_sysctl ipv6/conf/all/forwarding 1
set_sysctl ipv6/conf/wan/disable_ipv6 1
set_sysctl ipv6/conf/lan/disable_ipv6 1
ip -batch - <<'END_OF_INPUT'
address flush dev wan
link set dev wan mtu 1492 up
address add 192.0.2.30/24 dev wan
address flush dev lan
link set dev lan mtu 1492 up
address add 192.168.178.1/24 dev lan
route replace 0.0.0.0/0 via 192.0.2.1 dev wan
END_OF_INPUT
nft -f - <<'END_OF_INPUT'
table ip nat_box {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wan" masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
		iifname "lan" oifname "wan" accept
	}
}
END_OF_INPUT
: >/etc/resolv.conf
touch /run/ipsecctl-lab/ready
kill -s USR1 1

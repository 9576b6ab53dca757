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
name_interface 02:00:00:00:00:00 lan 02:37:bc:14:4c:e7
set_sysctl ipv6/conf/lan/disable_ipv6 1
ip -batch - <<'END_OF_INPUT'
address flush dev lan
link set dev lan mtu 1500 up
address add 10.10.0.10/24 dev lan
route replace 0.0.0.0/0 via 10.10.0.1 dev lan
END_OF_INPUT
: >/etc/resolv.conf
touch /run/ipsecctl-lab/ready
kill -s USR1 1

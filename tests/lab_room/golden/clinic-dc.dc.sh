tries=200
until [ -e /run/ipsecctl-lab/waiting ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "the node's first process has not come to wait for its links after 10 s" >&2
        exit 1
    fi
    sleep 0.05
done
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
name_interface 02:00:00:00:00:00 wan 02:a3:32:f7:e1:df
name_interface 02:00:00:00:00:01 lan-servers 02:a4:ba:e8:89:17
name_interface 02:00:00:00:00:02 lan-imaging 02:ae:a4:d5:b7:92
set_sysctl ipv6/conf/all/forwarding 1
set_sysctl ipv6/conf/wan/disable_ipv6 1
set_sysctl ipv6/conf/lan-servers/disable_ipv6 1
set_sysctl ipv6/conf/lan-imaging/disable_ipv6 1
ip -batch - <<'END_OF_INPUT'
address flush dev wan
link set dev wan mtu 1500 up
address add 198.51.100.10/24 dev wan
address flush dev lan-servers
link set dev lan-servers mtu 1500 up
address add 10.10.0.1/24 dev lan-servers
address flush dev lan-imaging
link set dev lan-imaging mtu 1500 up
address add 10.10.8.1/24 dev lan-imaging
route replace 0.0.0.0/0 via 198.51.100.1 dev wan
END_OF_INPUT
: >/etc/resolv.conf
touch /run/ipsecctl-lab/ready
kill -s USR1 1
tries=200
until [ -S /run/charon.vici ] && swanctl --stats </dev/null >/dev/null 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        echo "charon does not answer after 10 s; its log ends:" >&2
        tail -n 5 /var/log/charon.log >&2
        exit 1
    fi
    sleep 0.05
done

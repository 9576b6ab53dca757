"""What runs on a gateway to find out what it is and can do: two shell scripts, one inside the other.

``TRIALS`` runs in a network namespace that ends with it, so that SAs, interfaces and tables tried there touch
nothing of the host. (Like any first use of them it can make the kernel load the modules that they live in.)
``QUESTIONS`` only reads. Both print lines: ``NAME | one line of the answer``, ``NAME = STATUS first line of
what a command complained about``, ``NAME ? why nobody could be asked``. Nothing that a command prints can
pass for a line of another name. The last line is ``end | SECONDS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ipsecctl.gateway.names import NFT_TABLE, ROUTE_PROTOCOL, VICI_SOCKETS
from ipsecctl.patience import PATIENCE

__all__ = ["KERNEL_SUITES", "KernelSuite", "script"]

_COMMAND_LIMIT_S: Final = 4 * PATIENCE
_TRIALS_LIMIT_S: Final = 20 * PATIENCE


@dataclass(frozen=True, order=True, slots=True)
class KernelSuite:
    """An ESP suite as the kernel's crypto names it; lengths in bits.

    ``key_bits`` has what comes with the key: the salt of AES-GCM and ChaCha20-Poly1305 (32), of AES-CCM (24).
    ``integrity`` is empty for an AEAD. Source: kernel_netlink_ipsec.c of strongSwan, whose SAs these are.
    """

    cipher: str
    key_bits: int
    icv_bits: int
    integrity: str = ""
    integrity_key_bits: int = 0

    @property
    def arguments(self) -> str:
        """What ``ip xfrm state add`` is told. The keys are all zeros: the SA carries no packet."""
        key = f"{self.cipher} 0x{'0' * (self.key_bits // 4)}"
        if not self.integrity:
            return f"aead {key} {self.icv_bits}"
        integrity = f"{self.integrity} 0x{'0' * (self.integrity_key_bits // 4)}"
        return f"enc {key} auth-trunc {integrity} {self.icv_bits}"


def _suites() -> dict[str, KernelSuite]:
    suites = {"chacha20poly1305": KernelSuite("rfc7539esp(chacha20,poly1305)", 256 + 32, 128)}
    for bits in (128, 192, 256):
        suites[f"aes{bits}gcm16"] = KernelSuite("rfc4106(gcm(aes))", bits + 32, 128)
        suites[f"aes{bits}ccm16"] = KernelSuite("rfc4309(ccm(aes))", bits + 24, 128)
        for name, key_bits, icv_bits in (
            ("sha1", 160, 96),
            ("sha256", 256, 128),
            ("sha384", 384, 192),
            ("sha512", 512, 256),
        ):
            suites[f"aes{bits}-{name}"] = KernelSuite("cbc(aes)", bits, icv_bits, f"hmac({name})", key_bits)
    return dict(sorted(suites.items()))


KERNEL_SUITES: Mapping[str, KernelSuite] = MappingProxyType(_suites())
"""The ESP suites that are tried in the kernel, by their name in swanctl's words."""

# $1 has a suite on each line: name, then its arguments. Commands are few: some gateways are slow.
_TRIALS = r"""
LC_ALL=C; export LC_ALL
line='
'
spi=256
usable=
reported() { printf '%s = %s %s\n' "$1" "$2" "${3%%"$line"*}"; } # NAME STATUS COMPLAINT
try() { # try NAME COMMAND ...
    name=$1; shift
    said=$("$@" 2>&1 >/dev/null </dev/null); status=$?
    reported "$name" "$status" "$said"
    return "$status"
}
add() { # add NAME ADDRESSES-AND-MORE ...: an SA
    name=$1; shift
    spi=$((spi + 1))
    try "$name" ip xfrm state add proto esp spi $spi "$@"
}
four='src 192.0.2.1 dst 192.0.2.2 mode tunnel'
six='src 2001:db8::1 dst 2001:db8::2 mode tunnel'
set -f; IFS=$line
# shellcheck disable=SC2086 # a suite each
set -- $1
unset IFS
for suite; do
    case ${suite%% *} in aes256gcm16 | aes256-sha256) set -- "$@" "6 $suite" ;; esac
done
# As many at once as there are until one is refused, with which ip ends: where none is, that is one ip for
# all. What stands between them tells how many were made.
while [ $# -gt 0 ]; do
    left=$#
    said=$(for suite; do
        addresses=$four arguments=${suite#* }
        case $suite in '6 '*) addresses=$six arguments=${arguments#* } ;; esac
        echo "xfrm state add proto esp spi $((spi + left)) $addresses $arguments"
        echo 'link show dev lo'
        left=$((left - 1))
    done | ip -o -batch - 2>&1); status=$?
    complaint=
    IFS=$line
    for one in $said; do
        case $one in *': lo: '*)
            case $1 in
                '6 '*) name=${1#6 }; reported "suite6 ${name%% *}" 0 '' ;;
                *) reported "suite4 ${1%% *}" 0 ''; usable=${1#* } ;;
            esac
            shift ;;
        *) complaint=${complaint:-$one} ;;
        esac
    done
    unset IFS
    [ $# -gt 0 ] || break
    case $1 in
        '6 '*) name=${1#6 }; reported "suite6 ${name%% *}" "$status" "$complaint" ;;
        *) reported "suite4 ${1%% *}" "$status" "$complaint"; last=${1#* } ;;
    esac
    shift
done
spi=512
# shellcheck disable=SC2086 # words
set -- ${usable:-$last}
add udp_encapsulation src 192.0.2.1 dst 192.0.2.2 mode tunnel encap espinudp 4500 4500 0.0.0.0 "$@"
add esn src 192.0.2.1 dst 192.0.2.2 mode tunnel replay-window 128 flag esn "$@"
add iptfs src 192.0.2.1 dst 192.0.2.2 mode iptfs dir out "$@"
add per_cpu src 192.0.2.1 dst 192.0.2.2 mode tunnel dir out pcpu-num 0 "$@"
# A kernel that does not know what an SA is asked for may leave it out: look at what it made.
ip xfrm state list 2>/dev/null | sed -n 's/^.*\(pcpu-num\).*$/made | \1/p; s/^.*flag.*\(esn\).*$/made | \1/p'
try xfrm_interfaces ip link add facts0 type xfrm dev lo if_id 42
try dummy ip link add facts1 type dummy
if command -v nft >/dev/null 2>&1; then
    check() {
        said=$(nft -c -f - 2>&1 >/dev/null); status=$?
        reported "$1" "$status" "$said"
    }
    check nft_sets <<'RULES'
table inet facts {
    set networks {
        typeof ip saddr . ip daddr
        flags interval
        elements = { 192.0.2.0/25 . 198.51.100.0/24 }
    }
    counter dropped { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr . ip daddr @networks counter name dropped drop
        tcp flags & syn == syn tcp option maxseg size > 1360 tcp option maxseg size set 1360
    }
}
RULES
    check nft_xfrm <<'RULES'
table inet facts {
    chain forward {
        type filter hook forward priority filter; policy accept;
        rt ipsec exists accept
        meta ipsec exists accept
    }
}
RULES
fi
"""

_QUESTIONS = r"""
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/sbin:/sbin; export PATH
[ "$(id -u)" = 0 ] || { echo "root's rights are needed" >&2; exit 1; }
trials=$1 suites=$2 our_table="$3 $4" our_routes=$5 limit=$6 trials_limit=$7
shift 7
line='
'
value() { printf '%s | %s\n' "$1" "$2"; }
values() { # values NAME LINES: without a process
    set -f; IFS=$line
    for one in $2; do value "$1" "$one"; done
    unset IFS; set +f
}
have() { command -v "$1" >/dev/null 2>&1; }
ask() { # ask NAME COMMAND ...: its answer, its exit status; what it complains about is not kept
    name=$1; shift
    have "$1" || { printf '%s ? %s is not installed\n' "$name" "$1"; return; }
    said=$(timeout "$limit" "$@" 2>/dev/null </dev/null); status=$?
    values "$name" "$said"
    printf '%s = %s\n' "$name" "$status"
}
value begin "$(date +%s.%N)"
ask release uname -r
for file in /proc/config.gz "/boot/config-$(uname -r)"; do
    [ -r "$file" ] || continue
    gzip -cdf "$file" 2>/dev/null | grep -E '^(# )?CONFIG_XFRM_IPTFS[ =]' | sed 's/^/config | /'
    value config_file "$file"
    break
done

# Where ip cannot ask for IP-TFS: a kernel with it has modes that modules bring, and so this function.
grep -m 2 -oE ' (xfrm_state_add|xfrm_register_mode_cbs)$' /proc/kallsyms 2>/dev/null |
    while read -r symbol; do value symbol "$symbol"; done

# A namespace of its own for the trials; as root of a user namespace where the host's root may not have one.
tried=
if have unshare && have ip; then
    for how in -n -rn; do
        if said=$(unshare "$how" true 2>&1); then
            timeout "$trials_limit" unshare "$how" sh -c "$trials" trials "$suites" 2>/dev/null
            printf 'trials = %s\n' "$?"
            tried=yes
            break
        fi
    done
    said=$(printf '%s' "$said" | head -n 1)
    [ -n "$tried" ] || printf 'trials ? no network namespace can be made: %s\n' "$said"
elif have unshare; then printf 'trials ? ip is not installed\n'
else printf 'trials ? unshare is not installed\n'
fi

ask nft_version nft -v
if have nft; then
    # Elements of sets are left out, and our own table is.
    rules='{ nft -s -t list ruleset || nft -s list ruleset; } 2>/dev/null'
    # shellcheck disable=SC2016 # awk's expressions
    ask ruleset sh -c "$rules"' | awk -v ours="$1" '\''
        /^table / { table = $2 " " $3; print "table " table; next }
        table == ours { next }
        /^\tchain / { chain = $2; next }
        {
            rule = $0
            sub(/^[ \t]+/, "", rule)
            words = rule
            gsub(/comment "[^"]*"/, "", words)
        }
        words ~ /(^| )(masquerade|snat)( |$)/ || words ~ /xt target "(MASQUERADE|SNAT|NETMAP)"/ {
            print "snat " table " " chain ": " rule
        }
        words ~ /(^| )(dnat|redirect)( |$)|xt target "(DNAT|REDIRECT)"/ \
            && words ~ /[^0-9](500|4500)([^0-9]|$)/ {
            print "dnat " table " " chain ": " rule
        }'\' ruleset "$our_table"
fi
for family in ip ip6; do
    [ -r "/proc/net/${family}_tables_names" ] || continue
    names=$(cat "/proc/net/${family}_tables_names")
    for table in $names; do value legacy_table "$family $table"; done
    [ -n "$names" ] || continue
    have "${family}tables-legacy-save" || { value legacy_unread "$family"; continue; }
    "${family}tables-legacy-save" 2>/dev/null | awk -v family="$family" '
        /^\*/ { table = substr($1, 2) }
        /^-A/ { print "legacy_rule | " family " " table " " $0 }
        /^:/ && $2 != "ACCEPT" && $2 != "-" {
            print "legacy_rule | " family " " table " -P " substr($1, 2) " " $2
        }'
done

ask addresses ip -j -d address show
ask rules4 ip -j -4 rule show
ask rules6 ip -j -6 rule show
if have ip; then
    for family in 4 6; do
        # shellcheck disable=SC2016
        ask "routes$family" sh -c 'ip -"$1" route show table all 2>/dev/null | awk -v ours="$2" '\''
            /^[ \t]/ { next }
            {
                table = "main"; mine = 0
                for (i = 1; i < NF; i++) {
                    if ($i == "table") table = $(i + 1)
                    if ($i == "proto" && $(i + 1) == ours) mine = 1
                }
                if (table == "local") next
                count[table]++; owned[table] += mine
            }
            $1 == "default" || $2 == "default" { print "default " $0 }
            END { for (table in count) print "table " table " " count[table] " " owned[table] }'\' \
            routes "$family" "$our_routes"
    done
    ask policies sh -c 'ip xfrm policy 2>/dev/null | sed -n "s/.*if_id \([0-9a-fx]*\).*/\1/p" | sort -u'
fi
for file in /etc/systemd/network/*.netdev /run/systemd/network/*.netdev /usr/lib/systemd/network/*.netdev; do
    grep -qs '^Kind=xfrm' "$file" || continue
    value netdev "$(sed -n 's/^Name=//p' "$file" | head -n 1) $file"
done
if have ethtool; then
    for interface in /sys/class/net/*; do
        [ "${interface##*/}" != lo ] || continue
        value offload "${interface##*/} $(timeout "$limit" ethtool -k "${interface##*/}" 2>/dev/null |
            sed -n 's/^esp-hw-offload: //p')"
    done
else printf 'offload ? ethtool is not installed\n'
fi
grep -ls '^1' /proc/sys/net/ipv6/conf/*/disable_ipv6 |
    sed 's|^.*/conf/\(.*\)/disable_ipv6$|ipv6_off \| \1|'

if have vtysh; then
    ask frr vtysh -c 'show version'
    ask zebra vtysh -d zebra -c 'show version'
else printf 'frr ? vtysh is not installed\n'
fi

ask timedatectl timedatectl show -p NTPSynchronized --value
ask chronyc chronyc -n tracking
ask adjtimex adjtimex --print

seen=
for socket; do # /var/run mostly is another name of /run
    [ -S "$socket" ] || continue
    place=$(readlink -f "$socket")
    case "$seen" in *" $place "*) continue ;; esac
    value vici "$socket"
    seen="$seen $place "
done
ask listeners ss -Hlunp '( sport = :500 or sport = :4500 )'
if [ -d /run/systemd/system ]; then value systemd yes; else value systemd no; fi
if [ -d /run/systemd/system ]; then
    ask networkd systemctl is-active systemd-networkd
    ask network_manager systemctl is-active NetworkManager
fi
value end "$(date +%s.%N)"
exit 0
"""


def script() -> tuple[str, ...]:
    """Return the command that prints the answers on a gateway, with its arguments."""
    suites = "\n".join(f"{name} {suite.arguments}" for name, suite in KERNEL_SUITES.items())
    limits = (f"{_COMMAND_LIMIT_S:g}", f"{_TRIALS_LIMIT_S:g}")
    own = (*NFT_TABLE, ROUTE_PROTOCOL)
    return ("sh", "-c", _QUESTIONS, "facts", _TRIALS, suites, *own, *limits, *VICI_SOCKETS)

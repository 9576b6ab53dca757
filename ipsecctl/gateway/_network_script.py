"""The part of a shell script that lists a gateway's interfaces, rules and routes, in few processes.

A program's start is what such a list costs, on a small router above all, so each ``ip`` answers several
questions (``-batch``), and one ``awk`` picks from its lines what concerns us: a gateway may have all of the
internet's routes.

Source: iproute2 6.1 to 7.2, its JSON (``-j``), its lines (``-o``) with numbers for names (``-N``).
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCRIPT"]

# Expects in $said lines of a prefix each, of which every route of the main table is to be told (`hold PREFIX`
# where one must hold what no tunnel carries); `own PREFIX` of the gateway's own networks, of which the routes
# to parts of it and to what it is a part of are told; `address A` and `peer A` of its ends of tunnels and of
# the far ones, of which is told why there is no way from one to the other (`no-way`), or by which interface
# it leads (`leaves`); in $protocol the mark of our routes, which are told in any case, and in $table our
# table.
#
# `told FAMILY` says that all addresses and routes of a family were listed. iproute2 leaves out the length of
# a host's prefix, and the table of what is in the main one. `address` after links would list these again.
SCRIPT: Final = r"""
own= line='
'
set -f; IFS=$line
for one in $said; do
    case $one in 'own '*) own="$own ${one#own }" ;; esac
done
unset IFS; set +f
for link in /sys/class/net/ix-* /sys/class/net/ipsec0; do
    [ ! -e "$link" ] || printf 'link %s\n' "${link##*/}"
done
ip -j -d -force -batch - 2>/dev/null <<'asked' | sed 's/^/links /'
address show type xfrm
address show type dummy
asked
for family in 4 6; do
    printf 'rules %s %s\n' $family "$(ip -j -N -$family rule show 2>/dev/null)"
done
of_family() { case $family$1 in 4*:*) return 1 ;; 4* | 6*:*) ;; *) return 1 ;; esac; }
# The questions for the ways to all peers, from anywhere and from each own address: of thousands, too, in one
# process. The awk below knows by their number which is which.
ways() {
    case $said in 'peer '* | *"${line}peer "*) ;; *) return 0 ;; esac
    printf '%s\n' "$said" | awk -v family="$family" '
        function fits(address) { return (address ~ /:/) == (family == 6) }
        $1 == "address" && fits($2) { mine[++sources] = $2 }
        $1 == "peer" && fits($2) { far[++peers] = $2 }
        END {
            for (p = 1; p <= peers; p++) {
                print "route get " far[p]
                for (m = 1; m <= sources; m++) print "route get " far[p] " from " mine[m]
            }
        }'
}
{
    printf '%s\n' "$said"
    for family in 4 6; do
        number=3 asked="address show${line}route show table all${line}link show dev lo"
        for network in $own; do
            of_family "$network" || continue
            for how in match root; do
                number=$((number + 1)) asked="$asked${line}route show table main $how $network"
            done
        done
        number=$((number + 1)) asked="$asked${line}link show dev lo"
        echo "family $family $number"
        {
            { printf '%s\n' "$asked"; ways; } |
                ip -o -N -$family -force -batch - 2>&1 >&3 | sed 's/^/said /'
        } 3>&1
    done
} | awk -v mark="$protocol" -v ours="$table" '
    function plain(prefix) {
        if (prefix == "0.0.0.0/0" || prefix == "::/0") return "default"
        sub(prefix ~ /:/ ? "/128$" : "/32$", "", prefix)
        return prefix
    }
    function fits(address) { return (address ~ /:/) == (family == 6) }
    $1 == "family" {
        family = $2; number = $3; reached = 1; stage = 0
        for (p = 1; p <= peers; p++) {
            if (!fits(far[p])) continue
            way[family, ++number] = far[p] " any"
            for (m = 1; m <= sources; m++) if (fits(mine[m])) way[family, ++number] = far[p] " " mine[m]
        }
        next
    }
    !reached && $1 == "address" { mine[++sources] = $2 }
    !reached && $1 == "peer" { far[++peers] = $2 }
    !reached && $1 ~ /^(own|hold|address|peer)$/ { print }
    !reached { if (NF == 1 || $1 == "hold") wanted[plain($NF)] = 1; next }
    $1 == "said" && $2 == "Command" {
        sub(/.*:/, "")
        if ((family, $0) in way) print "no-way " way[family, $0] " " why
        why = ""
        next
    }
    $1 == "said" { sub(/^said ([A-Za-z ]*: )?/, ""); why = $0; next }
    /^[0-9]+: lo: / { if (!stage++) print "told " family; next }
    stage == 1 { if (!told[$0]++) print "toward " $0 }
    stage == 2 && $2 == "from" {
        for (i = 4; i < NF; i++) if ($i == "dev") print "leaves " $1 " " $3 " " $(i + 1)
    }
    stage { next }
    /^[0-9]+: / { print "at " $2 " " $4; next }
    {
        kinds = $1 !~ /[.:]/ && $1 != "default"
        prefix = $(1 + kinds); table = 254; protocol = device = ""
        for (i = 2; i < NF; i++)
            if ($i == "table") table = $(i + 1)
            else if ($i == "proto") protocol = $(i + 1)
            else if ($i == "dev") device = $(i + 1)
        if (device == "ipsec0" && !kinds) {
            if (prefix == "default") prefix = family == 4 ? "0.0.0.0/0" : "::/0"
            print "ipsec0-route " prefix " " table
        }
        if (table == ours) print "held " $0
        if (table != 254) next
        if (protocol == 2) print "connected " $0
        if (protocol == mark || plain(prefix) in wanted) print "route " $0
    }'
"""

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
# where one must hold what no tunnel carries), and `own PREFIX` of the gateway's own networks, of which the
# routes to parts of it and to what it is a part of are told; in $protocol the mark of our routes, which are
# told in any case, and in $table our table.
#
# `told FAMILY` says that all routes of a family were listed. A network of its own may be on the gateway
# itself, so the addresses are told that no interface but lo bears. iproute2 leaves out the length of a host's
# prefix, and the table of what is in the main one.
SCRIPT: Final = r"""
own=
set -f; IFS='
'
for line in $said; do
    case $line in 'own '*) own="$own ${line#own }" ;; esac
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
{
    printf '%s\n' "$said"
    for family in 4 6; do
        echo "family $family"
        {
            [ -z "$own" ] || echo 'address show dev lo'  # after links it would list these once more
            printf '%s\n' 'route show table all' 'link show dev lo'
            for network in $own; do
                case $family$network in
                    4*:*) ;;
                    4* | 6*:*) printf "route show table main %s $network\n" match root ;;
                esac
            done
        } | ip -o -N -$family -batch - 2>/dev/null
    done
} | awk -v mark="$protocol" -v ours="$table" '
    function plain(prefix) {
        if (prefix == "0.0.0.0/0" || prefix == "::/0") return "default"
        sub(prefix ~ /:/ ? "/128$" : "/32$", "", prefix)
        return prefix
    }
    $1 == "family" { family = $2; reached = 1; listed = 0; next }
    !reached && ($1 == "own" || $1 == "hold") { print }
    !reached && $1 == "own" { next }
    !reached { wanted[plain($NF)] = 1; next }
    /^[0-9]+: lo: / { print "told " family; listed = 1; next }
    /^[0-9]+: lo / { print "here " $4; next }
    listed { if (!told[$0]++) print "toward " $0; next }
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

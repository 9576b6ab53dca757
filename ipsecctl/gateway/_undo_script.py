"""What lies on a gateway while an apply waits for its confirmation, and what puts it there. Pure.

``ARM`` is run before the first change: it copies what is there now beside ``UNDO``, into a directory that
appears at once and whole, and starts the timer. ``UNDO`` is the program that goes back. Neither needs more
than the guard does: sh, coreutils, ip, nft, flock; and for charon's socket what ``BRIDGE`` finds.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ARM", "UNDO", "UNIT"]

UNIT: Final = "ipsecctl-undo.service"

# Arguments: directory of our state, seconds, protocol number of our routes, unit. On standard input a tar
# archive: the programs, what charon is to be sent, `waiting`, the `paths` of all files that are or may become
# ours, and the `settings` that may be changed.
ARM: Final = r"""
set -eu
LC_ALL=C; export LC_ALL
umask 077
state=$1 seconds=$2 protocol=$3 unit=$4
mkdir -p "$state"
new=$(mktemp -d "$state/.undo-XXXXXX")
trap 'rm -rf "$new"' EXIT
find "$state" -maxdepth 1 -name '.undo-*' -mtime +0 -exec rm -rf {} +
tar -xf - -C "$new" --no-same-owner
if [ -e "$state/undo" ]; then
    echo "another apply waits for its confirmation: $(sh "$state/undo/undo" look)" >&2
    exit 1
fi
mkdir "$new/files"
: >"$new/names"; : >"$new/removed"; : >"$new/values"
number=0
while read -r path; do
    if [ -f "$path" ]; then
        cp "$path" "$new/files/$number"
        printf '%s %s %s\n' "$number" "$(stat -c %a "$path")" "$path" >>"$new/names"
        number=$((number + 1))
    else
        printf '%s\n' "$path" >>"$new/removed"
    fi
done <"$new/paths"
[ ! -f "$state/applied.json" ] || cp "$state/applied.json" "$new/record"
while read -r key; do
    # A key may hold *, for every interface. Who becomes a router listens to other routers in another way.
    for place in "/proc/sys/"$(printf '%s' "$key" | tr . /); do
        [ ! -f "$place" ] || printf '%s %s\n' "$place" "$(cat "$place")" >>"$new/values"
    done
    [ "$key" != net.ipv6.conf.all.forwarding ] || for place in /proc/sys/net/ipv6/conf/*/accept_ra; do
        [ ! -f "$place" ] || printf '%s %s\n' "$place" "$(cat "$place")" >>"$new/values"
    done
done <"$new/settings"
for family in -4 -6; do
    ip -o $family route show table all proto "$protocol" 2>/dev/null | sed "s/^/$family /"
done >"$new/routes"
sh "$new/undo" mark >"$new/mark"
sh "$new/undo" session >"$new/sessions"
read -r up _ </proc/uptime
echo "$((${up%%.*} + seconds))" >"$new/deadline"
sync -f "$new"
mv -T "$new" "$state/undo"
sync "$state"
trap - EXIT
rm -f "$state/undone"
disarm() { echo "the timer cannot be started: $1" >&2; sh "$state/undo/undo" forget; exit 1; }
token=$(sed -n 's/^token //p' "$state/undo/waiting")
if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null 2>&1; then
    # The unit lies on the disk, so that it also runs when the power goes meanwhile; the timer in memory only.
    cp "$state/undo/unit" "/etc/systemd/system/$unit"
    chmod 644 "/etc/systemd/system/$unit"
    sync "/etc/systemd/system/$unit" /etc/systemd/system
    # What is left of an earlier one, which still calls its tunnels: a unit at work is not started again.
    systemctl stop "$unit" "${unit%.service}.timer" >/dev/null 2>&1 || :
    said=$(systemctl daemon-reload 2>&1 && systemctl --quiet enable "$unit" 2>&1 &&
        systemd-run --quiet --unit="$unit" --on-active="$seconds" --timer-property=AccuracySec=1s 2>&1) ||
        disarm "$said"
else
    command -v setsid >/dev/null 2>&1 || disarm 'there is neither systemd nor setsid'
    setsid sh "$state/undo/undo" due "$token" </dev/null >/dev/null 2>&1 &
fi
sh "$state/undo/undo" look
"""

# Below another directory than / it works on what is there, as the guard does: a test.
UNDO: Final = r"""#!/bin/sh
# Go back to what was before an apply that nobody confirmed. Written by ipsecctl; gone once that is done,
# or the apply is confirmed.
#
# undo due [TOKEN]        when the time is over; at once when this machine was started since
# undo now [held|free]     at once; held: who calls holds the lock of this gateway
# undo boot               at once, if this machine was started since: files only. Status 10: it was done
# undo confirm TOKEN | extend TOKEN SECONDS | look | forget | mark | session
set -u
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
umask 077
here=${0%/*}
root=${here%/var/lib/ipsecctl/undo}
state=$root/var/lib/ipsecctl
etc=$root/etc
run=$root/run
record=$state/applied.json
guard=$etc/ipsecctl/guard
unit=ipsecctl-undo.service
guard_unit=ipsecctl-guard.service
protocol=213
table='inet ipsecctl'
tries=${IPSECCTL_UNDO_TRIES:-3}

# One start of this machine from the next; of a container, whose kernel goes on, that of its first process.
mark() {
    first=$(sed 's/.*) //' /proc/1/stat | cut -d ' ' -f 20)
    printf '%s %s\n' "$(cat /proc/sys/kernel/random/boot_id)" "$first"
}
# The SSH session that we run in, if any: its process, and when that was started.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
session() {
    process=$$
    while [ "${process:-0}" -gt 1 ]; do
        case $(cat "/proc/$process/comm" 2>/dev/null) in
            sshd | sshd-session) echo "$process $(born "$process")"; return ;;
        esac
        process=$(sed 's/.*) //' "/proc/$process/stat" 2>/dev/null | cut -d ' ' -f 2)
    done
}
value() { sed -n "s/^$1 //p" "$here/waiting" 2>/dev/null; }
left() {
    read -r up _ </proc/uptime
    echo $(($(cat "$here/deadline") - ${up%%.*}))
}
started_since() { [ "$(mark)" != "$(cat "$here/mark")" ]; }
on_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

problems=
problem() { problems="$problems${problems:+; }$(printf '%s' "$1" | tr '\n' ' ')"; }

# ---- the dealings of others with it

# Whoever confirms, extends or begins does so alone.
alone() { exec 8>>"$here/lock" && flock -w 20 8 && [ -f "$here/waiting" ]; }

look() {
    if [ ! -f "$here/waiting" ]; then echo none
    elif [ -e "$here/going" ]; then echo "going $(value token) 0 $(value owner)"
    else echo "waiting $(value token) $(left) $(value owner)"; fi
}

forget() {
    if on_systemd; then
        systemctl stop "${unit%.service}.timer" >/dev/null 2>&1
        systemctl --quiet disable "$unit" >/dev/null 2>&1
        rm -f "/etc/systemd/system/$unit"
        systemctl daemon-reload >/dev/null 2>&1
    fi
    # Renamed first: without its whole it would be no undo.
    gone=$state/.undo-gone-$$
    mv -T "$here" "$gone" && sync "$state" && rm -rf "$gone"
}

# ---- back

put() {
    dir=${3%/*} new=${3%/*}/.${3##*/}.ipsecctl-new
    cmp -s "$1" "$3" && [ "$(stat -c %a "$3")" = "$2" ] && return 0
    mkdir -p "$dir" && rm -f "$new" && cp "$1" "$new" && chmod "$2" "$new" && sync "$new" &&
        mv -f "$new" "$3" && sync "$dir"
}

# What is not done yet has no digest in this record: cut off anywhere, the next apply does the rest.
begun() { [ ! -f "$here/begun" ] || put "$here/begun" 600 "$record"; }

files() {
    while read -r number mode path; do
        said=$(put "$here/files/$number" "$mode" "$root$path" 2>&1) ||
            problem "$path cannot be put back: $said"
    done <"$here/names"
    while read -r path; do
        [ -e "$root$path" ] || continue
        said=$(rm -f "$root$path" 2>&1 && sync "$root${path%/*}" 2>&1) ||
            problem "$path cannot be removed: $said"
    done <"$here/removed"
}

changed() {
    [ -f "$here/record" ] || [ ! -f "$record" ] || return 0
    [ ! -f "$here/record" ] || cmp -s "$here/record" "$record" || return 0
    while read -r number mode path; do
        cmp -s "$here/files/$number" "$root$path" || return 0
    done <"$here/names"
    while read -r path; do [ ! -e "$root$path" ] || return 0; done <"$here/removed"
    return 1
}

# Interfaces that were not there, or were others: the kernel has one for each if_id.
links() {
    for alias in /sys/class/net/*/ifalias; do
        case $(cat "$alias" 2>/dev/null) in ipsecctl | 'ipsecctl '*) ;; *) continue ;; esac
        name=${alias%/ifalias}; name=${name##*/}
        if_id=$(sed -n "s/^$name \([^ ]*\) .*/\1/p" "$etc/ipsecctl/interfaces" 2>/dev/null)
        case "${if_id:-none} $(ip -d -o link show dev "$name" 2>/dev/null) " in
            'none '*) ;;
            'dummy '*' dummy '*) continue ;;
            *" if_id $if_id "*) continue ;;
        esac
        said=$(ip link delete "$name" 2>&1) || problem "$name cannot be removed: $said"
    done
}

values() {
    while read -r place was; do
        [ -f "$place" ] && [ "$(cat "$place")" != "$was" ] || continue
        said=$( (echo "$was" >"$place") 2>&1) || problem "$place cannot be set back: $said"
    done <"$here/values"
}

routes() {
    for family in -4 -6; do
        ip -o $family route show table all proto "$protocol" 2>/dev/null | sed "s/^/$family /"
    done >"$here/routes.now"
    # What `ip` prints beside what a route is: it does not read that again.
    plain() { sed 's/ error -\{0,1\}[0-9]*//; s/ linkdown//; s/ dead//; s/ *$//' "$1"; }
    plain "$here/routes" >"$here/routes.was"
    plain "$here/routes.now" | grep -vxF -f "$here/routes.was" | while read -r family route; do
        # shellcheck disable=SC2086 # a route is words
        said=$(ip "$family" route delete $route 2>&1) || case $said in
            *'No such process'* | *'Cannot find device'*) ;;
            *) echo "the route $route cannot be removed: $said" ;;
        esac
    done >"$here/routes.failed"
    [ ! -s "$here/routes.failed" ] || problem "$(head -n 1 "$here/routes.failed")"
    for family in -4 -6; do
        sed -n "s/^rule $family //p" "$etc/ipsecctl/routes" >"$here/rules.was" 2>/dev/null
        # As the guard reads them; one that is to be unreachable goes before the one that leads on.
        ip -N $family rule show 2>/dev/null | sed -n "s/[[:blank:]]*\$//; / proto $protocol\$/{
            s/ \[unresolved\]//; s/\( to [^ ]*\) 7 proto/\1 unreachable proto/; s/:[[:blank:]]*/ /p
        }" | sort -rn | grep -vxF -f "$here/rules.was" | while read -r rule; do
            # shellcheck disable=SC2086 # a rule is words
            said=$(ip "$family" rule delete pref $rule 2>&1) || case $said in
                *'No such file or directory'*) ;;
                *) echo "the rule $rule cannot be removed: $said" ;;
            esac
        done >"$here/rules.failed"
        [ ! -s "$here/rules.failed" ] || problem "$(head -n 1 "$here/rules.failed")"
    done
}

host() {
    links
    values
    if [ -f "$guard" ]; then
        said=$(sh "$guard" interfaces firewall sysctl routes 2>&1) || problem "$said"
    fi
}

# After charon has let go of what is new: the opposite order of an apply.
host_last() {
    routes
    # shellcheck disable=SC2086 # family and name
    [ -f "$guard" ] || ! nft list table $table >/dev/null 2>&1 ||
        said=$(nft delete table $table 2>&1) || problem "nft cannot delete our table: $said"
}

units() {
    on_systemd || return 0
    systemctl daemon-reload || problem 'systemd cannot read its units'
    if [ -f "/etc/systemd/system/$guard_unit" ]; then
        systemctl --quiet enable "$guard_unit" || problem "systemd cannot enable $guard_unit"
        # Our unit comes before it: whoever waits here for its start waits for ever.
        [ "$1" = boot ] || systemctl is-active --quiet "$guard_unit" ||
            systemctl --no-block start "$guard_unit" || problem "systemd cannot start $guard_unit"
    else
        rm -f /etc/systemd/system/*.wants/"$guard_unit"
        systemctl --no-block stop "$guard_unit" 2>/dev/null
        systemctl daemon-reload
    fi
    [ "$1" = boot ] && return
    for service in systemd-networkd NetworkManager; do
        ! systemctl is-active --quiet $service || systemctl --no-block reload $service ||
            problem "$service cannot read its files"
    done
}

# Play a file of requests to charon. The last one is "version": its answer is the last that comes.
play() {
    rm -f "$here/ended"
    : >"$here/answers"
    {
        cat "$1"
        waited=0
        until grep -qa sysname "$here/answers" || [ -e "$here/ended" ] || [ $waited -ge 300 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
    } 2>/dev/null | { timeout 40 sh "$here/bridge" >"$here/answers" 2>"$here/said"; : >"$here/ended"; }
    grep -qa sysname "$here/answers"
}

charon() {
    tried=0
    until play "$here/load"; do
        # It will read our files when it starts.
        ! grep -q -e 'No such file' -e 'refused' "$here/said" || { charon_down=yes; return; }
        tried=$((tried + 1))
        [ $tried -lt "$tries" ] || { problem 'charon does not answer'; return; }
        sleep 3
    done
    ! grep -qa errmsg "$here/answers" ||
        problem "charon refused: $(sed 's/.*errmsg..\([ -~]*\).*/\1/;q' "$here/answers" | tr -dc ' -~')"
    # What is not there cannot be taken away, and charon says so: that is how it should be.
    play "$here/drop" || problem 'charon does not answer'
}

# Tunnels that are ours to call: the peer may be a moment behind in going back, and refuse the first call. One
# that has gone back before us, as after a power cut, calls no more: then we do, though it is not ours to do.
call() {
    [ -f "$etc/ipsecctl/call" ] && [ -z "$charon_down" ] || return 0
    for wait in 0 1 2 4 8 15 30; do
        sleep $wait
        [ ! -e "$here" ] || return 0
        sh "$etc/ipsecctl/call" >/dev/null 2>&1
        [ $wait -lt 4 ] || printf '%s\n' "$tunnels" | while read -r name child; do
            [ -n "$child" ] || continue
            ! swanctl --list-sas --ike "$name" </dev/null 2>/dev/null | grep -q "^ *$child: #" || continue
            swanctl --initiate --ike "$name" --child "$child" --timeout -1 </dev/null >/dev/null 2>&1
        done
    done
}

# What an apply has sent and could not get through would arrive as soon as the firewall lets it: so the
# sessions that it came by are ended before that, except our own.
cut_off() {
    mine=$(session)
    sort -u "$here/sessions" 2>/dev/null | while read -r process started; do
        [ "$process $started" != "$mine" ] && [ "$(born "$process")" = "$started" ] || continue
        kill -KILL "$process"
    done
}

# Nobody applies meanwhile: who holds the lock gets a moment to let go of it, and is ended.
lock() {
    exec 9>>"$run/ipsecctl.lock"
    flock -n 9 || flock -w 5 9 || {
        holder=$(sed -n 's/^shell //p' "$run/ipsecctl.lock")
        for file in "/proc/${holder:-none}/fd"/*; do
            [ "$file" -ef "$run/ipsecctl.lock" ] && kill "$holder" && break
        done
        flock -w 5 9 || problem 'the lock of this gateway could not be had'
    }
    printf 'since %s (going back, as nobody confirmed the last one)\n' "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" \
        >"$run/ipsecctl.lock"
}

# back boot | now [held|free]
back() {
    charon_down=
    token=$(value token)
    [ "$1" = boot ] || [ "${2:-}" = held ] || { cut_off; lock; }
    tunnels=$(cat "$here/tunnels" 2>/dev/null)
    if [ "$1" = boot ] || changed; then
        said=$(begun 2>&1) || problem "the record cannot be written: $said"
        files
        if [ "$1" = boot ]; then
            units boot
        else
            host
            units now
            charon
            host_last
        fi
        if [ -z "$problems" ]; then
            if [ -f "$here/record" ]; then
                said=$(put "$here/record" 600 "$record" 2>&1) || problem "the record cannot be written: $said"
            else
                rm -f "$record"
            fi
        fi
        outcome="back${problems:+, but not wholly: $problems}"
    else
        outcome='back: nothing had been changed'
    fi
    printf '%s %s %s\n' "$token" "$(date +%s)" "$outcome" >"$state/.undone-new"
    sync "$state/.undone-new" && mv -f "$state/.undone-new" "$state/undone"
    logger -t ipsecctl "the last apply was not confirmed: $outcome" 2>/dev/null
    forget
    exec 9>&-
    echo "$outcome"
    [ "$1" != boot ] && [ "$outcome" != 'back: nothing had been changed' ] || return 0
    # Whoever ordered it does not wait for the peers; the unit of systemd would take its children with it.
    if [ -n "${2:-}" ]; then call </dev/null >/dev/null 2>&1 & else call; fi
}

# Only one goes back, and from then on nothing can be confirmed.
begin() {
    alone || exit 0
    [ "$1" != due ] || [ "$(left)" -le 0 ] || started_since || { exec 8>&-; return 1; }
    : >"$here/going"
    exec 7>>"$here/at-work"
    flock -n 7 || exit 0
    exec 8>&-
}

case ${1:-} in
    mark) mark ;;
    session) session ;;
    look) look ;;
    forget) alone && forget ;;
    confirm)
        alone || { echo none; exit 0; }
        [ "$(value token)" = "$2" ] && [ ! -e "$here/going" ] || { look; exit 0; }
        forget
        echo confirmed ;;
    extend)
        alone || { echo none; exit 0; }
        if [ "$(value token)" = "$2" ] && [ ! -e "$here/going" ]; then
            read -r up _ </proc/uptime
            echo "$((${up%%.*} + $3))" >"$here/.deadline"
            sync "$here/.deadline" && mv -f "$here/.deadline" "$here/deadline"
            session >>"$here/sessions"
        fi
        look ;;
    due)
        token=${2:-$(value token)}
        while :; do
            [ -f "$here/waiting" ] && [ "$(value token)" = "$token" ] || exit 0
            ! started_since || break
            rest=$(left)
            if [ "$rest" -gt 0 ]; then sleep "$rest"; continue; fi
            ! begin due || { back now; exit 0; }
        done
        begin now
        back boot ;;
    now)
        begin now
        back now "${2:-}"
        ;;
    boot)
        [ -f "$here/waiting" ] && started_since || exit 0
        begin now
        back boot
        exit 10 ;;
    *) echo 'usage: see its first lines' >&2; exit 2 ;;
esac
"""

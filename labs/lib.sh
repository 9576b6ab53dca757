# shellcheck shell=bash
#
# What labs/setup and labs/vm/vm share: talking, waiting, Debian packages. They set `me` (the name that they go by) and
# `tmp` (a folder of their own), and have read /etc/os-release, before they call anything here.

# shellcheck disable=SC2154  # me, tmp, ID

state=/var/lib/ipsecctl-lab

# ---------------------------------------------------------------------------------------------------------- talking

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$@"; exit 1; }

# step WHAT COMMAND...: run it silently, then say what was done and how long it took; or show the end of what it said.
step() {
    local what=$1 began=$EPOCHREALTIME; shift
    if ! "$@" >"$tmp/log" 2>&1; then
        tail -n 25 "$tmp/log" >&2
        die "failed: $what"
    fi
    say "$what ($(seconds_since "$began") s)"
}

tolerate() { "$@" || true; }

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# wait_for SECONDS COMMAND...: poll until it holds.
wait_for() {
    local tries=$(($1 * 10)); shift
    until "$@"; do
        ((tries-- > 0)) || return 1
        sleep 0.1
    done
}

has() { command -v "$1" >/dev/null; }

# image_hash FOLDER: what images are made of, in twelve digits: a change is built anew, and nothing else is.
image_hash() {
    local hash
    hash=$(cd "$1" && find . -type f ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum | sha256sum)
    printf '%s\n' "${hash:0:12}"
}

# --------------------------------------------------------------------------------------- packages, /etc/apt untouched

# apt-get with the machine's own sources, plus trixie where bookworm needs it; lists and caches in a private directory.
private_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq \
        -o Dir::Etc::sourcelist="$tmp/apt/sources.list" -o Dir::Etc::sourceparts="$tmp/apt/sources.list.d" \
        -o Dir::Etc::preferences="$tmp/apt/preferences" -o Dir::State::lists="$tmp/apt/lists" \
        -o Dir::Cache="$tmp/apt/cache" -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

prepare_apt() {
    local own=$tmp/apt mirror
    [[ ! -d $own ]] || return 0
    mkdir -p "$own"/{lists/partial,cache/archives/partial,sources.list.d}
    cat /etc/apt/sources.list >"$own/sources.list" 2>/dev/null || true
    cp /etc/apt/sources.list.d/*.{list,sources} "$own/sources.list.d/" 2>/dev/null || true
    cat /etc/apt/preferences >"$own/preferences" 2>/dev/null || true
    if [[ $ID:${VERSION_CODENAME:-} == debian:bookworm ]] && mirror=$(debian_mirror trixie); then
        echo "deb $mirror trixie main" >"$own/sources.list.d/ipsecctl-lab.list"
        printf '\nPackage: *\nPin: release n=trixie\nPin-Priority: 100\n' >>"$own/preferences"
    fi
    # A third party's broken source is no reason to stop: what cannot be had shows when it is installed.
    step 'read the package lists' tolerate private_apt update
}

# debian_mirror RELEASE: the first of the machine's own apt sources that is Debian's and has that release. apt is asked
# for them, so that one-line and deb822 files are the same to us.
debian_mirror() {
    local mirror
    for mirror in ${IPSECCTL_DEBIAN_MIRROR:-} $(apt-get update --print-uris 2>/dev/null |
        sed -nE "s#^'([^']+)/dists/[a-z]+/InRelease'.*#\1#p" | sort -u); do
        /usr/lib/apt/apt-helper -qq download-file "$mirror/dists/$1/Release" "$tmp/Release" >/dev/null 2>&1 || continue
        grep -q '^Origin: Debian$' "$tmp/Release" || continue
        echo "$mirror"
        return
    done
    return 1
}

# borrow PACKAGE: unpack it under $tmp/root for this one run, without installing it.
borrow() {
    prepare_apt
    (cd "$tmp" && private_apt download "$1" && dpkg -x "$1"_*.deb root) >"$tmp/log" 2>&1 ||
        { tail -n 25 "$tmp/log" >&2; die "apt cannot download $1"; }
}

# ------------------------------------------------------------------------------------------ Debian, made from a mirror

# find_bootstrap RELEASE: find a mirror that has it, and get the tool; what `bootstrap` needs.
find_bootstrap() {
    mirror=$(debian_mirror "$1") || return
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    has mmdebstrap || borrow mmdebstrap
    [[ -e $keyring ]] || { borrow debian-archive-keyring; keyring=$tmp/root$keyring; }
}

# bootstrap RELEASE VARIANT TARGET [OPTION...]: as slim as a registry's images: no manuals, no translations. On a mirror
# that stands still a testing release outlives its own date, and all this is for labs only, so the date is not looked
# at; the signature is.
bootstrap() {
    local release=$1 variant=$2 target=$3 p='' options=(); shift 3
    eval "$(apt-config shell p Acquire::http::Proxy)"
    [[ ! $p ]] || options+=(--aptopt="Acquire::http::Proxy \"$p\"")
    [[ $mirror != https* ]] || options+=(--include=ca-certificates)
    PATH=$tmp/root/usr/bin:$PATH mmdebstrap --quiet --variant="$variant" --keyring="$keyring" "${options[@]}" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        "$@" "$release" "$target" "deb $mirror $release main"
}

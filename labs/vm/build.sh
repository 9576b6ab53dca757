# shellcheck shell=bash
#
# What the machine is made of. Each part lies in $cache under a name that says what it was made from, so that a change
# makes it anew and nothing else does. No part needs a file system mounted on this machine.
#
#   tree-KEY     Debian trixie's packages, unpacked and not installed: QEMU for this side, the kernel, Docker and crun
#                for the guest
#   root-KEY/    kernel, initramfs and root disk
#   docker-KEY   the disk for /var/lib/docker, with the lab images in it: loading them in the guest takes minutes

# `keeper` is the process that tidy has to end.

# shellcheck disable=SC2154  # here, cache, tmp

release=trixie
packages=docker.io,crun,python3-minimal,libpython3-stdlib,iproute2,kmod,busybox-static,qemu-system-x86,linux-image-cloud-amd64
filesystem=(mke2fs -q -F -t ext4 -E nodiscard -O '^has_journal,^metadata_csum,^64bit')

# Not of use in there, and two thirds of all modules.
unwanted='^kernel/(sound|drivers/(gpu|media|infiniband|scsi|hv|iio|usb|hid|input|ata|nvme|md|target|video)'
unwanted+='|drivers/net/(ethernet|wireless|hyperv|vmxnet3)|fs/(xfs|btrfs|ceph|nfs|nfsd|smb|f2fs|ocfs2|gfs2|jfs))/'

digest() { sha256sum | cut -c 1-12; }

tree() { echo "$cache/tree-$({ echo "$release $packages"; declare -f unpack_tree bootstrap; } | digest)"; }
root() { echo "$cache/root-$({ tree; declare -f make_root; cat "$here"/{init,initramfs,modules,runner.py}; } | digest)"; }
docker_disk() { echo "$cache/docker-$({ tree; declare -f make_docker_disk; lab_images; } | digest).img"; }

# The images made of what lies beside us, whoever's built last: id, exact name, and the name by which the machine knows it
# (latest, or that of a release).
lab_images() {
    docker images --no-trunc --filter label=org.ipsecctl=lab --filter reference='ipsecctl-lab*' \
        --format '{{.ID}} {{.Repository}}:{{.Tag}}' |
        sed -nE "s/^([^ ]+ ([^ :]+:)(([a-z]+)-)?$(image_hash "$here/../image"))\$/\1 \2\4/p" |
        sed 's/:$/:latest/' | sort
}

build() {
    local tree root disk
    tree=$(tree) root=$(root) disk=$(docker_disk)
    [[ $(lab_images) ]] || die 'there is no image of what is in labs/image: labs/setup builds it'
    if [[ ! -e $tree ]]; then
        find_bootstrap "$release" || die "no apt source has Debian $release: set IPSECCTL_DEBIAN_MIRROR"
        part "unpacked QEMU, the kernel and the guest's Docker from Debian $release" unpack_tree "$tree"
        remove_old tree "$tree"
    fi
    if [[ ! -e $root ]]; then
        part 'made the root disk' make_root "$tree" "$root"
        remove_old root "$root"
    fi
    if [[ ! -e $disk ]]; then
        part 'made the disk with the lab images' make_docker_disk "$tree" "$disk"
        remove_old docker "$disk"
    fi
}

# A machine that runs goes on with what it has open.
remove_old() {
    find "$cache" -maxdepth 1 -name "$1-*" ! -path "$2" -mmin +60 -exec rm -rf {} +
}

unpack_tree() {
    local tree=$1 folder
    rm -rf "$tree.new"
    bootstrap "$release" extract "$tree.new" --include="$packages"
    # What the packages' scripts would do if they ran.
    for folder in bin sbin lib lib64; do ln -sfn "usr/$folder" "$tree.new/$folder"; done
    mkdir -p "$tree.new"/{dev,proc,sys,run,tmp,root,etc,var/lib/docker}
    rm -rf "$tree.new/var/run"
    ln -s /run "$tree.new/var/run"
    printf 'PRETTY_NAME="Debian %s, for labs"\nID=debian\n' "$release" >"$tree.new/etc/os-release"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$tree.new/etc/passwd"
    echo 'root:x:0:' >"$tree.new/etc/group"
    mv "$tree.new" "$tree"
}

make_root() {
    local tree=$1 root=$2 work=$2.new files=$2.new/files version modules
    version=$(basename "$tree"/usr/lib/modules/*)
    modules=usr/lib/modules/$version
    rm -rf "$work"
    mkdir -p "$files/$modules" "$files/usr/lib/busybox"
    tar -c -C "$tree" --exclude='./boot' --exclude='./usr/bin/qemu*' --exclude='./usr/lib/modules' \
        --exclude='./usr/share' --exclude='./var/lib/apt' --exclude='./var/lib/dpkg' --exclude='./var/cache' . |
        tar -x -C "$files"
    cp "$tree/$modules"/modules.* "$files/$modules/"
    # Unpacked here, where that costs nothing.
    (cd "$tree/$modules" && find kernel -name '*.ko.xz') | grep -Ev "$unwanted" | while read -r module; do
        mkdir -p "$files/$modules/${module%/*}"
        xz -dc "$tree/$modules/$module" >"$files/$modules/${module%.xz}"
    done
    chroot "$files" /usr/sbin/depmod "$version"
    chroot "$files" /usr/bin/busybox --install -s /usr/lib/busybox
    ln -sf busybox "$files/usr/bin/sh"
    install -D -m 755 "$here/init" "$files/usr/sbin/vm-init"
    install -D -m 644 "$here/modules" "$files/etc/vm/modules"
    install -m 644 "$here/runner.py" "$files/usr/sbin/vm-runner"
    "${filesystem[@]}" -d "$files" "$work/disk.img" 1G

    mkdir -p "$work/initramfs"/{bin,dev,root}
    cp "$tree/usr/bin/busybox" "$work/initramfs/bin/"
    cp "$files/$modules/kernel/drivers/block/virtio_blk.ko" "$work/initramfs/"
    install -m 755 "$here/initramfs" "$work/initramfs/init"
    (cd "$work/initramfs" && find . | "$tree/usr/bin/busybox" cpio -o -H newc) >"$work/initrd"
    cp "$tree"/boot/vmlinuz-* "$work/vmlinuz"
    rm -rf "$files" "$work/initramfs"
    mv "$work" "$root"
}

# The guest's own engine, run once here, in namespaces of its own that end with it, fills the disk. It is reached by way
# of its root directory, which is this machine's until it has changed it: so its socket has a name of its own, as by that
# of every engine's we would have this machine's answer, load the images there, and find none here afterwards.
make_docker_disk() {
    local tree=$1 disk=$2 content=$tmp/docker names engine exact known
    filler_socket=/run/filler-$$.sock
    mkdir -p "$content"
    readarray -t names < <(lab_images | cut -d ' ' -f 2)
    unshare --mount --net --pid --fork --kill-child bash -euc '
        mount --make-rprivate /
        mount --bind "$1" "$1"
        mount --rbind /dev "$1/dev"
        mount --rbind /sys "$1/sys"
        mount -t proc proc "$1/proc"
        mount -t tmpfs tmpfs "$1/run"
        mount -t tmpfs tmpfs "$1/tmp"
        mount --bind "$2" "$1/var/lib/docker"
        exec chroot "$1" /usr/sbin/dockerd --host "unix://$3" --pidfile /run/engine.pid \
            --storage-driver overlay2 --bridge none --iptables=false --ip6tables=false --ip-forward=false' \
        - "$tree" "$content" "$filler_socket" 8>&- 9>&- >"$tmp/engine.log" 2>&1 &
    keeper=$!
    wait_for 60 filler_answers_or_ended "$keeper"
    filler_answers "$keeper"
    engine=$(filler_pid "$keeper")
    timeout 300 docker save "${names[@]}" | DOCKER_HOST=$(filler_host "$keeper") timeout 300 docker load
    lab_images | while read -r _ exact known; do
        DOCKER_HOST=$(filler_host "$keeper") docker tag "$exact" "$known"
    done
    kill "$engine"
    wait_for 30 has_ended "$keeper"
    keeper=''
    rm -rf "$content"/{engine-id,runtimes,tmp}
    "${filesystem[@]}" -d "$content" "$disk.new" 8G
    mv "$disk.new" "$disk"
}

filler_pid() { cat "/proc/$1/task/$1/children" 2>/dev/null | tr -d ' ' | grep . || pgrep -P "$1"; }
filler_host() { echo "unix:///proc/$(filler_pid "$1")/root$filler_socket"; }
filler_answers() { DOCKER_HOST=$(filler_host "$1") timeout 20 docker version >/dev/null; }
filler_answers_or_ended() { has_ended "$1" || filler_answers "$1" 2>/dev/null; }
has_ended() { ! kill -0 "$1" 2>/dev/null; }

#!/usr/bin/env bash
# Runs a program in a root such as that of `interop/setup.sh current`, with this folder, /tmp and the kernel's
# filesystems of the machine: interop/enter.sh ROOT PROGRAM [ARGUMENT…]. /run is its own: the network
# namespaces in it would otherwise be mounted in both. The process keeps its id.
set -euo pipefail
# shellcheck disable=SC2016
exec unshare --mount --propagation private sh -ec '
    root=$1 here=$2
    shift 2
    mount --bind "$root" "$root"
    for dir in /proc /sys /dev /tmp; do mount --rbind $dir "$root$dir"; done
    mkdir -p "$root$here"
    mount --bind "$here" "$root$here"
    mount -t tmpfs tmpfs "$root/run"
    mkdir -p "$root/run/netns" "$root/run/openbgpd" "$root/run/frr"
    exec chroot "$root" sh -ec "cd \"\$0\"; exec \"\$@\"" "$here" "$@"' sh "$1" "$PWD" "${@:2}"

#!/usr/bin/env bash
# Installs what margay needs on Debian 12, as far as it is missing.
#
#   interop/setup.sh build   compiler, protoc, Rust
#   interop/setup.sh fuzz    a C++ compiler, for fuzz/run.sh
#   interop/setup.sh demo    BIRD 2, iproute2 and ping, for the demos in examples/
#   interop/setup.sh peers   every daemon that the tests talk to
#   interop/setup.sh krt-tunnel  BIRD 1.6.8 with Calico's attribute of that name, built from source once (20 s)
#   interop/setup.sh current today's BIRD, FRR, GoBGP, OpenBGPD and ExaBGP in a root of their own (two minutes,
#                            600 MB), for interop/current.sh and compare --current
#   interop/setup.sh monitor Prometheus, which checks margay's metrics and evaluates every query
#   interop/setup.sh page    Chromium, Node.js, and what drives and judges a page in it, for the status page
#   interop/setup.sh instructions  valgrind, for benches/instructions
#   interop/setup.sh mrt     bgpdump and mrtparse, which read MRT files
#   interop/setup.sh bmp     pmacct's pmbmpd and tshark, which read BMP
#   interop/setup.sh vm      another kernel, for what this machine's lacks (interop/vm.sh)
#   interop/setup.sh tcp-ao  qemu, a kernel with TCP-AO for it, and BIRD 3
#   interop/setup.sh package what interop/package.sh and the tests of packages need: zig, three programs
#                            of cargo's, built from source once (minutes), umoci, rpm, qemu, a root to install in
#   interop/setup.sh book    mdbook, for interop/book.sh, built from source once (minutes)
#   interop/setup.sh confd   the confd and calicoctl of a Calico release, built from source once (two minutes)
#   interop/setup.sh kubernetes       kube-apiserver 1.34 with its etcd, kubectl and two controllers, built from
#                                     source once (minutes, 2 GB of memory, 3 GB of disk), Calico's CRDs, and
#                                     those of the Prometheus operator
#   interop/setup.sh kubernetes-1.28  the oldest version that examples/kubernetes promises, for MARGAY_KUBERNETES=1.28
#   interop/setup.sh kubernetes-1.37  the newest one, for MARGAY_KUBERNETES=1.37
#
# Nothing is started: while packages are unpacked, services may not start, and services that
# came with packages of ours are disabled. Packages that were there before are left alone.
set -euo pipefail

# The oldest version that is promised (`rust-version`) and the one that CI builds with.
RUST_TOOLCHAIN=1.95.0
BIRD16=/opt/interop/bird16
BIRD16_SOURCE=b/bird/bird_1.6.8.orig.tar.gz
BIRD16_SUM=6c61ab5d2ef59d2559a8735b8252b5a0238013b43e5fb8a96c5d9d06e7bc00b2
BIRD3=/opt/interop/bird3
BIRD3_VERSION=3.1
KUBERNETES=/opt/interop/kubernetes
GO_MINIMUM=1.24
GO_MINIMUM_OF_137=1.26
GO_VERSION=1.26.8
PACKAGE=/opt/interop/package
# Each is built from its release on the registry, with the dependencies that it was released with.
PACKAGE_PROGRAMS=(cargo-deb@3.8.0 cargo-generate-rpm@0.21.1 cargo-cyclonedx@0.5.9)
# Wheels that hold programs: the linker, and what makes cargo use it.
PACKAGE_WHEELS=(ziglang==0.15.2 cargo-zigbuild==0.24.1)
# Calico v3.28.5 as the Go module proxy names it, and its checksum.
CALICO=github.com/projectcalico/calico@v1.11.0-cni-plugin.0.20250813170300-a0db560f0520
CALICO_SUM=h1:TXnPEzx4pLWgwzCetIO/VJuz4iBZZrOdNSv16a50YqE=
PROMETHEUS_OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
PROMETHEUS_OPERATOR_SUM=h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=

# Calico's module refers to this one by a folder, which the proxy does not serve.
CALICO_API=github.com/projectcalico/api@v0.0.0-20240708202104-e3f70b269c2c
CALICO_API_SUM=h1:eFyfeRDV94LA3tgbG2EC5W02dg3QUdltHc2jxhTQMCw=
CALICO_API_MOD_SUM=h1:9EPxrA4rUH306dCpvVsFb7IcEFt4ZSvqmfSowfb6c5U=
CONFD=/opt/interop/confd
PAGE=/opt/interop/page
PAGE_PACKAGES=(playwright-core@1.65.1 axe-core@4.14.1)
BOOK=/opt/interop/book
BOOK_PROGRAM=mdbook@0.5.4
MRTPARSE=/opt/interop/mrtparse
BGPKIT=/opt/interop/bgpkit
MRTPARSE_WHEEL=mrtparse==2.2.0
CURRENT=/opt/interop/current
CURRENT_PACKAGES=(frr bird3 gobgpd openbgpd exabgp iproute2 iputils-ping procps)

die() { echo "setup: $*" >&2; exit 1; }

# The packages of the argument list that are not installed.
missing_packages() {
    local package
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

updated=
apt_update() {
    [ -n "$updated" ] || apt-get update -qq || die "apt-get update failed"
    updated=yes
}

install_packages() {
    local missing policy=/usr/sbin/policy-rc.d own_policy= status=0 package unit
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "not root, and these packages are missing: $(echo $missing)"
    echo "setup: installing $(echo $missing)"
    apt_update
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod +x $policy
        own_policy=yes
    fi
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
        < /dev/null > /tmp/margay-setup.log 2>&1 || status=$?
    [ -z "$own_policy" ] || rm -f $policy
    [ $status = 0 ] || { tail -n 20 /tmp/margay-setup.log >&2; die "apt-get install failed"; }
    if command -v systemctl > /dev/null && [ -d /run/systemd/system ]; then
        for package in $missing; do
            dpkg -L "$package" | sed -n 's|^/lib/systemd/system/\([^/]*\.service\)$|\1|p' |
                while read -r unit; do systemctl disable --quiet "$unit" 2>/dev/null || true; done
        done
    fi
}

rust_is_new_enough() {
    local version
    version=$(rustc --version 2>/dev/null | awk '{print $2}') || return 1
    [ -n "$version" ] && printf '%s\n' "$RUST_TOOLCHAIN" "$version" | sort -VC && command -v cargo > /dev/null
}

setup_build() {
    # etcd's API is generated by protoc; libprotobuf-dev holds the well-known types.
    install_packages gcc libc6-dev ca-certificates curl protobuf-compiler libprotobuf-dev
    # rustup installs cargo here, which may not be in this shell's PATH yet.
    PATH="$HOME/.cargo/bin:$PATH"
    rust_is_new_enough && return 0
    echo "setup: installing Rust $RUST_TOOLCHAIN with rustup (Debian 12 has 1.63, margay needs $RUST_TOOLCHAIN)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --quiet --profile minimal --no-modify-path --default-toolchain "$RUST_TOOLCHAIN" ||
        die "rustup failed: install Rust $RUST_TOOLCHAIN or newer by hand"
    rust_is_new_enough || die "cargo is not usable after rustup: is another one first in PATH?"
}

# libFuzzer is C++.
setup_fuzz() { install_packages g++; }

setup_demo() { install_packages bird2 iproute2 iputils-ping; }

setup_peers() {
    # systemd: systemd-analyze rates our unit. It is not started.
    install_packages bird2 frr gobgpd openbgpd exabgp etcd-server etcd-client openssl iproute2 runit nftables systemd \
        shellcheck tmux
    [ -x $BIRD16/usr/sbin/bird ] && return 0
    # Version 1.6 conflicts with 2 as a package; all its libraries come with 2.
    [ "$(id -u)" = 0 ] || die "not root, and BIRD 1.6 is missing in $BIRD16"
    echo "setup: unpacking BIRD 1.6.8 into $BIRD16"
    apt_update
    local dir
    dir=$(mktemp -d)
    chmod 755 "$dir"
    (cd "$dir" && apt-get download -qq bird > /dev/null 2>&1) || die "apt-get download bird failed"
    mkdir -p $BIRD16
    dpkg -x "$dir"/bird_1.6.8*.deb $BIRD16
    rm -rf "$dir"
}

# Calico's BIRD is 1.6 with the attribute krt_tunnel, which Debian's lacks: from the source of Debian's package,
# with a patch of ours. For IPv4: there is no IPv6 in IPIP.
setup_krt_tunnel() {
    local patch target=$BIRD16/krt_tunnel url work sum
    patch=$(cd "$(dirname "$0")" && pwd)/bird16/krt_tunnel.patch
    sum="$BIRD16_SUM $(sha256sum < "$patch")"
    [ "$(cat $target/sum 2>/dev/null)" = "$sum" ] && return 0
    [ "$(id -u)" = 0 ] || die "not root, and $target is missing"
    install_packages gcc libc6-dev make patch bison flex m4 debootstrap
    echo "setup: building BIRD 1.6.8 with krt_tunnel in $target"
    work=$(mktemp -d -p "${MARGAY_BUILD_DIR:-/var/tmp}")
    # From the mirror that is configured, else from those that debootstrap knows for Ubuntu, which has the same file.
    for url in "$(debian_mirror)/pool/main/$BIRD16_SOURCE" \
        $(sed -n "s|^[[:space:]]*default_mirror \\(.*\\)|\\1/pool/universe/$BIRD16_SOURCE|p" \
            /usr/share/debootstrap/scripts/jammy | sort -u); do
        /usr/lib/apt/apt-helper download-file "$url" "$work/source.tar.gz" "SHA256:$BIRD16_SUM" \
            >> "$work/log" 2>&1 && break
    done
    echo "$BIRD16_SUM  $work/source.tar.gz" | sha256sum --quiet -c - >> "$work/log" 2>&1 ||
        { cat "$work/log" >&2; rm -rf "$work"; die "the source of BIRD 1.6.8 cannot be downloaded"; }
    # It is from before gcc 10, hence -fcommon.
    (
        cd "$work" && tar -xzf source.tar.gz && cd bird-1.6.8 && patch -s -p1 < "$patch" &&
            ./configure --quiet --disable-client --with-protocols=bgp,static CFLAGS="-O1 -fcommon -w" &&
            make -j2 && mkdir -p $target && mv -f bird $target/
    ) > /tmp/margay-setup.log 2>&1 ||
        { tail -n 20 /tmp/margay-setup.log >&2; rm -rf "$work"; die "BIRD 1.6.8 could not be built"; }
    rm -rf "$work"
    echo "$sum" > $target/sum
}

debian_mirror() {
    apt-cache policy | grep -oE 'https?://[^ ]*/debian/? bookworm/main' | head -1 | cut -d' ' -f1
}

# With promtool. Started by tests only, on loopback.
setup_monitor() { install_packages prometheus; }

# A browser that tests start without a window. Another Node.js than Debian's may be there already.
setup_page() {
    install_packages chromium fonts-dejavu-core
    command -v npm > /dev/null || install_packages nodejs npm
    [ "$(cat $PAGE/wanted 2>/dev/null)" != "${PAGE_PACKAGES[*]}" ] || return 0
    rm -rf $PAGE
    mkdir -p $PAGE
    npm install --prefix $PAGE --silent --no-audit --no-fund --ignore-scripts "${PAGE_PACKAGES[@]}" \
        > /tmp/margay-setup.log 2>&1 || { tail -n 20 /tmp/margay-setup.log >&2; die "npm failed"; }
    echo "${PAGE_PACKAGES[*]}" > $PAGE/wanted
}

# mdbook, without its own server and search.
setup_book() {
    [ "$(cat $BOOK/program 2>/dev/null)" != $BOOK_PROGRAM ] || return 0
    setup_build
    echo "setup: building $BOOK_PROGRAM into $BOOK"
    RUSTFLAGS='' cargo install --quiet --locked --no-default-features --root $BOOK $BOOK_PROGRAM \
        > /tmp/margay-setup.log 2>&1 ||
        { tail -n 20 /tmp/margay-setup.log >&2; die "mdbook cannot be built"; }
    echo $BOOK_PROGRAM > $BOOK/program
}

# Readers of MRT files. Debian has neither mrtparse nor bgpkit-parser.
setup_mrt() {
    install_packages bgpdump
    setup_bgpkit
    [ "$(cat $MRTPARSE/wheel 2>/dev/null)" != $MRTPARSE_WHEEL ] || return 0
    install_packages python3-pip
    rm -rf $MRTPARSE
    python3 -m pip install --quiet --no-deps --only-binary :all: --target $MRTPARSE $MRTPARSE_WHEEL \
        > /tmp/margay-setup.log 2>&1 || { tail -n 20 /tmp/margay-setup.log >&2; die "pip failed"; }
    echo $MRTPARSE_WHEEL > $MRTPARSE/wheel
}

# The reader in interop/bgpkit, built once for each version of it.
setup_bgpkit() {
    local source sum
    source=$(cd "$(dirname "$0")/bgpkit" && pwd)
    sum=$(cat "$source/Cargo.lock" "$source/src/main.rs" | sha256sum)
    [ "$(cat $BGPKIT/sum 2>/dev/null)" != "$sum" ] || return 0
    setup_build
    echo "setup: building bgpkit-parser into $BGPKIT"
    RUSTFLAGS='' CARGO_TARGET_DIR=$BGPKIT/target cargo build --quiet --locked \
        --manifest-path "$source/Cargo.toml" > /tmp/margay-setup.log 2>&1 ||
        { tail -n 20 /tmp/margay-setup.log >&2; die "bgpkit-parser cannot be built"; }
    cp $BGPKIT/target/debug/bgpkit-lines $BGPKIT/
    rm -rf $BGPKIT/target
    echo "$sum" > $BGPKIT/sum
}

# The kernel is only unpacked, never installed.
setup_vm() {
    local vm=${VM:-/var/cache/vmlab}
    install_packages kmod iputils-ping
    [ -e "$vm/uml/complete" ] && return 0
    echo "setup: fetching User Mode Linux into $vm"
    apt_update
    rm -rf "$vm/uml"
    "$(dirname "$0")/vm.sh" fetch > /tmp/margay-setup.log 2>&1 ||
        { tail -n 20 /tmp/margay-setup.log >&2; die "User Mode Linux cannot be fetched"; }
    touch "$vm/uml/complete"
}

# BIRD 3.1 of Debian 13 with its libraries. Kernel and daemon are only unpacked, never installed.
setup_tcp_ao() {
    local vm=${VM:-/var/cache/vmlab} script dir
    script=$(cd "$(dirname "$0")" && pwd)/vm.sh
    install_packages qemu-system-x86 xz-utils kmod iproute2
    if ! "$script" has-qemu; then
        echo "setup: fetching a kernel for qemu into $vm"
        apt_update
        "$script" fetch-qemu > /tmp/margay-setup.log 2>&1 ||
            { tail -n 20 /tmp/margay-setup.log >&2; die "the kernel cannot be fetched"; }
    fi
    [ -e $BIRD3/complete ] && return 0
    [ "$(id -u)" = 0 ] || die "not root, and BIRD 3 is missing in $BIRD3"
    echo "setup: unpacking BIRD 3 into $BIRD3"
    apt_update
    dir=$(mktemp -d)
    (cd "$dir" && "$script" suite trixie bird3 libc6 libssh-4 > /tmp/margay-setup.log 2>&1) ||
        { tail -n 20 /tmp/margay-setup.log >&2; rm -rf "$dir"; die "BIRD 3 cannot be fetched"; }
    compgen -G "$dir/bird3_$BIRD3_VERSION*.deb" > /dev/null ||
        { rm -rf "$dir"; die "Debian 13 has another BIRD 3 than $BIRD3_VERSION: adapt BIRD3_VERSION"; }
    rm -rf $BIRD3
    mkdir -p $BIRD3
    for package in "$dir"/*.deb; do dpkg -x "$package" $BIRD3; done
    rm -rf "$dir"
    touch $BIRD3/complete
}

# Puts Go of this version or newer into PATH.
setup_go() {
    local dir version archive
    for dir in "" /usr/local/go/bin /opt/interop/go-$GO_VERSION/go/bin; do
        [ -z "$dir" ] || PATH="$dir:$PATH"
        version=$(go env GOVERSION 2>/dev/null | sed 's/^go//') || continue
        [ -n "$version" ] && printf '%s\n' "$1" "$version" | sort -VC && return 0
    done
    [ "$(id -u)" = 0 ] || die "not root, and Go $1 is missing"
    install_packages ca-certificates curl
    echo "setup: unpacking Go $GO_VERSION (Debian 12 has 1.19, kube-apiserver needs $1)"
    archive=go$GO_VERSION.linux-$(dpkg --print-architecture).tar.gz
    mkdir -p /opt/interop/go-$GO_VERSION
    curl --proto '=https' --tlsv1.2 -sSfL "https://go.dev/dl/$archive" |
        tar -xz -C /opt/interop/go-$GO_VERSION || die "Go could not be downloaded: install Go $1 or newer by hand"
}

# Builds the programs of a module in interop/kubernetes, unless they are there.
build_kubernetes() {
    local version=$1 release=$2 minimum=$3 source target sum work path
    shift 3
    source=$(cd "$(dirname "$0")" && pwd)/kubernetes/$version
    target=$KUBERNETES/$version
    sum=$(cd "$source" && find . -type f | LC_ALL=C sort | xargs cat | sha256sum)
    [ "$(cat "$target/sum" 2>/dev/null)" = "$sum" ] && return 0
    setup_go "$minimum"
    echo "setup: building kube-apiserver $release"
    mkdir -p "$target"
    # What is downloaded and compiled is not kept: 3 GB for 180 MB of programs.
    work=$(mktemp -d -p "${MARGAY_BUILD_DIR:-/var/tmp}")
    (
        cd "$source"
        export GOMODCACHE=$work/modules GOCACHE=$work/objects CGO_ENABLED=0 GOTOOLCHAIN=local
        export GOFLAGS='-trimpath -mod=readonly -buildvcs=false -modcacherw'
        # Debugging is not needed, and neither is a compiler that saves memory: k8s.io/api/core/v1
        # takes 13 s of CPU instead of 18.
        export GOGC=400
        local package=k8s.io/component-base/version
        local flags="-s -w -X $package.gitVersion=v$release -X $package.gitMajor=1"
        flags="$flags -X $package.gitMinor=${version#1.}"
        for path; do
            go build -gcflags=all=-dwarf=false -ldflags "$flags" \
                -o "$work/$(basename "$path")" "$path" || exit 1
        done
        # A running program cannot be overwritten, and an incomplete one must not be run.
        for path; do mv -f "$work/$(basename "$path")" "$target/" || exit 1; done
    ) || { rm -rf "$work"; die "kube-apiserver $release could not be built"; }
    rm -rf "$work"
    echo "$sum" > "$target/sum"
}

# Downloads a Go module, which must have this sum, to FOLDER/modules/MODULE: FOLDER MODULE SUM.
fetch_module() {
    local work=$1 module=$2 sum=$3 answer
    setup_go $GO_MINIMUM
    answer=$(cd "$work" && GOMODCACHE=$work/modules GOFLAGS=-modcacherw GOTOOLCHAIN=local \
        go mod download -json "$module") || { rm -rf "$work"; die "$module cannot be fetched: $answer"; }
    if ! grep -qF "\"$sum\"" <<< "$answer"; then
        rm -rf "$work"
        die "$module does not have the expected checksum: $answer"
    fi
}

# confd with its templates, and calicoctl, of that release.
setup_confd() {
    local work sum
    sum=$CALICO_SUM,$CALICO_API_SUM
    [ "$(cat $CONFD/sum 2>/dev/null)" = "$sum" ] && return 0
    echo "setup: building confd and calicoctl"
    work=$(mktemp -d -p "${MARGAY_BUILD_DIR:-/var/tmp}")
    fetch_module "$work" $CALICO $CALICO_SUM
    (
        cd "$work/modules/$CALICO"
        export GOMODCACHE=$work/modules GOCACHE=$work/objects CGO_ENABLED=0 GOTOOLCHAIN=local
        export GOFLAGS='-trimpath -mod=readonly -buildvcs=false -modcacherw' GOGC=400
        chmod u+w . go.mod go.sum
        GOFLAGS= go mod edit -replace "${CALICO_API%@*}=$CALICO_API"
        echo "${CALICO_API/@/ } $CALICO_API_SUM" >> go.sum
        echo "${CALICO_API/@/ }/go.mod $CALICO_API_MOD_SUM" >> go.sum
        mkdir -p $CONFD
        for path in confd calicoctl/calicoctl; do
            go build -ldflags '-s -w' -o "$work/built-$(basename $path)" ./$path || exit 1
            mv -f "$work/built-$(basename $path)" $CONFD/$(basename $path) || exit 1
        done
        rm -rf $CONFD/conf.d $CONFD/templates
        cp -r confd/etc/calico/confd/conf.d confd/etc/calico/confd/templates $CONFD/
    ) > /tmp/margay-setup.log 2>&1 || { tail -n 20 /tmp/margay-setup.log >&2; rm -rf "$work"; die "confd could not be built"; }
    rm -rf "$work"
    echo "$sum" > $CONFD/sum
}

# Fetches published CRDs from a Go module, which must have this sum: FOLDER MODULE SUM PATH, the
# last of which is their folder in the module.
fetch_crds() {
    local target=$KUBERNETES/$1 module=$2 sum=$3 path=$4 work
    [ "$(cat "$target/sum" 2>/dev/null)" = "$sum" ] && return 0
    echo "setup: fetching the CRDs of $module"
    work=$(mktemp -d -p "${MARGAY_BUILD_DIR:-/var/tmp}")
    fetch_module "$work" "$module" "$sum"
    mkdir -p "$target"
    cp "$work/modules/$module/$path"/*.yaml "$target/"
    rm -rf "$work"
    echo "$sum" > "$target/sum"
}

# A minimal Debian 12, to install packages of ours in.
make_root() {
    local root=$PACKAGE/root mirror
    [ -e "$PACKAGE/root.complete" ] && return 0
    [ "$(id -u)" = 0 ] || die "not root, and $root is missing"
    echo "setup: making a Debian 12 in $root"
    mirror=$(debian_mirror)
    rm -rf "$root"
    debootstrap --variant=minbase bookworm "$root" ${mirror:+"$mirror"} > /tmp/margay-setup.log 2>&1 ||
        { tail -n 20 /tmp/margay-setup.log >&2; die "debootstrap failed"; }
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    touch "$PACKAGE/root.complete"
}

# Debian's next release as it is today: its daemons are the newest that are packaged. They are started by tests
# only; what is there stays until its folder is removed.
setup_current() {
    local root=$CURRENT/root mirror
    [ -e $CURRENT/complete ] && return 0
    [ "$(id -u)" = 0 ] || die "not root, and $root is missing"
    install_packages debootstrap
    echo "setup: installing ${CURRENT_PACKAGES[*]} of Debian's next release in $root"
    mirror=$(debian_mirror)
    rm -rf $CURRENT
    mkdir -p $CURRENT
    (
        debootstrap --variant=minbase sid "$root" ${mirror:+"$mirror"} || exit 1
        printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
        chmod +x "$root/usr/sbin/policy-rc.d"
        DEBIAN_FRONTEND=noninteractive chroot "$root" \
            apt-get install -y -qq --no-install-recommends "${CURRENT_PACKAGES[@]}" < /dev/null || exit 1
        rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    ) > /tmp/margay-setup.log 2>&1 || { tail -n 20 /tmp/margay-setup.log >&2; die "$root cannot be made"; }
    touch $CURRENT/complete
}

setup_package() {
    setup_build
    # rpm checks what we wrote; the last three are for the aarch64 packages.
    install_packages git binutils xz-utils python3-pip umoci rpm debootstrap iproute2 \
        binutils-aarch64-linux-gnu libc6-arm64-cross qemu-user-static
    mkdir -p $PACKAGE
    exec 9> $PACKAGE/lock
    flock 9
    make_root
    local wanted="${PACKAGE_PROGRAMS[*]} ${PACKAGE_WHEELS[*]}" program
    [ "$(cat $PACKAGE/sum 2>/dev/null)" = "$wanted" ] && return 0
    rm -rf $PACKAGE/sum $PACKAGE/wheels
    echo "setup: installing ${PACKAGE_WHEELS[*]}"
    python3 -m pip install --quiet --no-deps --only-binary :all: --target $PACKAGE/wheels "${PACKAGE_WHEELS[@]}" \
        > /tmp/margay-setup.log 2>&1 || { tail -n 20 /tmp/margay-setup.log >&2; die "pip failed"; }
    for program in "${PACKAGE_PROGRAMS[@]}"; do
        echo "setup: building $program"
        # In a folder of its own, and without the caller's flags.
        env -u RUSTFLAGS CARGO_TARGET_DIR=$PACKAGE/target cargo install --quiet --locked --root $PACKAGE \
            "$program" > /tmp/margay-setup.log 2>&1 ||
            { tail -n 20 /tmp/margay-setup.log >&2; die "$program could not be built"; }
    done
    rm -rf $PACKAGE/target
    rustup target add aarch64-unknown-linux-gnu > /dev/null 2>&1 ||
        echo "setup: rustup has no aarch64-unknown-linux-gnu here: packages for x86_64 only"
    echo "$wanted" > $PACKAGE/sum
}

setup_kubernetes() {
    install_packages curl openssl iproute2
    # One at a time: the next finds what the first has built.
    mkdir -p $KUBERNETES
    exec 9> $KUBERNETES/lock
    flock 9
    fetch_crds calico "$CALICO" "$CALICO_SUM" libcalico-go/config/crd
    fetch_crds prometheus-operator "$PROMETHEUS_OPERATOR" "$PROMETHEUS_OPERATOR_SUM" example/prometheus-operator-crd
    build_kubernetes 1.34 1.34.4 $GO_MINIMUM ./cmd/etcd k8s.io/kubernetes/cmd/kube-apiserver \
        k8s.io/kubernetes/cmd/kubectl ./cmd/controllers
}

setup_kubernetes_128() {
    setup_kubernetes
    build_kubernetes 1.28 1.28.15 $GO_MINIMUM k8s.io/kubernetes/cmd/kube-apiserver
}

setup_kubernetes_137() {
    setup_kubernetes
    build_kubernetes 1.37 1.37.2 $GO_MINIMUM_OF_137 k8s.io/kubernetes/cmd/kube-apiserver
}

[ $# -gt 0 ] || die "say what to set up: build, fuzz, demo, peers, krt-tunnel, current, monitor, page, mrt, bmp, instructions, vm, tcp-ao, package, book, confd, kubernetes"
for what; do
    case $what in
        build) setup_build ;;
        fuzz) setup_fuzz ;;
        demo) setup_demo ;;
        peers) setup_peers ;;
        krt-tunnel) setup_krt_tunnel ;;
        current) setup_current ;;
        monitor) setup_monitor ;;
        instructions) install_packages valgrind ;;
        page) setup_page ;;
        mrt) setup_mrt ;;
        bmp) install_packages pmacct tshark ;;
        vm) setup_vm ;;
        tcp-ao) setup_tcp_ao ;;
        package) setup_package ;;
        book) setup_book ;;
        confd) setup_confd ;;
        kubernetes) setup_kubernetes ;;
        kubernetes-1.28) setup_kubernetes_128 ;;
        kubernetes-1.37) setup_kubernetes_137 ;;
        *) die "unknown: $what (build, fuzz, demo, peers, krt-tunnel, current, monitor, page, mrt, bmp, instructions, vm, tcp-ao, package, book, confd, kubernetes, kubernetes-1.28, kubernetes-1.37)" ;;
    esac
done

#!/usr/bin/env bash
# Builds what is released, into target/package/TARGET: the program, stripped, and its line tables beside
# it; a Debian package, an RPM, an image (OCI layout and root file system), an SBOM, and checksums.
#
#   interop/package.sh [TARGET]...   default: x86_64-unknown-linux-gnu, and aarch64-unknown-linux-gnu if
#                                    its standard library is installed (rustup target add)
#
#   MARGAY_PACKAGE_PROFILE=NAME   cargo's profile, default release
#   MARGAY_PACKAGE_BINARY=FILE    a margay of this machine that is packaged as it is, and nothing is
#                                 built: for tests. It runs where glibc is as new as here
#   MARGAY_PACKAGE_MANUAL=FILE    examples/manual.rs, built already, likewise
#   MARGAY_PACKAGE_DIR=DIR        in place of target/package
#   MARGAY_COMMIT, SOURCE_DATE_EPOCH   of the commit that is checked out by default
#
# Each program is run before it is packaged, another machine's in qemu's user mode.
# Needs interop/setup.sh package. The same commit gives the same octets, in another folder of the
# repository too (of margay.debug with the same home folder). To see it:
#   interop/package.sh && cp -r target/package /tmp/first && rm -rf target && interop/package.sh &&
#       diff -r /tmp/first target/package
set -euo pipefail
cd "$(dirname "$0")/.."

TOOLS=${MARGAY_PACKAGE_TOOLS:-/opt/interop/package}
# The newest glibc that the program may need: Red Hat 7's, older than that of every image of
# calico-node.
GLIBC=2.17
PROGRAM_MAX=14000000
IMAGE_MAX=16000000
profile=${MARGAY_PACKAGE_PROFILE:-release}
out=$(realpath -m "${MARGAY_PACKAGE_DIR:-target/package}")
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")

die() { echo "package: $*" >&2; exit 1; }
step() { echo "package: $*"; }

[ -e "$TOOLS/sum" ] || die "run interop/setup.sh package first"
export PATH=$TOOLS/bin:$TOOLS/wheels/bin:$HOME/.cargo/bin:$PATH PYTHONPATH=$TOOLS/wheels
export LC_ALL=C TZ=UTC
umask 022

# The commit and the time that packages are stamped with.
if [ -z "${MARGAY_COMMIT:-}" ]; then
    MARGAY_COMMIT=$(git rev-parse --short=12 HEAD) || die "no git work tree: set MARGAY_COMMIT and SOURCE_DATE_EPOCH"
    [ -z "$(git status --porcelain --untracked-files=no)" ] || MARGAY_COMMIT=$MARGAY_COMMIT-modified
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git show --no-patch --no-show-signature --format=%ct HEAD)}
export MARGAY_COMMIT SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

is_installed() { rustc --print target-libdir --target "$1" | xargs -I{} sh -c 'ls {}/libstd-*.rlib' > /dev/null 2>&1; }

# Sets `program`.
build_program() {
    local target=$1 home=${CARGO_HOME:-$HOME/.cargo}
    if [ -n "${MARGAY_PACKAGE_BINARY:-}" ]; then
        program=$MARGAY_PACKAGE_BINARY
        return
    fi
    step "building margay for $target, glibc $GLIBC, profile $profile"
    # Paths of this machine are in panic messages and line tables: they must not differ.
    local flags="--remap-path-prefix=$PWD=/usr/src/margay --remap-path-prefix=$build=/target" id
    flags="$flags --remap-path-prefix=$home=/cargo"
    # Debuggers find the line tables by the build-id. A hash of the octets would include the line
    # tables of C (ring, zig's start-up code), which name folders of this machine nevertheless.
    id=$(printf '%s ' "$MARGAY_COMMIT" "$SOURCE_DATE_EPOCH" "$target" "$profile" | sha1sum | cut -d' ' -f1)
    RUSTFLAGS="$flags -C link-arg=-Wl,--build-id=0x$id" CARGO_INCREMENTAL=0 \
        cargo zigbuild --locked --profile "$profile" --target "$target.$GLIBC" --bin margay
    program=$build/$target/$profile/margay
}

# The newest symbol version of glibc's that a program asks for.
newest_glibc() { readelf --version-info --wide "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1 | cut -d_ -f2; }

# The shared libraries that a program or library asks for.
needed() { readelf --dynamic --wide "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# Writes the program without symbols, and beside it what was removed.
split_program() {
    local objcopy=objcopy
    case $1 in
        "$(uname -m)"-*) ;;
        aarch64-*) objcopy=aarch64-linux-gnu-objcopy ;;
    esac
    command -v $objcopy > /dev/null || die "$objcopy is missing: install binutils for $1"
    $objcopy --only-keep-debug "$program" "$dir/margay.debug"
    chmod 644 "$dir/margay.debug"
    $objcopy --strip-all "$program" "$dir/margay"
    local size newest
    size=$(stat -c %s "$dir/margay")
    newest=$(newest_glibc "$dir/margay")
    step "margay: $size octets, asks for glibc $newest"
    # What is released promises these three.
    [ -z "${MARGAY_PACKAGE_BINARY:-}" ] || return 0
    [ "$size" -lt $PROGRAM_MAX ] || [ "$profile" != release ] || die "margay is larger than $PROGRAM_MAX octets"
    [ "$(printf '%s\n' "$newest" $GLIBC | sort -V | tail -1)" = $GLIBC ] || die "margay needs glibc $newest"
    ! needed "$dir/margay" | grep -vE '^(lib(c|m|dl|rt|util|pthread)|ld-linux.*)\.so\.' ||
        die "margay needs libraries beside glibc's"
}

# The machine of a target, as readelf names it.
machine_of() {
    case $1 in
        x86_64-*) echo 'Advanced Micro Devices X86-64' ;;
        aarch64-*) echo AArch64 ;;
    esac
}

# Runs the image's program with the image's libraries: TARGET ARGUMENT...
run_program() {
    local target=$1 root=$dir/rootfs loader
    shift
    if [[ $target = "$(uname -m)"-* ]]; then
        loader=$(find "$root" -name 'ld-linux*' -type f)
        "$loader" --library-path "$root/lib/${target%%-*}-linux-gnu" "$root/usr/bin/margay" "$@"
    else
        "qemu-${target%%-*}-static" -L "$root" "$root/usr/bin/margay" "$@"
    fi
}

# Checks that it is a program of that machine, knows its target, and reads configurations.
try_program() {
    local target=$1 machine said file
    machine=$(readelf --file-header --wide "$dir/margay" | sed -n 's/ *Machine: *//p')
    [ "$machine" = "$(machine_of "$target")" ] || die "margay is for $machine, not for $target"
    said=$(run_program "$target" --version) || die "margay of $target does not run: $said"
    [[ $said = "margay $version"$'\n'*"target $target"$'\n'* ]] || die "margay of $target is another one: $said"
    for file in examples/full.toml examples/packaging/margay.toml examples/kubernetes/route-reflector/margay.toml; do
        # 1: it is valid, and something in it needs what this machine's kernel lacks.
        said=$(HOST_IP=192.0.2.1 run_program "$target" check --config $file 2>&1) || [ $? = 1 ] ||
            die "margay of $target refuses $file: $said"
    done
    step "margay of $target runs with the image's libraries, and takes three configurations"
}

# Collects what cargo-deb and cargo-generate-rpm package: the manifest names these files.
stage() {
    local stage=target/package/stage
    rm -rf $stage
    mkdir -p $stage
    cp "$dir/margay" $stage/margay
    # In the profile that tests are built with: these files do not depend on it.
    if [ -n "${MARGAY_PACKAGE_MANUAL:-}" ]; then
        "$MARGAY_PACKAGE_MANUAL" $stage
    else
        cargo run --quiet --locked --example manual -- $stage
    fi
    rm -f margay.cdx.json
    cargo cyclonedx --quiet --manifest-path Cargo.toml --format json --spec-version 1.5 --target "$1" \
        --override-filename margay.cdx
    # Components of this workspace are named by their folder, which differs from machine to machine.
    sed "s|file://$PWD|file:///usr/src/margay|g" margay.cdx.json > $stage/margay.cdx.json
    rm margay.cdx.json
    # cargo-cyclonedx writes one for each member of the workspace.
    rm -f bgp-proto/margay.cdx.json interop/margay.cdx.json benches/compare/margay.cdx.json
    cp $stage/margay.cdx.json "$dir/"
    cp README.md CHANGELOG.md LICENSE examples/packaging/margay.toml examples/packaging/margay.service $stage/
    mkdir -p $stage/examples $stage/docs
    cp -r docs/src $stage/docs/
    cp -r examples/*.toml examples/monitoring $stage/examples/
    find $stage -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

make_packages() {
    step "Debian package and RPM"
    local fast='' compress=xz
    [ -z "${MARGAY_PACKAGE_BINARY:-}" ] || { fast=--fast; compress=gzip; }
    cargo deb --quiet --locked --no-build --no-strip $fast --target "$1" --output "$dir/"
    cargo generate-rpm --target "$1" --auto-req disabled --payload-compress $compress --output "$dir/"
}

# A root file system with nothing but the program and the libraries that it loads.
make_rootfs() {
    local root=$dir/rootfs tuple=${1%%-*}-linux-gnu interpreter name from
    from=/lib/$tuple
    # A cross compiler's (Debian's libc6-arm64-cross).
    [ -e "$from/libc.so.6" ] || from=/usr/$tuple/lib
    [ -e "$from/libc.so.6" ] || die "no glibc of $tuple for the image"
    rm -rf "$root"
    mkdir -p "$root"/{etc/margay,run,tmp,usr/bin,usr/share/doc/libc6} "$root/lib/$tuple"
    install -m 755 "$dir/margay" "$root/usr/bin/"
    interpreter=$(readelf --program-headers --wide "$dir/margay" | sed -n 's/.*interpreter: \(.*\)\]/\1/p')
    install -D -m 755 "$from/$(basename "$interpreter")" "$root$interpreter"
    # glibc's libraries need only libraries of glibc's; three rounds find all of them.
    for _ in 1 2 3; do
        find "$root" -type f \( -name margay -o -name '*.so.*' \) | while read -r name; do needed "$name"; done |
            sort -u | while read -r name; do
            [ "$name" = "$(basename "$interpreter")" ] || install -m 644 "$from/$name" "$root/lib/$tuple/"
        done
    done
    cp /usr/share/doc/libc6/copyright "$root/usr/share/doc/libc6/"
    echo 'root:x:0:0:root:/:/sbin/nologin' > "$root/etc/passwd"
    echo 'root:x:0:' > "$root/etc/group"
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
    chmod 1777 "$root/tmp"
    find "$root" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
}

# The same as an OCI image, in a folder that skopeo, podman and containerd read.
make_image() {
    local image=$dir/oci bundle=$dir/bundle created size rootless=''
    created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    [ "$(id -u)" = 0 ] || rootless=--rootless
    rm -rf "$image" "$bundle"
    umoci init --layout "$image"
    umoci new --image "$image:$version"
    # Not `umoci insert`: 0.4.7 leaves the end of the archive out, which tar(1) calls an error.
    umoci unpack $rootless --image "$image:$version" "$bundle"
    cp --archive "$dir/rootfs/." "$bundle/rootfs/"
    umoci repack --image "$image:$version" --history.created "$created" "$bundle"
    rm -rf "$bundle"
    umoci config --image "$image:$version" --history.created "$created" --created "$created" \
        --architecture "$1" --os linux --config.entrypoint /usr/bin/margay \
        --config.cmd run --config.cmd --config --config.cmd /etc/margay/margay.toml \
        --config.label org.opencontainers.image.title=margay \
        --config.label "org.opencontainers.image.version=$version" \
        --config.label "org.opencontainers.image.revision=$MARGAY_COMMIT" \
        --config.label org.opencontainers.image.licenses=Apache-2.0
    umoci gc --layout "$image"
    chmod -R a+rX "$image"
    size=$(du --apparent-size --bytes --summarize "$image" | cut -f1)
    step "image: $size octets compressed, $(du --apparent-size --bytes --summarize "$dir/rootfs" | cut -f1) unpacked"
    [ "$size" -lt $IMAGE_MAX ] || die "the image is larger than $IMAGE_MAX octets"
}

package() {
    local target=$1 program dir=$out/$1 architecture
    case $target in
        x86_64-*) architecture=amd64 ;;
        aarch64-*) architecture=arm64 ;;
        *) die "unknown target: $target" ;;
    esac
    rm -rf "$dir"
    mkdir -p "$dir"
    build_program "$target"
    split_program "$target"
    # The manifest names one folder for the files to package, so there is one packaging at a time.
    exec 8> target/package/lock
    flock 8
    stage "$target"
    make_packages "$target"
    exec 8>&-
    make_rootfs "$target"
    try_program "$target"
    make_image $architecture
    (cd "$dir" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum > SHA256SUMS)
    step "done: $dir"
}

mkdir -p target/package "$out"
targets=("$@")
if [ $# = 0 ]; then
    targets=(x86_64-unknown-linux-gnu)
    if is_installed aarch64-unknown-linux-gnu; then
        targets+=(aarch64-unknown-linux-gnu)
    else
        step "aarch64-unknown-linux-gnu is left out: rustup target add aarch64-unknown-linux-gnu"
    fi
fi
for target in "${targets[@]}"; do
    is_installed "$target" || die "the standard library of $target is missing: rustup target add $target"
    package "$target"
done

#!/usr/bin/env bash
# Runs a script as root under another kernel on Debian 12, without KVM. The machine's files are
# visible inside; all writes go to memory, except those to /out. Prints what the script prints and
# exits with its exit code; 124 is the time limit, 125 a VM that failed.
#
#   interop/vm.sh fetch               as `interop/setup.sh vm` does, once: 40 MB. Needs kmod
#   interop/vm.sh uml SCRIPT [ARGS]   User Mode Linux: near native speed, IPIP, VRF, dummy, netem, MPLS
#   interop/vm.sh fetch-qemu          for the next one, 140 MB. Needs qemu-system-x86, xz-utils, kmod
#   interop/vm.sh has-qemu            whether that has been done
#   interop/vm.sh run SCRIPT [ARGS]   qemu with emulated CPUs and Debian's kernel: everything, slow
#
#   VM=DIR        where the kernels are, default /var/cache/vmlab
#   VM_TIMEOUT=S  limit, default 600    VM_MEM=MIB  default 1024    VM_CPUS=N  default 2 (qemu only)
#   VM_OUT=DIR    is /out inside, and gets kernel.log
set -euo pipefail
VM=${VM:-/var/cache/vmlab}; KVER=${KVER:-7.3.4+deb13-amd64}; SUITE=${SUITE:-trixie-backports}
MEM=${VM_MEM:-1024}; CPUS=${VM_CPUS:-2}; LIMIT=${VM_TIMEOUT:-600}
MOD=$VM/$KVER/usr/lib/modules/$KVER; KIMG=$MOD/vmlinuz; INITRD=$VM/$KVER/initrd; LIB=$VM/uml/usr/lib/x86_64-linux-gnu
suite() {   # suite NAME PACKAGES: download from another Debian suite, without touching the machine's lists
  local t m; t=$(mktemp -d); mkdir -p "$t"/{lists,archives}/partial
  m=$(apt-cache policy | grep -oE 'https?://[^ ]*/debian/? bookworm/main' | head -1 | cut -d' ' -f1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $m $1 main" >"$t/s.list"; shift
  local o=(-q -o Dir::Etc::sourcelist="$t/s.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$t/lists"
           -o Dir::Cache="$t" -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root)
  apt-get "${o[@]}" update; apt-get "${o[@]}" download "$@"; rm -rf "$t"
}
fetch() {
  mkdir -p "$VM"; cd "$VM"; mkdir -p deb/sid
  ( cd deb; apt-get download -q patchelf; cd sid; suite sid user-mode-linux libc6 )
  local d; dpkg -x deb/patchelf*.deb pe; for d in deb/sid/*.deb; do dpkg -x "$d" uml; done
  pe/usr/bin/patchelf --set-interpreter "$LIB/ld-linux-x86-64.so.2" --set-rpath "$LIB" uml/usr/bin/linux.uml
  rm -rf deb pe
}
fetch-qemu() {
  mkdir -p "$VM"; cd "$VM"; mkdir -p deb
  ( cd deb; apt-get download -q busybox-static; suite "$SUITE" linux-{base,binary,modules}-"$KVER" )
  local d; for d in deb/linux-*.deb; do dpkg -x "$d" "$KVER"; done; dpkg -x deb/busybox-static*.deb bb
  rm -rf deb; prune; depmod -b "$VM/$KVER/usr" "$KVER" 2>/dev/null; initrd
}
prune() {   # keep what networking tests load, uncompressed: modprobe under emulation is then 3 times as fast
  ( cd "$MOD/kernel"; shopt -s nullglob; mkdir ../k; for d in net lib crypto arch fs/{9p,netfs,overlayfs,fuse} drivers/net/*.ko* \
      drivers/net/{vxlan,wireguard,bonding,netdevsim,macsec*,ipvlan,team} drivers/{virtio,char/hw_random}; do
      [ -e "$d" ] && { mkdir -p "../k/$(dirname "$d")"; mv "$d" "../k/$d"; }; done
    cd ..; rm -rf kernel; mv k kernel; find kernel -name '*.xz' -exec xz -dfq {} + )
}
initrd() {   # busybox + the modules that the root file system needs + /init
  local r m; r=$(mktemp -d); mkdir -p "$r"/{bin,m,proc,sys,dev,host,rw,root}
  cp "$VM/bb/bin/busybox" "$r/bin/"; : >"$r/m/order"
  for m in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$VM/$KVER/usr" -S "$KVER" --show-depends "$m" 2>/dev/null | awk '$1=="insmod"{print $2}'
  done | awk '!s[$0]++' | while read -r m; do
    b=$(basename "${m%.xz}"); echo "$b" >>"$r/m/order"
    case $m in *.xz) xz -dc "$m";; *) cat "$m";; esac >"$r/m/$b"
  done
  cat >"$r/init" <<'I'
#!/bin/busybox sh
B=/bin/busybox; export PATH=/bin
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in $($B cat /m/order); do $B insmod /m/$m; done
O=trans=virtio,version=9p2000.L,msize=512000
$B mount -t 9p -o ro,cache=loose,$O host /host || exec $B poweroff -f
$B mount -t tmpfs -o size=75% tmpfs /rw; $B mkdir /rw/u /rw/w
$B mount -t overlay -o lowerdir=/host,upperdir=/rw/u,workdir=/rw/w,xino=off root /root || exec $B poweroff -f
cd /root; $B mkdir -p out lib/modules; for m in proc sys dev; do $B mount -o move /$m /root/$m; done
$B mount -t tmpfs -o mode=755 run run; $B mkdir -p run/lock run/netns
$B mkdir -p dev/pts dev/shm; $B mount -t devpts devpts dev/pts; $B mount -t tmpfs shm dev/shm; $B mount -t cgroup2 cg sys/fs/cgroup
$B mount -t 9p -o cache=none,$O out out
exec $B chroot . /bin/bash /out/.guest
I
  chmod 755 "$r/init"; ( cd "$r"; find . | "$VM/bb/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1 ) >"$INITRD.new"; mv "$INITRD.new" "$INITRD"; rm -rf "$r"
}
begin() {   # begin OUTPUT-COMMAND MODULES SCRIPT ARGS: $out, and in it the script that the guest runs
  local to=$1 mod=$2 script; script=$(realpath "$3"); shift 3
  if [ -n "${VM_OUT:-}" ]; then mkdir -p "$VM_OUT"; out=$(realpath "$VM_OUT"); keep=1; else out=$(mktemp -d); keep=0; fi
  rm -f "$out"/.rc; : >"$out/kernel.log"
  { echo "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C VM=1"
    echo "exec </dev/null; hostname vm; ip link set lo up; mkdir -p /lib/modules; ln -sfn '$mod' '/lib/modules/${mod##*/}'; cd '$PWD'"
    printf '{ bash %q' "$script"; [ $# = 0 ] || printf ' %q' "$@"
    echo " ; echo \$? >/out/.rc; } 2>&1 | $to; [ -s /out/.rc ] || echo 125 >/out/.rc; sync; echo o >/proc/sysrq-trigger; sleep 60"
  } >"$out/.guest"; }
end() {   # end EXIT-CODE-OF-THE-EMULATOR
  local rc=125
  if [ "$1" = 124 ] || [ "$1" = 137 ]; then rc=124; elif [ -s "$out/.rc" ]; then rc=$(cat "$out/.rc"); fi
  [ "$rc" != 125 ] || { echo "vm.sh: no exit code from the VM ($1); its kernel said:" >&2; tail -n 20 "$out/kernel.log" >&2; }
  if [ $keep = 0 ]; then rm -rf "$out"; else rm -f "$out"/.guest "$out"/.rc; fi
  exit "$rc"; }
run() {
  [ -s "$INITRD" ] || initrd; begin 'cat >$(echo /dev/vport*p1)' "$MOD" "$@"; set +e
  timeout --foreground -k 5 "$LIMIT" qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine pc \
    -accel tcg,thread=multi -cpu "${VM_CPU:-max,la57=off,smap=off,smep=off}" -smp "$CPUS" -m "$MEM" -kernel "$KIMG" -initrd "$INITRD" \
    -append "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on audit=0 apparmor=0 ${VM_APPEND:-}" \
    -serial file:"$out/kernel.log" -device virtio-rng-pci \
    -fsdev local,id=h,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=h,mount_tag=host \
    -fsdev local,id=o,path="$out",security_model=none,multidevs=remap -device virtio-9p-pci,fsdev=o,mount_tag=out \
    -device virtio-serial-pci -chardev file,id=c,path=/dev/stdout -device virtserialport,chardev=c,nr=1 </dev/null | cat
  end "${PIPESTATUS[0]}"; }
uml() {
  local m; m=$(echo "$VM"/uml/usr/lib/uml/modules/*); begin 'cat >/dev/tty1' "$m" "$@"
  [ -e "$m/modules.dep.bin" ] || { mkdir -p "$m/lib/modules"; ln -sfn "$m" "$m/lib/modules/${m##*/}"; depmod -b "$m" "${m##*/}"; rm -r "$m/lib"; }
  cat >"$out/.init" <<I
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs -o size=75% tmpfs /tmp
mkdir /tmp/{u,w,r}; insmod "$(find "$m" -name overlay.ko)"; stty -F /dev/tty1 raw -echo
mount -t overlay -o lowerdir=/,upperdir=/tmp/u,workdir=/tmp/w,xino=off root /tmp/r && cd /tmp/r || echo o >/proc/sysrq-trigger
for d in proc sys dev; do mount --rbind /\$d \$d; done; mkdir -p out dev/pts dev/shm
mount -t tmpfs -o mode=755 run run; mkdir -p run/lock run/netns
mount -t devpts devpts dev/pts; mount -t tmpfs shm dev/shm; mount -t cgroup2 cg sys/fs/cgroup; mount -t hostfs -o "$out" none out
exec chroot . /bin/bash /out/.guest
I
  chmod 755 "$out/.init"; set +e
  TMPDIR=/dev/shm timeout --foreground -k 5 "$LIMIT" "$VM/uml/usr/bin/linux.uml" mem="${MEM}M" rootfstype=hostfs rootflags=/ ro \
    init="$out/.init" quiet loglevel=3 panic=-1 con=null con0=null,fd:3 con1=null,fd:4 ${VM_APPEND:-} </dev/null 3>"$out/kernel.log" 4> >(cat) >>"$out/kernel.log" 2>&1
  local q=$?; rm -f "$out/.init"; end $q; }
has-qemu() { [ -s "$INITRD" ] && [ -s "$KIMG" ]; }
case ${1:-} in fetch|fetch-qemu|has-qemu|suite|initrd|run|uml) "$@";; *) sed -n '2,14p' "$0"; exit 2;; esac

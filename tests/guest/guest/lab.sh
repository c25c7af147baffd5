# What the scenarios are written with. A command that fails ends the scenario; the last `step` names what failed.

set -euo pipefail
disk=/dev/vda
sys=/sys/block/vda

# busybox's shell prefers its own applets to programs of the same name.
mke2fs() { /tools/mke2fs "$@"; }
e2fsck() { /tools/e2fsck "$@"; }
resize2fs() { /tools/resize2fs "$@"; }
blkdiscard() { /tools/blkdiscard "$@"; }
lsblk() { /tools/lsblk "$@"; }
fio() { /tools/fio "$@"; }

step() {
  echo "$*" >/tmp/doing
  echo "RINGWAY: step $*"
}

fail() {
  echo "$*" >/tmp/doing
  exit 1
}

pass() { echo "RINGWAY: PASS"; }

# Asks the host to do something, waits for it, and prints its answer. The host answers "no" when it could not.
ask() {
  echo "RINGWAY: ask $*" >/dev/ttyS0
  read -r answer
  [ "$answer" != no ] || return 1
  echo "$answer"
}

# The command must fail. (A bare "! command" that comes out false does not end a scenario.)
refused() { ! "$@" 2>/dev/null; }

# until_true SECONDS COMMAND...: true as soon as the command is.
until_true() {
  tries=$(($1 * 10))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    usleep 100000
  done
}

is() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

# The features that driver and device agreed on; the kernel shows bit 0 first.
has_feature() { [ "$(cut -c$(($1 + 1)) $sys/device/features)" = 1 ]; }

VIRTIO_BLK_F_RO=5 VIRTIO_BLK_F_FLUSH=9 VIRTIO_BLK_F_CONFIG_WCE=11 VIRTIO_BLK_F_MQ=12
VIRTIO_BLK_F_DISCARD=13 VIRTIO_BLK_F_WRITE_ZEROES=14
VIRTIO_F_VERSION_1=32 VIRTIO_F_ACCESS_PLATFORM=33 VIRTIO_F_RING_PACKED=34

# interrupts NAME: how many the disk's vector of that name had, all processors together.
interrupts() {
  awk -v name="virtio0-$1" '$NF == name { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' /proc/interrupts
}

pci_device() { dirname "$(readlink -f $sys/device)"; }

# Whether the kernel maps the disk's DMA through an IOMMU, rather than passing addresses through.
translated() { grep -q '^DMA' "$(pci_device)/iommu_group/type"; }

config_word() { od -An -tu4 -j "$1" -N 4 "$(pci_device)/config" | tr -d ' '; }

# Whether Address Translation Service is on: walks the PCIe extended capabilities to id 15 and looks at its enable bit.
ats_enabled() {
  at=256
  while [ $at -ge 256 ]; do
    word=$(config_word $at)
    if [ $((word & 0xffff)) = 15 ]; then
      [ $(($(config_word $((at + 4))) >> 31)) = 1 ]
      return
    fi
    at=$((word >> 20))
  done
  return 1
}

drop_caches() {
  sync
  echo 3 >/proc/sys/vm/drop_caches
}

# Keeps the disk busy with writes until idle.
busy() {
  while [ ! -e /tmp/enough ]; do dd if=/dev/zero of=/mnt/busy bs=64k count=64 oflag=direct 2>/dev/null; done &
  writer=$!
}

idle() {
  touch /tmp/enough
  wait $writer
  rm /mnt/busy /tmp/enough
}

make_ext4() {
  step "mke2fs makes ext4 on $disk"
  mke2fs -F -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$@" $disk
}

# fill FOLDER [COUNT]: files of random bytes, one byte to one megabyte and a half, with their checksums in FOLDER/SUMS.
# Every third one is written with O_DIRECT, so that requests of guest user memory and of page cache are mixed.
fill() {
  step "filling $1 with checksummed files"
  mkdir -p "$1"
  (
    cd "$1"
    for i in $(seq "${2:-20}"); do
      mkdir -p "d$((i % 4))"
      head -c $((i * i * 3701 % 1500000 + 1)) /dev/urandom >/tmp/new.$$
      case $((i % 3)) in
        0) dd if=/tmp/new.$$ of="d$((i % 4))/$i" bs=$((4096 << i % 5)) oflag=direct conv=sync 2>/dev/null ;;
        1)
          cp /tmp/new.$$ "d$((i % 4))/$i"
          sync
          ;;
        2) cp /tmp/new.$$ "d$((i % 4))/$i" ;;
      esac
      cp /tmp/new.$$ gone
      rm gone
    done
    find d* -type f -exec sha256sum {} + >SUMS
  )
  rm -f /tmp/new.$$
}

# fio_verify FILE SIZE: fio writes the file anew at random places, 16 requests at once past the page cache; what it wrote is read
# and checked by checksum while it still writes, and all of it once more at the end.
fio_verify() {
  fio --name=verify --filename="$1" --size="$2" --rw=randwrite --bs=8k --ioengine=libaio --iodepth=16 --direct=1 \
    --verify=crc32c --verify_backlog=64 --verify_fatal=1 --randseed=$(($(date +%s) + $$)) --minimal >/tmp/fio.$$ 2>&1 || {
    cat /tmp/fio.$$
    return 1
  }
}

# As many fills at once as there are queues, each on a processor of its own; together they are one folder.
fill_on_every_queue() {
  writers=
  for queue in $(seq "$2"); do
    taskset $((1 << (queue - 1))) sh -c ". /lab.sh; fill $1/q$queue" &
    writers="$writers $!"
  done
  for writer in $writers; do wait "$writer"; done
  (cd "$1" && for part in q*; do sed "s,  ,  $part/," "$part/SUMS"; done >SUMS)
}

check() {
  step "checking every file of $1"
  (cd "$1" && sha256sum -c -s SUMS)
}

# What the host remembers the files by.
digest() { sha256sum <"$1/SUMS" | cut -c1-64; }

remount() {
  step "umount, caches dropped, mount again"
  umount /mnt
  drop_caches
  mount -t ext4 $disk /mnt
}

# Ends with the disk not mounted.
fsck() {
  umount /mnt
  drop_caches
  step "e2fsck finds nothing to mend"
  e2fsck -fn $disk >/tmp/fsck 2>&1 || {
    cat /tmp/fsck
    return 1
  }
}

until_true 10 test -b $disk || fail "no disk appears in the guest"
on_command_line() { grep -qw "$1" /proc/cmdline; }
on_command_line lab.legacy || has_feature $VIRTIO_F_VERSION_1 || fail "VIRTIO_F_VERSION_1 is not agreed on"

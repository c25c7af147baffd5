# Memory is plugged in while requests run, and the disk then reads and writes it; then it is unplugged again. Each piece
# is a memory region of its own; there are more of them than one SET_MEM_TABLE can name.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
blocks() { ls -d /sys/devices/system/memory/memory* | sort; }
blocks >/tmp/before
has_new_blocks() {
  blocks >/tmp/after
  [ "$(wc -l </tmp/after)" = $(($(wc -l </tmp/before) + $1)) ]
}
# Bytes of page cache in the zone that only the new memory feeds (it goes online as movable).
cache_in_new_memory() {
  awk '$1 == "Node" { movable = $4 == "Movable" } movable && /nr_zone_(in)?active_file/ { n += $2 } END { print n * 4096 }' /proc/zoneinfo
}

step "plugging memory in while the disk is busy"
busy
pieces=$(ask plug)
until_true 20 has_new_blocks "$pieces" || fail "the guest sees no new memory"
idle
new=$(grep -vxFf /tmp/before /tmp/after)
for block in $new; do echo online_movable >$block/state; done

step "the disk writes to and reads from the new memory"
fill /mnt/more 30
remount
check /mnt/files
check /mnt/more
used=$(cache_in_new_memory)
[ "$used" -ge 8388608 ] || fail "only $used bytes of the new memory were used"

step "unplugging it again"
for block in $new; do echo offline >$block/state; done
[ "$(ask unplug)" = yes ]
until_true 20 has_new_blocks 0 || fail "the memory does not leave"
remount
check /mnt/files
check /mnt/more
fsck
pass

# Discarded space is given back on the host, and zeroed space reads as zeroes.

. /lab.sh
mib=1048576

step "discard and write zeroes are agreed on"
has_feature $VIRTIO_BLK_F_DISCARD
has_feature $VIRTIO_BLK_F_WRITE_ZEROES

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
dd if=/dev/urandom of=/mnt/big bs=1M count=48 2>/dev/null
sync
full=$(ask usage)

step "fstrim gives back what a removed file held"
rm /mnt/big
sync
fstrim /mnt
trimmed=$(ask usage)
[ $((full - trimmed)) -ge $((47 * mib)) ] || fail "the host's file went from $full to $trimmed bytes"
remount
check /mnt/files
fsck

step "the host reads the same file system"
[ "$(ask check)" = yes ]

step "blkdiscard -z makes zeroes, and only where it is told"
dd if=/dev/urandom of=$disk bs=1M count=8 oflag=direct 2>/dev/null
before=$(dd if=$disk bs=4096 count=1 2>/dev/null | sha256sum)
after=$(dd if=$disk bs=4096 skip=1537 count=511 2>/dev/null | sha256sum)
blkdiscard -f -z -o 4096 -l $((6 * mib)) $disk
drop_caches
dd if=$disk bs=4096 skip=1 count=1536 2>/dev/null | cmp -n $((6 * mib)) - /dev/zero
[ "$(dd if=$disk bs=4096 count=1 2>/dev/null | sha256sum)" = "$before" ]
[ "$(dd if=$disk bs=4096 skip=1537 count=511 2>/dev/null | sha256sum)" = "$after" ]

step "blkdiscard of the whole disk gives back nearly all"
blkdiscard -f $disk
left=$(ask usage)
[ "$left" -le $((2 * mib)) ] || fail "the host's file still holds $left bytes"
pass

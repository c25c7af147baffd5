# A disk made by another boot, now served read-only.

. /lab.sh

step "the disk says that it is read-only"
has_feature $VIRTIO_BLK_F_RO
is $sys/ro 1

step "writing to it fails"
refused dd if=/dev/zero of=$disk bs=4096 count=1 oflag=direct

step "mounting it read-only works"
mount -t ext4 -o ro $disk /mnt
[ "$(digest /mnt/files)" = "$(ask digest)" ]
check /mnt/files
refused touch /mnt/files/new
fsck
pass

# The write cache is switched off and on at run time (VIRTIO_BLK_F_CONFIG_WCE).

. /lab.sh

step "the disk has a write cache that can be switched"
has_feature $VIRTIO_BLK_F_FLUSH
has_feature $VIRTIO_BLK_F_CONFIG_WCE
make_ext4
mount -t ext4 $disk /mnt

for mode in "write back" "write through" "write back"; do
  step "$mode"
  echo "$mode" >$sys/cache_type
  is $sys/cache_type "$mode"
  is $sys/queue/write_cache "$mode"
  rm -rf /mnt/files
  fill /mnt/files
  remount
  check /mnt/files
done
fsck
pass

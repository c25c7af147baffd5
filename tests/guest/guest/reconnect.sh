# The back-end is replaced while the disk is mounted and quiet.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
sync
step "quiet while the back-end restarts"
[ "$(ask restart)" = yes ]
drop_caches
check /mnt/files
fill /mnt/more
remount
check /mnt/files
check /mnt/more
fsck
pass

# Makes a disk for another boot to check.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
echo "RINGWAY: tell digest $(digest /mnt/files)"
fsck
pass

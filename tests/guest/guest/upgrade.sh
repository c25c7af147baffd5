# The program behind the disk is replaced again and again while files are being written.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files 40 &
writer=$!
upgrades=0
while kill -0 $writer 2>/dev/null; do
  [ "$(ask upgrade)" = yes ]
  upgrades=$((upgrades + 1))
done
wait $writer
echo "RINGWAY: tell upgrades $upgrades"
drop_caches
check /mnt/files
fill /mnt/more
remount
check /mnt/files
check /mnt/more
fsck
pass

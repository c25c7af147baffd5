# The program behind the disk is replaced again and again while it is written to: by fio, which checks what it wrote, or behind
# an IOMMU, where fio would leave no moment in which no translation is being asked for, by the shell.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
write() {
  if on_command_line lab.iommu; then
    fill /mnt/files 40
  else
    fill /mnt/files 12
    for round in 1 2 3; do fio_verify /mnt/round 16M; done
  fi
}
write &
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

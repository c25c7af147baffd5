# First boot: fills, and resets the machine with writes under way and the disk mounted. Second boot: checks.

. /lab.sh

if [ "$(ask boot)" = 1 ]; then
  make_ext4
  mount -t ext4 $disk /mnt
  fill /mnt/files
  echo "RINGWAY: tell digest $(digest /mnt/files)"
  sync
  step "rebooting while requests are in flight"
  for writer in 1 2 3 4; do
    dd if=/dev/zero of=/mnt/torn$writer bs=64k count=1000 oflag=direct 2>/dev/null &
  done
  usleep 300000
  reboot -f
fi

step "mounting after the reboot, with journal recovery"
e2fsck -p $disk >/dev/null || [ $? = 1 ]
mount -t ext4 $disk /mnt
[ "$(digest /mnt/files)" = "$(ask digest)" ]
check /mnt/files
fill /mnt/more
remount
check /mnt/more
fsck
pass

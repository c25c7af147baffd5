# The back-end is killed again and again while files are written and checked.

. /lab.sh

# Rounds of new files, each read back from the disk, until it is enough.
rounds() {
  round=0
  while [ ! -e /tmp/enough ]; do
    round=$((round + 1))
    rm -rf "/mnt/round$((round % 3))"
    fill "/mnt/round$((round % 3))" 9
    drop_caches
    check "/mnt/round$((round % 3))" || {
      echo "round $round" >/tmp/wrong
      return 1
    }
  done
  echo "RINGWAY: tell rounds $round"
}

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
sync
(
  sleep 1
  rounds
) </dev/null &
writer=$!
step "at work while the back-end is killed"
[ "$(ask kills)" = yes ]
touch /tmp/enough
wait $writer || fail "wrong contents: $(cat /tmp/wrong 2>/dev/null)"
[ ! -e /tmp/wrong ] || fail "wrong contents"
drop_caches
check /mnt/files
remount
check /mnt/files
fsck
pass

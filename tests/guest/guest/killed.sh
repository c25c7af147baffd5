# The back-end is killed again and again while fio writes and checks what it wrote.

. /lab.sh

# Rounds until it is enough; the file system has something to do as well.
rounds() {
  round=0
  while [ ! -e /tmp/enough ]; do
    round=$((round + 1))
    fio_verify "/mnt/round$((round % 3))" 8M || {
      echo "round $round" >/tmp/wrong
      return 1
    }
    rm -f "/mnt/round$(((round + 1) % 3))"
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

# The machine moves to another host while the disk is written to; the host says how often ("enough" when it is done).

. /lab.sh

# Writes files of random bytes for ever, each with its checksum in memory when it is complete: every third with O_DIRECT,
# every third with sync. What is complete must be on the disk, wherever that is then.
write_on() {
  mkdir -p /mnt/live /tmp/sums
  number=0
  while [ ! -e /tmp/enough ]; do
    number=$((number + 1))
    name=$((number % 60))
    head -c $((number * 7919 % 400000 + 1)) /dev/urandom >/tmp/live
    rm -f /tmp/sums/$name
    case $((number % 3)) in
      0) dd if=/tmp/live of=/mnt/live/$name bs=16k oflag=direct conv=sync 2>/dev/null ;;
      1)
        cp /tmp/live /mnt/live/$name
        sync
        ;;
      2) cp /tmp/live /mnt/live/$name ;;
    esac
    sha256sum </mnt/live/$name | sed "s/-/$name/" >/tmp/sums/$name
    echo $number >/tmp/number
  done
}

# The same by fio, which reads again what it wrote. A round may begin on one host and end on another.
verify_on() {
  while [ ! -e /tmp/enough ]; do
    fio_verify /mnt/verified 8M || {
      echo "round $(rounds)" >/tmp/wrong
      return 1
    }
    echo $(($(rounds) + 1)) >/tmp/rounds
  done
}

rounds() { cat /tmp/rounds 2>/dev/null || echo 0; }
written() { cat /tmp/number 2>/dev/null || echo 0; }

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files 8
step "writing while the machine moves"
write_on &
writer=$!
verify_on </dev/null &
verifier=$!
until_true 60 test -e /tmp/sums/3
while true; do
  before=$(written)
  answer=$(ask migrate)
  [ "$answer" = moved ] || [ "$answer" = enough ]
  after=$(written)
  echo "RINGWAY: tell written $before to $after"
  [ "$answer" = moved ] || break
done
step "the writer still writes"
before=$(written)
until_true 60 test "$(written)" -gt 0
for tries in $(seq 100); do
  [ "$(written)" -le $((before + 1)) ] || break
  usleep 300000
done
[ "$(written)" -gt "$before" ]
before=$(rounds)
for tries in $(seq 200); do
  [ "$(rounds)" -le $((before + 1)) ] && [ ! -e /tmp/wrong ] || break
  usleep 300000
done
touch /tmp/enough
wait $writer
wait $verifier || fail "wrong contents: $(cat /tmp/wrong)"
[ "$(rounds)" -gt "$before" ] || fail "fio has not ended another round"
cat /tmp/sums/* >/mnt/live/SUMS
step "checking what was written meanwhile"
check /mnt/live
check /mnt/files
remount
check /mnt/live
check /mnt/files
fsck
pass

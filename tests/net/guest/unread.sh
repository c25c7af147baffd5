# The machine moves while a file arrives that nobody reads: it lies in pages that only the device has written.

. /net.sh

connected() { grep -q ':1388 01 ' /proc/net/tcp; } # to port 5000

bring_up
check_pings "$(word host)"
echo 4096 16777216 16777216 >/proc/sys/net/ipv4/tcp_rmem
head -c 4194304 /dev/urandom >/tmp/part
for part in $(seq 8); do cat /tmp/part; done >/tmp/pages
while true; do
  step "connecting to $(word host)"
  digest=$(ask hold)
  [ "$digest" != enough ] || break
  nc "$(word host)" 5000 <>/tmp/never >/tmp/file &
  reader=$!
  until_true 20 connected
  kill -STOP $reader
  step "moving with a file that is not read"
  ask begin >/dev/null
  cp /tmp/pages /tmp/copy # so that much is left to be sent after the first pass
  [ "$(ask go)" = moved ]
  kill -CONT $reader
  wait $reader
  [ "$(sha256sum </tmp/file | cut -c1-64)" = "$digest" ]
  until_true 20 answers "$(word host)"
done
check_pings "$(word host)"
pass

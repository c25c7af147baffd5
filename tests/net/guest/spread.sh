. /net.sh

last_queue=$(($(word queues) - 1))

# counts rx|tx: the packets of each queue so far, a line each.
counts() {
  /tools/ethtool -S eth0 >/tmp/counters
  for queue in $(seq 0 $last_queue); do sed -n "s/^ *$1_queue_${queue}_packets: //p" /tmp/counters; done
}

# check_spread rx|tx: each queue had packets of several flows since the counts in /tmp/DIRECTION.
check_spread() {
  counts "$1" | paste /tmp/"$1" - | while read -r before after; do echo $((after - before)); done >/tmp/flowed
  step "packets of the $1 queues: $(tr '\n' ' ' </tmp/flowed)"
  [ "$(wc -l </tmp/flowed)" = $((last_queue + 1)) ]
  while read -r packets; do [ "$packets" -ge 4 ]; done </tmp/flowed
}

bring_up
check_pings "$(word host)"
transfer "$(word host)"
step "opening 64 connections, by turns from each processor"
counts rx >/tmp/rx
counts tx >/tmp/tx
ask flows >/dev/null
for flow in $(seq 0 63); do
  taskset $((1 << flow % (last_queue + 1))) nc "$(word host)" 5000 <>/tmp/never >/tmp/flow
  [ "$(stat -c %s /tmp/flow)" = 65536 ]
done
check_spread rx
check_spread tx
pass

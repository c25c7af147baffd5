# What runs in the guest of bench/tap.py: the kernel's vhost-net and `ringway serve net` by turns, each in front of a
# tap of its own, driven by `ringway bench net` on the other processor. A line for each run goes to the host.
set -eu
say() {
  echo "$*" >/tmp/doing
  echo "RINGWAY: step $*"
}
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^lab\.$1=//p"; }
wait_for() {
  tries=0
  until [ "$1" "$2" ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ]
    usleep 50000
  done
}

# Nanoseconds that a back-end has run: the threads of a process, or the kernel's thread that works for it.
total() { awk '{ sum += $1 } END { printf "%.0f", sum }' "$@" /dev/null; }
cpu_of() {
  case $1 in
    vhost) total $(grep -l "^vhost-" /proc/[0-9]*/comm | sed 's/comm$/schedstat/') ;;
    *) total /proc/"$server"/task/*/schedstat ;;
  esac
}

serve_vhost() {
  taskset 1 /tools/ringway bridge /dev/vhost-net --tap=tap0 --socket-path=/tmp/socket 2>/tmp/log &
}
serve_ringway() {
  /tools/ringway serve net --workers=1 --cpus=0 --poll="$1" --port=tap:name=tap0 --socket-path=/tmp/socket 2>/tmp/log &
}

# Frames to the tap, as fast as they are taken from it. Its thread is the one of the driver's processor.
start_sending() {
  echo "rem_device_all" >/proc/net/pktgen/kpktgend_1
  echo "add_device tap0" >/proc/net/pktgen/kpktgend_1
  for order in "count 0" "pkt_size $1" "dst_mac 02:52:57:00:00:02" "dst 10.0.0.2" "clone_skb 0" "burst 1"; do
    echo "$order" >/proc/net/pktgen/tap0
  done
  (echo start >/proc/net/pktgen/pgctrl) 2>/dev/null &
  sender=$!
}
stop_sending() {
  kill -INT $sender 2>/dev/null || true
  echo stop >/proc/net/pktgen/pgctrl || true
  wait $sender 2>/dev/null || true
}

# contender, mode, bytes
measure() {
  case $1 in
    vhost) serve_vhost ;;
    *) serve_ringway "${1#ringway-}" ;;
  esac
  server=$!
  wait_for -S /tmp/socket
  ifconfig tap0 up
  [ "$2" = tx ] || start_sending "$3"
  taskset 2 /tools/ringway bench net /tmp/socket --mode="$2" --size="$3" --runtime="$(word runtime)" --warmup=0.2 --json >/tmp/measured &
  driver=$!
  sleep 1
  before=$(cpu_of "$1")
  began=$(cut -d' ' -f1 /proc/uptime)
  case $2 in # seen from the tap
    tx) count=/sys/class/net/tap0/statistics/rx_packets ;;
    rx) count=/sys/class/net/tap0/statistics/tx_packets ;;
  esac
  frames=$(cat $count)
  sleep "$(word watch)"
  after=$(cpu_of "$1")
  more=$(cat $count)
  ended=$(cut -d' ' -f1 /proc/uptime)
  wait $driver || { cat /tmp/measured; false; }
  [ "$2" = tx ] || stop_sending
  kill -TERM $server
  wait $server || true
  rm -f /tmp/socket
  echo "RINGWAY: MEASURED {\"contender\": \"$1\", \"mode\": \"$2\", \"bytes\": $3, \"frames\": $((more - frames)), \"cpu_ns\": $((after - before)), \"began\": $began, \"ended\": $ended}"
}

ulimit -l unlimited
ifconfig lo up
echo 0 >/proc/sys/net/ipv6/conf/default/disable_ipv6 2>/dev/null || true
run=0
while [ $run -lt "$(word runs)" ]; do
  for size in 64 1500; do
    for mode in tx rx; do
      for contender in vhost ringway-adaptive ringway-never; do
        say "$contender $mode $size"
        measure $contender $mode $size
      done
    done
  done
  run=$((run + 1))
done
echo "RINGWAY: PASS"

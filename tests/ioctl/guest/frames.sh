# Every interface is a cable into itself. lab.frames=N on the command line: how many frames go through it.
set -eu
echo "bringing eth0 up" >/tmp/doing
ip link set eth0 up
count=$(sed 's/.*lab\.frames=\([0-9]*\).*/\1/' /proc/cmdline)
echo "sending $count frames" >/tmp/doing
echo "RINGWAY: step $(cat /tmp/doing)"
back=$(/tools/frames eth0 "$count") || {
  echo "RINGWAY: FAIL $back"
  exit 0
}
echo "RINGWAY: tell frames $back"
echo "RINGWAY: tell received $(cat /sys/class/net/eth0/statistics/rx_packets)"
echo "RINGWAY: PASS"

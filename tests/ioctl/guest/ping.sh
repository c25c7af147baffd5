# Pings whoever is at the other end of eth0, by frames of every length that passes whole.
set -eu
echo "bringing eth0 up" >/tmp/doing
ifconfig eth0 10.9.7.2 netmask 255.255.255.0 up
echo "pinging" >/tmp/doing
echo "RINGWAY: step $(cat /tmp/doing)"
ping -c 1 -W 20 10.9.7.1 >/dev/null # the first waits for addresses
answers=0
for length in 56 56 56 56 56 200 600 1000 1400 1472 56 56 56 56 56 200 600 1000 1400 1472; do
  ping -c 1 -W 10 -s $length 10.9.7.1 >/dev/null
  answers=$((answers + 1))
done
echo "RINGWAY: tell pings $answers"
echo "RINGWAY: PASS"

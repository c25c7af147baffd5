# Pings whoever is at the other end of eth0, by frames of every length that passes whole, and fetches a file there.
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
# The other end would stop at the end of what we send.
mkfifo /tmp/silence
exec 8<>/tmp/silence
echo "RINGWAY: tell digest $(nc 10.9.7.1 5000 <&8 | sha256sum | cut -c1-64)"
echo "RINGWAY: PASS"

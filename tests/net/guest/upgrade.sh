. /net.sh

bring_up
check_pings "$(word host)"
step "the program behind the interface is replaced while packets are under way"
ping -c 200 -i 0.02 -s 1000 "$(word host)" >/tmp/pings &
pings=$!
ask upgrade >/dev/null
wait $pings || true
step "of the pings: $(grep transmitted /tmp/pings)"
grep -q " 200 packets received\| 200 received" /tmp/pings
transfer "$(word host)"
pass

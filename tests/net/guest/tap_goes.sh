. /net.sh

carrier() { [ "$(cat /sys/class/net/eth0/carrier)" = "$1" ]; }

bring_up
check_pings "$(word host)"
ask gone >/dev/null
step "pinging nobody"
for i in 1 2 3; do answers "$(word host)" && false || true; done
ask back >/dev/null
check_pings "$(word host)"
transfer "$(word host)"
pass

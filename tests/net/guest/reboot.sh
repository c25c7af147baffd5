. /net.sh

bring_up
check_pings "$(word host)"
if [ "$(ask boot)" = 1 ]; then
  step "rebooting while packets are under way"
  ping -i 0.01 -s 1400 "$(word host)" >/dev/null &
  usleep 300000
  reboot -f
fi
transfer "$(word host)"
pass

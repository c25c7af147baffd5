. /net.sh

bring_up
check_pings "$(word host)"
step "the back-end restarts while packets are under way"
ping -i 0.01 -s 1400 "$(word host)" >/dev/null &
usleep 300000
ask restart >/dev/null
until_true 20 answers "$(word host)"
check_pings "$(word host)"
transfer "$(word host)"
pass

. /net.sh

bring_up
check_pings "$(word host)"
transfer "$(word host)"
pass

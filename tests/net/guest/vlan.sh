. /net.sh

bring_up
check_pings "$(word host)"
ask tag >/dev/null
ip link add link eth0 name eth0.10 type vlan id 10
ip address add "$(word vlan_guest)/24" dev eth0.10
ip link set eth0.10 up
check_pings "$(word vlan_host)"
transfer "$(word host)"
pass

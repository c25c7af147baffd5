. /net.sh

bring_up
check_pings "$(word host)"
step "fetching a file while the machine moves"
digest=$(ask offer)
nc "$(word host)" 5000 </dev/null >/tmp/file &
fetching=$!
usleep 500000
while [ "$(ask go)" = moved ]; do until_true 20 answers "$(word host)"; done
wait $fetching
[ "$(sha256sum </tmp/file | cut -c1-64)" = "$digest" ]
check_pings "$(word host)"
pass

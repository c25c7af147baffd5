. /net.sh

part=$((4 << 20))
has_part() { [ "$(stat -c %s /tmp/file)" -ge $part ]; }

bring_up
check_pings "$(word host)"
step "the back-end restarts while packets are under way"
ping -i 0.01 -s 1400 "$(word host)" >/dev/null &
usleep 300000
ask restart >/dev/null
until_true 20 answers "$(word host)"
check_pings "$(word host)"

step "the back-end restarts while a file is fetched"
digest=$(ask offer)
: >/tmp/file
nc "$(word host)" 5000 <>/tmp/never >/tmp/file &
fetching=$!
until_true 60 has_part
kill -0 $fetching
ask restart >/dev/null
wait $fetching
[ "$(sha256sum </tmp/file | cut -c1-64)" = "$digest" ]

step "the back-end restarts while the file is sent back"
ask accept >/dev/null
{
  head -c $part /tmp/file
  ask restart >/dev/null
  tail -c +$((part + 1)) /tmp/file
} | nc "$(word host)" 5000
[ "$(ask received)" = "$digest" ]
pass

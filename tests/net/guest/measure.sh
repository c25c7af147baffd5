. /net.sh

# measure WORDS...: what iperf3 says, and that something arrived.
measure() {
  step "iperf3 $*"
  ask measure >/dev/null
  /tools/iperf3 --client "$(word host)" --time 3 --format m "$@" >/tmp/measured
  rate=$(sed -n 's/.* \([0-9]*\)\(\.[0-9]*\)* Mbits.sec.*receiver$/\1/p' /tmp/measured | tail -n 1)
  echo "RINGWAY: rate iperf3${*:+ $*}: $rate Mbit/s"
  [ "$rate" -gt 0 ]
}

bring_up
check_pings "$(word host)"
transfer "$(word host)"
measure
measure --reverse
pass

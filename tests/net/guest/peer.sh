. /net.sh

# The guest at the other end: does what the host tells it, until that says `end`.
listens() { grep -q "$1" /proc/net/tcp /proc/net/tcp6; }

bring_up
head -c $((24 << 20)) /dev/urandom >/tmp/file
while true; do
  step "waiting for an order"
  order=$(ask order)
  step "doing what is called $order"
  case $order in
    offer)
      nc -l -p 5000 </tmp/file >/dev/null &
      until_true 10 listens ':1388 .* 0A '
      ask done "$(sha256sum </tmp/file | cut -c1-64)" >/dev/null
      ;;
    accept)
      nc -l -p 5000 <>/tmp/never >/tmp/received &
      until_true 10 listens ':1388 .* 0A '
      ask done >/dev/null
      ;;
    received)
      wait
      ask done "$(sha256sum </tmp/received | cut -c1-64)" >/dev/null
      ;;
    measure)
      /tools/iperf3 --server --one-off >/dev/null &
      until_true 10 listens ':1451 .* 0A '
      ask done >/dev/null
      ;;
    end) break ;;
  esac
done
pass

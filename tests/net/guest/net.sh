# What the scenarios are written with. A command that fails ends the scenario; the last `step` names what failed.

set -euo pipefail
device=/sys/class/net/eth0/device

step() {
  echo "$*" >/tmp/doing
  echo "RINGWAY: step $*"
}
pass() { echo "RINGWAY: PASS"; }

# Asks the host to do something, waits for it, and prints its answer.
ask() {
  echo "RINGWAY: ask $*" >/dev/ttyS0
  read -r answer
  [ "$answer" != no ] || return 1
  echo "$answer"
}

# word NAME: its value on the command line, or nothing.
word() { sed -n "s/.*lab\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

has_feature() { [ "$(cut -c$(($1 + 1)) $device/features)" = 1 ]; }

until_true() {
  tries=$(($1 * 10))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    usleep 100000
  done
}

bring_up() {
  step "bringing eth0 up"
  for feature in $(word has | tr , ' '); do has_feature "$feature" || { step "feature $feature is not agreed on"; return 1; }; done
  for feature in $(word not | tr , ' '); do has_feature "$feature" && { step "feature $feature is agreed on"; return 1; }; done
  [ -z "$(word mtu)" ] || [ "$(cat /sys/class/net/eth0/mtu)" = "$(word mtu)" ]
  [ -z "$(word queues)" ] || [ "$(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)" = "$(word queues)" ]
  ip link set lo up
  ip address add "$(word guest)/24" dev eth0
  ip link set eth0 up
}

answers() { ping -c 1 -W 1 "$1" >/dev/null; }

# check_pings ADDRESS: of the host, with packets of all lengths that the MTU allows.
check_pings() {
  step "pinging $1"
  until_true 10 answers "$1"
  for size in 0 1 18 56 500 1000 1472; do ping -c 3 -i 0.05 -s $size "$1" >/dev/null; done
  if [ -n "$(word mtu)" ]; then ping -c 3 -s $(($(word mtu) - 28)) "$1" >/dev/null; fi
}

# nc ends its half of a connection with its input, and the other nc ends then: this input has no end.
mkfifo /tmp/never

# transfer ADDRESS: a file from the host and back.
transfer() {
  step "fetching a file from $1"
  digest=$(ask offer)
  nc "$1" 5000 <>/tmp/never >/tmp/file
  [ "$(sha256sum </tmp/file | cut -c1-64)" = "$digest" ]
  step "sending it back to $1"
  ask accept >/dev/null
  nc "$1" 5000 </tmp/file
  [ "$(ask received)" = "$digest" ]
}

# What runs in the guest: prepares what the devices need, then the tests whose names the command line has.
set -eu
say() {
  echo "$*" >/tmp/doing
  echo "RINGWAY: step $*"
}
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^lab\.$1=//p"; }

say "configuring"
ifconfig lo up
# shellcheck disable=SC3045 # busybox has it
ulimit -l unlimited

# A disk of 16 MiB of memory as unit 0 of a target.
target=/sys/kernel/config/target
wwpn=naa.5001405000000001
make_target() {
  mount -t configfs none /sys/kernel/config
  mkdir -p $target/core/rd_mcp_0/disk
  echo rd_pages=4096 >$target/core/rd_mcp_0/disk/control
  echo 1 >$target/core/rd_mcp_0/disk/enable
  group=$target/vhost/$wwpn/tpgt_1
  mkdir $target/vhost
  mkdir $target/vhost/$wwpn
  mkdir $group
  mkdir $group/lun/lun_0
  ln -s $target/core/rd_mcp_0/disk $group/lun/lun_0/disk
  echo naa.5001405000000002 >$group/nexus
}

# The kernel's simulators: files /dev/vhost-vdpa-0 and -1.
make_vdpa() {
  /tools/vdpa dev add mgmtdev vdpasim_blk name disk
  /tools/vdpa dev add mgmtdev vdpasim_net name loop
}

# A device of ours with the name of one of the kernel's: file /dev/vhost-net-ringway.
make_cuse() {
  /tools/ringway cuse --name=vhost-net-ringway &
  cuse=$!
  wait_for -c /dev/vhost-net-ringway
}

# And two that are called as those of the kernel's simulators are.
make_cuse_vdpa() {
  /tools/ringway cuse --name=vhost-vdpa-0 blk --memory=128M &
  cuse=$!
  /tools/ringway cuse --name=vhost-vdpa-1 net --port=loop &
  wait_for -c /dev/vhost-vdpa-0
  wait_for -c /dev/vhost-vdpa-1
}

wait_for() {
  tries=0
  until [ "$1" "$2" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ]
    usleep 100000
  done
}

echo 8 >/proc/sys/vm/nr_hugepages

case $(word device) in
  scsi) make_target ;;
  vdpa) make_vdpa ;;
  cuse) make_cuse ;;
  cuse_vdpa) make_cuse_vdpa ;;
esac

if [ -n "$(word bridge)" ]; then
  say "starting a bridge"
  export RINGWAY_BRIDGE=/tmp/bridge.sock
  case $(word device) in
    cuse) /tools/ringway bridge /dev/vhost-net-ringway --tap=tap0 --socket-path=$RINGWAY_BRIDGE & ;;
    net) /tools/ringway bridge /dev/vhost-net --tap=tap0 --socket-path=$RINGWAY_BRIDGE & ;;
    scsi) /tools/ringway bridge /dev/vhost-scsi --wwpn=$wwpn --socket-path=$RINGWAY_BRIDGE & ;;
    vdpa) /tools/ringway bridge /dev/vhost-vdpa-0 --socket-path=$RINGWAY_BRIDGE & ;;
    vsock) /tools/ringway bridge /dev/vhost-vsock --guest-cid=42 --socket-path=$RINGWAY_BRIDGE & ;;
  esac
  bridge=$!
  wait_for -S $RINGWAY_BRIDGE
fi

if [ "$(word device)" = scsi ]; then
  say "a target that is not there is said so"
  if /tools/ringway bridge /dev/vhost-scsi --wwpn=naa.none --socket-path=/tmp/none.sock 2>/tmp/said; then false; fi
  grep -q "there is no such target" /tmp/said
  [ ! -e /tmp/none.sock ]
fi

say "running the tests of $(word device)"
/tools/ringway_kernel_tests --gtest_filter="$(word filter)" --gtest_color=no

if [ "$(word device)" = vdpa ] && [ -n "$(word bridge)" ]; then
  say "probing and measuring what the bridge serves"
  /tools/ringway probe $RINGWAY_BRIDGE
  /tools/ringway bench blk --rw=randrw --verify --size=64M --iodepth=16 --runtime=1 $RINGWAY_BRIDGE
fi

if [ "$(word device)" = cuse ]; then
  say "every frame that is transmitted is one of the tap's"
  count=/sys/class/net/tap0/statistics/rx_packets
  before=$(cat $count)
  /tools/ringway bench net --mode=tx --size=1514 --runtime=2 --json $RINGWAY_BRIDGE | tee /tmp/measured
  sent=$(sed -n '/"account"/,/}/s/.*"sent": \([0-9]*\).*/\1/p' /tmp/measured)
  [ "$sent" -gt 1000 ]
  [ $(($(cat $count) - before)) -eq "$sent" ]
fi

if [ -n "$(word bridge)" ]; then
  say "the bridge meets every requirement that can be seen"
  case $(word device) in
    vdpa) kind=blk ;;
    cuse) kind=net ;;
    *) kind=$(word device) ;;
  esac
  status=0
  /tools/ringway check back-end --device=$kind --timeout=10 $RINGWAY_BRIDGE >/tmp/checked 2>&1 || status=$?
  if [ $status -ne 0 ] || grep -q "^N[0-9]* *fail" /tmp/checked; then
    cat /tmp/checked
    false
  fi
  tail -n 1 /tmp/checked

  say "the bridge ends when it is told"
  kill -TERM $bridge
  wait $bridge
  [ ! -e $RINGWAY_BRIDGE ]
fi

if [ -n "${cuse:-}" ]; then
  say "ringway cuse ends when it is told"
  kill -TERM $cuse
  wait $cuse
  [ ! -e /dev/vhost-net-ringway ]
  [ ! -e /dev/vhost-vdpa-0 ]
fi
echo "RINGWAY: PASS"

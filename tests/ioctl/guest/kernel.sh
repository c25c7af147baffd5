# The same program against Linux's own vhost-net, and against ringway cuse. CUSE needs the libraries of both.
set -u
failed() {
  echo "RINGWAY: FAIL $1: $(tail -n 5 /tmp/out | tr '\n' ';')"
  exit 0
}
run() {
  name=$1
  shift
  echo "$name" >/tmp/doing
  echo "RINGWAY: step $name"
  "$@" >/tmp/out 2>&1 || failed "$name (status $?)"
  cat /tmp/out
  echo "RINGWAY: tell $name ok"
}
mkdir -p /run
run linux_rules /tools/ioctl_client rules /dev/vhost-net
run linux_sharing /tools/ioctl_client sharing /dev/vhost-net
run linux_paths /tools/ioctl_client paths /dev/vhost-net

/tools/ringway cuse --name=vhost-net-ringway --device=loopback --verbose >/tmp/cuse.log 2>&1 &
daemon=$!
tries=100
until [ -e /dev/vhost-net-ringway ] || [ $tries = 0 ]; do
  usleep 100000
  tries=$((tries - 1))
done
run cuse_rules /tools/ioctl_client rules /dev/vhost-net-ringway
run cuse_newer /tools/ioctl_client newer /dev/vhost-net-ringway
run cuse_sharing /tools/ioctl_client sharing /dev/vhost-net-ringway
run cuse_frames /tools/ioctl_client frames /dev/vhost-net-ringway 1000
run cuse_session /tools/ioctl_client session /dev/vhost-net-ringway 1000
/tools/ringway cuse --name=vhost-net-ringway >/tmp/out 2>&1 && failed "a second device of that name"
# It ends in order, whoever has its device open.
/tools/ioctl_client hold /dev/vhost-net-ringway >/tmp/hold 2>&1 &
holder=$!
tries=100
until grep -q held /tmp/hold || [ $tries = 0 ]; do
  usleep 100000
  tries=$((tries - 1))
done
grep -q held /tmp/hold || { cp /tmp/hold /tmp/out; failed "a device with running rings"; }
kill $daemon
wait $daemon || { cp /tmp/cuse.log /tmp/out; failed "the end of ringway cuse (status $?)"; }
kill $holder
[ ! -e /dev/vhost-net-ringway ] || failed "the device node stays"
echo "RINGWAY: PASS"

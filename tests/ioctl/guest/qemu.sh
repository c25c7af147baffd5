# A machine in the machine: unmodified QEMU on a device that ringway cuse has made, over a tap of QEMU's own, and then the
# same on Linux's own vhost_net. The inner guest pings us, and fetches a file.
set -u
mkdir -p /run
failed() {
  tail -n 15 /tmp/out
  echo "RINGWAY: FAIL $1"
  exit 0
}
/tools/ringway cuse --name=vhost-net-ringway --verbose >/tmp/cuse.log 2>&1 &
tries=100
until [ -e /dev/vhost-net-ringway ] || [ $tries = 0 ]; do
  usleep 100000
  tries=$((tries - 1))
done
cat >/tmp/up <<EOF
#!/bin/sh
ifconfig \$1 10.9.7.1 netmask 255.255.255.0 up
EOF
chmod +x /tmp/up
head -c 4194304 /dev/urandom >/tmp/file
digest=$(sha256sum </tmp/file | cut -c1-64)

# inner NAME [NETDEV OPTIONS]
inner() {
  echo "RINGWAY: step booting a machine in the machine: $1"
  nc -l -p 5000 </tmp/file >/dev/null &
  server=$!
  QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu /tools/qemu-system-x86_64 -L /firmware -nodefaults -no-user-config -display none -accel tcg -cpu max,la57=off -no-reboot \
    -machine q35,memory-backend=ram -m 192M -object memory-backend-memfd,id=ram,size=192M,share=on \
    -serial stdio -kernel /nested/vmlinux -initrd /nested/initramfs \
    -append "console=ttyS0 loglevel=4 nokaslr mitigations=off tsc=reliable no_timer_check panic=-1 lpj=1000000" \
    -netdev "tap,id=net,ifname=tap0,script=/tmp/up,downscript=no,vhost=on${2:-}" \
    -device virtio-net-pci,netdev=net,romfile= </dev/null 2>&1 | tee /tmp/out | sed 's/RINGWAY:/NESTED:/'
  kill $server 2>/dev/null
  grep -q "RINGWAY: tell pings 20" /tmp/out || failed "$1: no pings from the machine in the machine"
  grep -q "RINGWAY: tell digest $digest" /tmp/out || failed "$1: another file than ours"
  echo "RINGWAY: tell $1 ok"
}

exec 9<>/dev/vhost-net-ringway || failed "the device cannot be opened"
inner cuse ,vhostfd=9
cat /tmp/cuse.log
grep -q "NET_SET_BACKEND" /tmp/cuse.log && failed "the tap was refused"
exec 9>&-
inner linux ,vhostforce=on
echo "RINGWAY: PASS"

# A machine in the machine: unmodified QEMU on a device that ringway cuse has made, over a tap of QEMU's own. The inner
# guest pings us.
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
echo "RINGWAY: step booting a machine in the machine"
cat >/tmp/up <<EOF
#!/bin/sh
ifconfig \$1 10.9.7.1 netmask 255.255.255.0 up
EOF
chmod +x /tmp/up
exec 9<>/dev/vhost-net-ringway || failed "the device cannot be opened"
QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu /tools/qemu-system-x86_64 -L /firmware -nodefaults -no-user-config -display none -accel tcg -cpu max,la57=off -no-reboot \
  -machine q35,memory-backend=ram -m 192M -object memory-backend-memfd,id=ram,size=192M,share=on \
  -serial stdio -kernel /nested/vmlinux -initrd /nested/initramfs \
  -append "console=ttyS0 loglevel=4 nokaslr mitigations=off tsc=reliable no_timer_check panic=-1 lpj=1000000" \
  -netdev tap,id=net,ifname=tap0,script=/tmp/up,downscript=no,vhost=on,vhostfd=9 \
  -device virtio-net-pci,netdev=net,romfile= </dev/null 2>&1 | tee /tmp/out | sed 's/RINGWAY:/NESTED:/'
grep -q "RINGWAY: tell pings 20" /tmp/out || failed "no pings from the machine in the machine"
cat /tmp/cuse.log
grep -q "NET_SET_BACKEND" /tmp/cuse.log && failed "the tap was refused"
echo "RINGWAY: tell nested ok"
echo "RINGWAY: PASS"

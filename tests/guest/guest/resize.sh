# The disk grows while it is mounted and written to.

. /lab.sh

make_ext4
mount -t ext4 $disk /mnt
fill /mnt/files
before=$(cat $sys/size)

step "growing the disk while it is written to"
busy
sectors=$(ask grow)
until_true 10 is $sys/size "$sectors" || fail "the guest sees $(cat $sys/size) sectors, not $sectors (were $before)"
[ "$sectors" -gt "$before" ]
idle

step "resize2fs, mounted"
resize2fs $disk
step "filling more than the old size"
head -c 1048576 /dev/urandom >/tmp/piece
mkdir /mnt/more
for i in $(seq $((before / 2048))); do cp /tmp/piece /mnt/more/$i; done
(cd /mnt/more && sha256sum ./* >SUMS)
remount
check /mnt/files
check /mnt/more
fsck
pass

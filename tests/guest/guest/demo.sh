# What ./dev demo shows. "> " marks what the host shows as the guest's own words.

. /lab.sh
stty onlcr

show() {
  echo "> # $*"
  "$@" 2>&1 | sed 's/^/> /'
}

show uname -srv
show lsblk -o NAME,TYPE,SIZE,RO,LOG-SEC,MOUNTPOINT
step "formatting it"
echo "> # mkfs.ext4 $disk"
mke2fs -F -t ext4 -E nodiscard $disk >/tmp/made 2>&1
sed -n 's/^Creating/> Creating/p' /tmp/made
mount -t ext4 $disk /mnt
show df -h /mnt

step "writing files to it"
mkdir /mnt/files
cd /mnt/files
for i in $(seq 80); do head -c $((i * 16000)) /dev/urandom >file$i; done
sync
sha256sum file* >SUMS
cd /
echo "> # sha256sum file* | head -n 3"
head -n 3 /mnt/files/SUMS | sed 's/^/> /'
echo "> $(wc -l </mnt/files/SUMS) files, $(du -sh /mnt/files | cut -f 1)"

step "unmounting, forgetting every cached page, mounting again"
remount >/dev/null
step "verifying every file against its checksum"
(cd /mnt/files && sha256sum -c SUMS >/tmp/verified)
echo "> $(grep -c OK /tmp/verified) files are what they were"
step "checking the file system"
umount /mnt
drop_caches
echo "> # e2fsck -fn $disk"
e2fsck -fn $disk 2>/dev/null | tail -n 1 | sed 's/^/> /'
pass

# A disk that an earlier boot filled (the host knows the digest of its checksum file) is as it was left.

. /lab.sh

mount -t ext4 $disk /mnt
step "these are the files of the first boot"
[ "$(digest /mnt/files)" = "$(ask digest)" ]
check /mnt/files
fsck
pass

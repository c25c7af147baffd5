# The life of a disk: made, filled, mounted again, checked. Words on the kernel command line say what the guest must
# have agreed on with the back-end, so that a test cannot pass on something simpler.

. /lab.sh

queues=1
for word in $(cat /proc/cmdline); do
  case $word in
    lab.queues=*) queues=${word#*=} ;;
    lab.split)
      step "split rings are agreed on"
      refused has_feature $VIRTIO_F_RING_PACKED
      ;;
    lab.packed)
      step "packed rings are agreed on"
      has_feature $VIRTIO_F_RING_PACKED
      ;;
    lab.legacy)
      step "the device is a legacy one"
      refused has_feature $VIRTIO_F_VERSION_1
      ;;
    lab.iommu)
      step "the disk is behind the IOMMU, with a device IOTLB"
      has_feature $VIRTIO_F_ACCESS_PLATFORM
      translated
      ats_enabled
      ;;
  esac
done

step "the disk has $queues queue(s)"
[ "$(ls $sys/mq | wc -l)" = "$queues" ]
[ "$queues" = 1 ] || has_feature $VIRTIO_BLK_F_MQ

make_ext4
mount -t ext4 $disk /mnt
fill_on_every_queue /mnt/files "$queues"
remount
check /mnt/files
fsck
step "every queue had work"
for queue in $(seq 0 $((queues - 1))); do
  [ "$(interrupts "req.$queue")" -gt 0 ]
done
pass

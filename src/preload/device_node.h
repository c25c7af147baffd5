// What the file system tells of /dev/vhost-net while it is ours: a character device that whoever is at work
// may read and write, as open() lets it. Any thread. linux/miscdevice.h.
#pragma once

#include <sys/stat.h>

namespace ringway::preload {

// What the system calls return, or minus an errno. `to` may be anywhere.
int describe_node(struct stat* to);
int describe_node(struct stat64* to);
int describe_node(struct statx* to);
int access_node(int mode);

}  // namespace ringway::preload

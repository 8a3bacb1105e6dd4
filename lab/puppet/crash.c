// The kernel that takes over when this one crashes, as kdump has it.
//
// The disk that carries it: "KERNEL-BYTES INITRAMFS-BYTES\n" in the first sector, then both.
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "puppet.h"

enum { sector = 512 };

// The kernel wants regular files that nobody writes. The disk's next bytes as one, or -1.
static int unpack(int disk, size_t size, const char* path) {
  const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  while (file >= 0 && size > 0) {
    const ssize_t done = sendfile(file, disk, NULL, size);
    if (done <= 0) return -1;
    size -= done;
  }
  close(file);
  return open(path, O_RDONLY | O_CLOEXEC);
}

int load_crash_kernel(const char* command_line) {
  char head[sector] = "";
  size_t kernel_size, initramfs_size;
  const int disk = open("/dev/vda", O_RDONLY | O_CLOEXEC);
  if (disk < 0 || read(disk, head, sizeof(head)) != sizeof(head)) return -1;
  head[sector - 1] = 0;
  if (sscanf(head, "%zu %zu\n", &kernel_size, &initramfs_size) != 2) {
    errno = EINVAL;
    return -1;
  }
  const int kernel = unpack(disk, kernel_size, "/crash-kernel");
  const int initramfs = unpack(disk, initramfs_size, "/crash-initramfs");
  if (kernel < 0 || initramfs < 0) return -1;
  const long done = syscall(SYS_kexec_file_load, kernel, initramfs, strlen(command_line) + 1,
                            command_line, KEXEC_FILE_ON_CRASH);
  close(kernel);
  close(initramfs);
  close(disk);
  return done ? -1 : 0;
}

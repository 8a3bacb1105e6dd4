// What an init does before anything else: mounts, modules, network.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "puppet.h"

// Nothing can pivot away from the initial root, as containers want to. So put a mount of it on
// top of it, as a distribution's initramfs does with the real root.
static void cover_root(void) {
  mkdir("/cover", 0755);
  if (mount("/", "/cover", NULL, MS_BIND, NULL) || chdir("/cover") ||
      mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
    dprintf(2, "puppet: cover root: %s\n", strerror(errno));
}

void setup_mounts(void) {
  cover_root();
  static const struct {
    const char *type, *target;
  } mounts[] = {
      {"proc", "/proc"},     {"sysfs", "/sys"},
      {"devtmpfs", "/dev"},  {"devpts", "/dev/pts"},
      {"tmpfs", "/dev/shm"}, {"tmpfs", "/run"},
      {"tmpfs", "/tmp"},     {"debugfs", "/sys/kernel/debug"},
  };
  for (size_t i = 0; i < COUNT(mounts); i++) {
    mkdir(mounts[i].target, 0755);
    mount(mounts[i].type, mounts[i].target, mounts[i].type, 0, NULL);
  }
}

// Modules loaded by hand do not see their parameters on the kernel's command line
// (`virtio_mmio.device=...`, as microvm gives them); modprobe would pass them on.
static void parameters_of(const char* module, char* out, size_t size) {
  char line[4096] = "", prefix[64];
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
  close(fd);
  line[got < 0 ? 0 : got] = 0;
  int prefix_size = snprintf(prefix, sizeof(prefix), "%s.", module);
  out[0] = 0;
  char* rest;
  for (char* word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
    if (strncmp(word, prefix, prefix_size) == 0)
      snprintf(out + strlen(out), size - strlen(out), "%s ", word + prefix_size);
}

static int load(const char* module) {
  char path[128], parameters[1024];
  snprintf(path, sizeof(path), "/modules/%s.ko", module);
  parameters_of(module, parameters, sizeof(parameters));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int failed = syscall(SYS_finit_module, fd, parameters, 0) < 0 && errno != EEXIST;
  int error = errno;
  close(fd);
  return failed ? -error : 0;
}

void setup_modules(void) {
  FILE* list = fopen("/modules/boot", "re");
  char name[128];
  while (list && fscanf(list, "%127s", name) == 1) {
    int error = load(name);
    if (error && error != -ENODEV) dprintf(2, "puppet: module %s: %s\n", name, strerror(-error));
  }
  if (list) fclose(list);
}

int setup_module(const char* name) {
  FILE* chains = fopen("/modules/chains", "re");
  char line[1024];
  int result = -ENOENT;
  while (chains && fgets(line, sizeof(line), chains)) {
    char* rest;  // load() takes another line apart meanwhile
    char* word = strtok_r(line, " \n", &rest);
    if (!word || strcmp(word, name) != 0) continue;
    result = 0;
    while (result == 0 && (word = strtok_r(NULL, " \n", &rest))) result = load(word);
  }
  if (chains) fclose(chains);
  return result;
}

static int interface(unsigned long request, struct ifreq* wish) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int result = ioctl(fd, request, wish);
  close(fd);
  return result;
}

int bring_up(const char* device) {
  struct ifreq wish = {0};
  snprintf(wish.ifr_name, sizeof(wish.ifr_name), "%s", device);
  if (interface(SIOCGIFFLAGS, &wish) < 0) return -1;
  wish.ifr_flags |= IFF_UP;
  return interface(SIOCSIFFLAGS, &wish);
}

static void set_address(const char* device, const char* address) {
  struct ifreq wish = {0};
  struct sockaddr_in* in = (struct sockaddr_in*)&wish.ifr_addr;
  snprintf(wish.ifr_name, sizeof(wish.ifr_name), "%s", device);
  in->sin_family = AF_INET;
  inet_pton(AF_INET, address, &in->sin_addr);
  if (interface(SIOCSIFADDR, &wish) < 0) return;
  inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
  interface(SIOCSIFNETMASK, &wish);
}

void setup_network(void) {
  bring_up("lo");
  set_address("eth0", "10.0.2.15");  // what QEMU's user network expects
  bring_up("eth0");
}

// What else this guest is to run; it may take its time.
void setup_programs(void) {
  if (access("/etc/start", R_OK) == 0 && system("sh /etc/start </dev/null >/dev/null 2>&1 &"))
    dprintf(2, "puppet: start the guest's other programs: %s\n", strerror(errno));
}

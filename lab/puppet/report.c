// The guest's own view of itself, raw: an archive of what its /proc says.
//
// A record is { u32 path size; i32 data size, or -errno; path; data }. Paths are those of
// /proc, except `net/INODE/...` and `mnt/INODE/...` for what a namespace
// says, `cgroup/DEVICE/...` for control groups, `uname`, `kmsg`, and `reporter` (the PID of this program).
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "puppet.h"

static char* content;  // grows to the largest file seen
static size_t capacity;

static void emit(const char* path, const void* data, ssize_t size) {
  int32_t header[2] = {strlen(path), size};
  channel_write(header, sizeof(header));
  channel_write(path, header[0]);
  if (size > 0) channel_write(data, size);
}

// What a file of `directory` says, under a path of the archive.
static void emit_from(int directory, const char* name, const char* path) {
  int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    emit(path, NULL, -errno);
    return;
  }
  size_t used = 0;
  ssize_t size;
  do {
    if (capacity - used < 1 << 16) content = realloc(content, capacity += 1 << 18);
    size = read(fd, content + used, capacity - used);
    used += size > 0 ? size : 0;
  } while (size > 0 || (size < 0 && errno == EPIPE));  // EPIPE: /dev/kmsg was overrun
  int failed = size < 0 && errno != EAGAIN && used == 0;
  emit(path, content, failed ? -errno : (ssize_t)used);
  close(fd);
}

static void emit_as(const char* file, const char* path) { emit_from(AT_FDCWD, file, path); }

static void emit_file(const char* path) { emit_as(path, path); }

static void emit_link(int directory, const char* name, const char* path) {
  char target[4096];
  ssize_t size = readlinkat(directory, name, target, sizeof(target));
  emit(path, target, size < 0 ? -errno : size);
}

// Below, `base` is /proc/PID or /proc/PID/task/TID, and `directory` the same, open: there may be
// very many processes.

static void emit_entry(int directory, const char* base, const char* name) {
  char path[96];
  snprintf(path, sizeof(path), "%s/%s", base, name);
  emit_from(directory, name, path);
}

static void emit_link_entry(int directory, const char* base, const char* name) {
  char path[96];
  snprintf(path, sizeof(path), "%s/%s", base, name);
  emit_link(directory, name, path);
}

// What stat says of the file behind a link: inode, mode, device it stands for, size, links.
static void emit_stat(int directory, const char* name, const char* path) {
  struct stat info;
  if (fstatat(directory, name, &info, 0) != 0) return;
  char text[160];
  int used = snprintf(text, sizeof(text), "%llu %o %u:%u %lld %lu %02x:%02x",
                      (unsigned long long)info.st_ino, info.st_mode, major(info.st_rdev),
                      minor(info.st_rdev), (long long)info.st_size, (unsigned long)info.st_nlink,
                      major(info.st_dev), minor(info.st_dev));
  emit(path, text, used);
}

static void report_socket(const char* base, int fd) {
  char path[96], name[64];
  snprintf(path, sizeof(path), "%s/fd/%d", base, fd);
  ssize_t used = getxattr(path, "system.sockprotoname", name, sizeof(name));
  snprintf(path, sizeof(path), "%s/fdproto/%d", base, fd);
  emit(path, name, used < 0 ? -errno : used);
}

// What a socket says of itself, as numbers: domain, type, protocol, device, IPv6 only (-1: not said),
// the 32 bits of netlink groups, and the sizes of its two buffers. Descriptors are those of the main thread.
static void report_options(int pid, int fd) {
  char path[64], text[256];
  int process = syscall(SYS_pidfd_open, pid, 0);
  int copy = syscall(SYS_pidfd_getfd, process, fd, 0);
  close(process);
  snprintf(path, sizeof(path), "/proc/%d/sockopt/%d", pid, fd);
  if (copy < 0) {
    emit(path, NULL, -errno);
    return;
  }
  int values[7] = {-1, -1, -1, -1, -1, -1, -1};
  static const int names[][2] = {{SOL_SOCKET, SO_DOMAIN},     {SOL_SOCKET, SO_TYPE},
                                 {SOL_SOCKET, SO_PROTOCOL},   {SOL_SOCKET, SO_BINDTOIFINDEX},
                                 {IPPROTO_IPV6, IPV6_V6ONLY}, {SOL_SOCKET, SO_RCVBUF},
                                 {SOL_SOCKET, SO_SNDBUF}};
  for (size_t i = 0; i < COUNT(names); i++) {
    socklen_t size = sizeof(values[i]);
    getsockopt(copy, names[i][0], names[i][1], &values[i], &size);
  }
  unsigned groups = 0;
  union {
    struct sockaddr any;
    struct sockaddr_ll packet;
    struct sockaddr_nl netlink;
  } name;
  socklen_t size = sizeof(name);
  bool named = getsockname(copy, &name.any, &size) == 0;
  if (named && name.any.sa_family == AF_PACKET) {
    values[2] = ntohs(name.packet.sll_protocol);
    values[3] = name.packet.sll_ifindex;
  }
  if (named && name.any.sa_family == AF_NETLINK) groups = name.netlink.nl_groups;
  int used = snprintf(text, sizeof(text), "%d %d %d %d %d %u %d %d", values[0], values[1],
                      values[2], values[3], values[4], groups, values[5], values[6]);
  emit(path, text, used);
  close(copy);
}

static void report_file(int directory, const char* base, int pid, int fd) {
  char path[96], target[4096], name[32];
  if (fd == directory && pid == getpid()) return;  // it is only there because we look
  snprintf(path, sizeof(path), "%s/fd/%d", base, fd);
  snprintf(name, sizeof(name), "fd/%d", fd);
  ssize_t size = readlinkat(directory, name, target, sizeof(target));
  if (size < 0) return;
  emit(path, target, size);
  snprintf(path, sizeof(path), "%s/fdstat/%d", base, fd);
  emit_stat(directory, name, path);
  if (size > 7 && memcmp(target, "socket:", 7) == 0) {
    report_socket(base, fd);
    if (strstr(base, "/task/") == NULL) report_options(pid, fd);
  }
  snprintf(path, sizeof(path), "%s/fdinfo/%d", base, fd);
  snprintf(name, sizeof(name), "fdinfo/%d", fd);
  emit_from(directory, name, path);
}

static void report_files(int directory, const char* base, int pid) {
  char path[96];
  snprintf(path, sizeof(path), "%s/fd", base);
  int count;
  int* fds = numbers_in(path, &count);
  for (int i = 0; i < count; i++) report_file(directory, base, pid, fds[i]);
  free(fds);
}

static const char* const places[] = {"cwd", "root"};

static void report_places(int directory, const char* base) {
  char path[96];
  for (size_t i = 0; i < COUNT(places); i++) {
    emit_link_entry(directory, base, places[i]);
    snprintf(path, sizeof(path), "%s/filestat/%s", base, places[i]);
    emit_stat(directory, places[i], path);
  }
}

// What threads have in common.
static void report_program(int directory, const char* base) {
  static const char* const files[] = {"cmdline", "maps"};
  static const char* const links[] = {"exe", "ns/pid", "ns/mnt", "ns/net"};
  char path[96];
  for (size_t i = 0; i < COUNT(files); i++) emit_entry(directory, base, files[i]);
  for (size_t i = 0; i < COUNT(links); i++) emit_link_entry(directory, base, links[i]);
  snprintf(path, sizeof(path), "%s/filestat/exe", base);
  emit_stat(directory, "exe", path);
}

static bool shares_files(int a, int b) { return syscall(SYS_kcmp, a, b, KCMP_FILES, 0, 0) == 0; }

static bool lives(int directory) {
  char target[8];
  return readlinkat(directory, "exe", target, sizeof(target)) > 0;
}

// A thread, with its files if none of the threads before it has the same descriptor table, and with
// all the rest if the main thread has ended.
static void report_thread(int pid, const int* threads, int index, bool headless) {
  char base[64];
  snprintf(base, sizeof(base), "/proc/%d/task/%d", pid, threads[index]);
  int directory = open(base, O_PATH | O_CLOEXEC);
  emit_entry(directory, base, "stat");
  emit_entry(directory, base, "status");
  report_places(directory, base);
  bool shared = threads[index] == pid;
  for (int i = 0; i < index && !shared; i++) shared = shares_files(threads[i], threads[index]);
  if (!shared) report_files(directory, base, pid);
  if (headless && lives(directory)) report_program(directory, base);
  close(directory);
}

static void report_process(int pid) {
  char base[64], path[96];
  snprintf(base, sizeof(base), "/proc/%d", pid);
  int directory = open(base, O_PATH | O_CLOEXEC);
  emit_entry(directory, base, "stat");
  emit_entry(directory, base, "status");
  emit_entry(directory, base, "cgroup");
  report_program(directory, base);
  report_places(directory, base);
  report_files(directory, base, pid);
  int count;
  snprintf(path, sizeof(path), "/proc/%d/task", pid);
  int* threads = numbers_in(path, &count);
  bool headless = count > 1 && !lives(directory);
  for (int i = 0; i < count; i++) report_thread(pid, threads, i, headless);
  free(threads);
  close(directory);
}

// All answers to one rtnetlink dump request, as they come.
static void emit_rtnetlink(const char* name, int type) {
  struct {
    struct nlmsghdr header;
    struct rtgenmsg message;
  } request = {
      .header = {.nlmsg_len = sizeof(request),
                 .nlmsg_type = type,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
  };
  static char answers[1 << 20];
  size_t used = 0;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  send(fd, &request, sizeof(request), 0);
  for (bool done = false; !done && used < sizeof(answers);) {
    ssize_t size = recv(fd, answers + used, sizeof(answers) - used, 0);
    if (size <= 0) break;
    done = ((struct nlmsghdr*)(answers + used))->nlmsg_type <= NLMSG_DONE;
    used += size;
  }
  close(fd);
  emit(name, answers, used);
}

static void report_network(ino_t inode) {
  static const char* const tables[] = {"tcp",     "tcp6", "udp",     "udp6", "udplite",
                                       "unix",    "raw",  "raw6",    "icmp", "packet",
                                       "netlink", "dev",  "if_inet6"};
  char path[64], name[64];
  for (size_t i = 0; i < COUNT(tables); i++) {
    snprintf(path, sizeof(path), "/proc/thread-self/net/%s", tables[i]);
    snprintf(name, sizeof(name), "net/%lu/%s", inode, tables[i]);
    emit_as(path, name);
  }
  snprintf(name, sizeof(name), "net/%lu/links", inode);
  emit_rtnetlink(name, RTM_GETLINK);
  snprintf(name, sizeof(name), "net/%lu/addresses", inode);
  emit_rtnetlink(name, RTM_GETADDR);
}

static ino_t seen[4096];  // namespaces of one kind
static size_t known;

static bool is_new(ino_t inode) {
  for (size_t at = 0; at < known; at++) {
    if (seen[at] == inode) return false;
  }
  if (known == COUNT(seen)) return false;
  seen[known++] = inode;
  return true;
}

// Calls visit(path, pid, inode) for the first process of each namespace of a kind.
static void each_namespace(const char* kind, const int* pids, int count,
                           void (*visit)(const char*, int, ino_t)) {
  known = 0;
  for (int i = 0; i < count; i++) {
    char path[64];
    struct stat info;
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", pids[i], kind);
    if (stat(path, &info) == 0 && is_new(info.st_ino)) visit(path, pids[i], info.st_ino);
  }
}

static void visit_network(const char* path, int pid, ino_t inode) {
  (void)pid;
  int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  int away = open(path, O_RDONLY | O_CLOEXEC);
  if (away >= 0 && setns(away, CLONE_NEWNET) == 0) {
    report_network(inode);
    setns(home, CLONE_NEWNET);
  }
  close(away);
  close(home);
}

// Those in which no process lives, but which are mounted, as `ip netns add` does it.
static void each_named_network(void) {
  FILE* mounts = fopen("/proc/self/mountinfo", "re");
  char line[4096], target[1024];
  while (mounts && fgets(line, sizeof(line), mounts)) {
    struct stat info;
    if (sscanf(line, "%*s %*s %*s net:[%*u] %1023s", target) != 1) continue;
    if (stat(target, &info) == 0 && is_new(info.st_ino)) visit_network(target, 0, info.st_ino);
  }
  if (mounts) fclose(mounts);
}

static void visit_mounts(const char* of, int pid, ino_t inode) {
  (void)of;
  char path[64], name[64];
  snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
  snprintf(name, sizeof(name), "mnt/%lu/mountinfo", inode);
  emit_as(path, name);
}

static const char* const group_files[] = {
    "cgroup.controllers",
    "memory.current",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.swap.current",
    "pids.current",
    "pids.max",
    "cpu.weight",
    "cpu.max",
    "memory.usage_in_bytes",
    "memory.limit_in_bytes",
    "cpu.stat",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
};

// A control group and those below, as cgroup/DEVICE/PATH/FILE.
static void report_groups(const char* directory, const char* path) {
  char below[4096], name[4096];
  struct stat info;
  DIR* list = opendir(directory);
  if (list == NULL || stat(directory, &info) != 0) return;
  snprintf(name, sizeof(name), "%s/inode", path);
  snprintf(below, sizeof(below), "%lu", (unsigned long)info.st_ino);
  emit(name, below, strlen(below));
  for (size_t i = 0; i < COUNT(group_files); i++) {
    if (faccessat(dirfd(list), group_files[i], F_OK, 0) != 0) continue;
    snprintf(name, sizeof(name), "%s/%s", path, group_files[i]);
    emit_from(dirfd(list), group_files[i], name);
  }
  for (struct dirent* entry; (entry = readdir(list)) != NULL;) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    snprintf(below, sizeof(below), "%s/%s", directory, entry->d_name);
    snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
    report_groups(below, name);
  }
  closedir(list);
}

// Each hierarchy once, with its line of mountinfo as cgroup/DEVICE.
static void report_hierarchies(void) {
  FILE* mounts = fopen("/proc/self/mountinfo", "re");
  char line[4096], device[32], root[1024], target[1024], name[64];
  known = 0;
  while (mounts && fgets(line, sizeof(line), mounts)) {
    struct stat info;
    const char* type = strstr(line, " - cgroup");
    if (!type || sscanf(line, "%*s %*s %31s %1023s %1023s", device, root, target) != 3) continue;
    if (strcmp(root, "/") != 0 || stat(target, &info) != 0 || !is_new(info.st_dev)) continue;
    snprintf(name, sizeof(name), "cgroup/%s", device);
    emit(name, line, strlen(line));
    report_groups(target, name);
  }
  if (mounts) fclose(mounts);
}

static void report_system(void) {
  static const char* const files[] = {
      "/proc/version",
      "/proc/uptime",
      "/proc/cmdline",
      "/proc/cpuinfo",
      "/proc/stat",
      "/proc/meminfo",
      "/proc/locks",
      "/proc/modules",
      "/proc/sys/kernel/random/boot_id",
      "/sys/devices/system/cpu/online",
      "/sys/devices/system/cpu/cpu0/cache/index0/size",
      "/sys/devices/system/cpu/cpu0/cache/index2/size",
      "/sys/devices/system/cpu/cpu0/cache/index3/size",
  };
  for (size_t i = 0; i < COUNT(files); i++) emit_file(files[i]);
  struct utsname name;
  uname(&name);
  emit("uname", &name, sizeof(name));
  emit_as("/dev/kmsg", "kmsg");
  char self[16];
  emit("reporter", self, snprintf(self, sizeof(self), "%d", getpid()));
}

void report(void) {
  int count;
  int* pids = numbers_in("/proc", &count);
  report_system();
  for (int i = 0; i < count; i++) report_process(pids[i]);
  each_namespace("net", pids, count, visit_network);
  each_named_network();
  each_namespace("mnt", pids, count, visit_mounts);
  report_hierarchies();
  free(pids);
}

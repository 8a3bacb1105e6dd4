// A small state, made by hand, that every renderer is tested on.
#pragma once

#include "render/json.h"
#include "vmsight/state.h"

namespace vmsight {

inline VmSummary sample_vm() {
  return {.name = "web1",
          .pid = 4711,
          .accelerator = "kvm",
          .vcpus = 2,
          .memory_bytes = 512ull << 20,
          .machine = "q35"};
}

inline Process sample_process(std::int32_t pid, std::int32_t ppid, std::string_view comm) {
  Process process;
  process.pid = process.tgid = pid;
  process.ppid = ppid;
  process.comm = comm;
  process.state = 'S';
  process.uid = process.euid = process.gid = process.egid = 0;
  process.threads = 1;
  process.start_time_ns = 2'000'000'000;
  return process;
}

/// init, a server with a hostile name, a kernel thread, a zombie.
inline void fill_sample(State& state) {
  state.view = {.technique = "live-map",
                .start_ns = 10,
                .duration_ns = 2'500'000,
                .bytes_read = 8192,
                .pages = 2};
  state.os = {.sysname = "Linux",
              .nodename = "vm",
              .release = "6.1.0-1-amd64",
              .version = "#1 SMP",
              .machine = "x86_64",
              .uptime_s = 100,
              .cmdline = "quiet"};
  state.cpus = {{.cpu = 0,
                 .vendor = "GenuineIntel",
                 .model_name = "Some CPU",
                 .mhz = 2000.5,
                 .cache_kib = 512,
                 .online = true},
                {.cpu = 1, .online = false}};

  Process init = sample_process(1, 0, "init");
  init.cmdline = {"/sbin/init", "splash"};
  init.exe = "/sbin/init";
  init.cwd = init.root = "/";
  init.rss_bytes = 4096 * 100;
  init.vsize_bytes = 4096 * 1000;
  init.utime_ns = 61'000'000'000;
  init.ns_pids = {1};
  init.mntns = 4026531840;
  Process server = sample_process(42, 1, "ser\x1b[2Jver");
  server.cmdline = {"server", "--name", "caf\xe9"};
  server.uid = server.euid = 1000;
  server.threads = 2;
  server.rss_bytes = 4096;
  server.ns_pids = {42, 7};
  server.tty_nr = 4 << 8 | 64;
  Process kthread = sample_process(2, 0, "kthreadd");
  kthread.kernel_thread = true;
  Process zombie = sample_process(50, 42, "child");
  zombie.state = 'Z';
  zombie.validity = Validity::zombie;
  state.processes = {init, kthread, server, zombie};
  state.threads = {{.pid = 1, .tgid = 1, .comm = "init", .state = 'S', .cpu = 0},
                   {.pid = 42, .tgid = 42, .comm = "server", .state = 'S', .cpu = 0},
                   {.pid = 43, .tgid = 42, .comm = "worker", .state = 'R', .cpu = 1}};

  state.open_files = {{.pid = 42,
                       .fd = 0,
                       .type = "CHR",
                       .path = "/dev/null",
                       .flags = 0100002,
                       .inode = 5,
                       .device = 0x500001,
                       .tid = 42},
                      {.pid = 42,
                       .fd = 3,
                       .type = "SOCK",
                       .path = "socket:[900]",
                       .flags = 02,
                       .inode = 900,
                       .tid = 42},
                      {.pid = 42,
                       .fd = 4,
                       .type = "REG",
                       .path = "/tmp/x (deleted)",
                       .pos = 10,
                       .flags = 02000001,
                       .inode = 77,
                       .device = 254ull << 20 | 1,
                       .size = 4711,
                       .tid = 42}};
  MemoryMap map{.pid = 42,
                .start = 0x400000,
                .end = 0x402000,
                .path = "/usr/bin/server",
                .inode = 12,
                .device = 254ull << 20 | 1};
  std::copy_n("r-xp", 5, map.perms);
  MemoryMap anonymous{.pid = 42, .start = 0x7f0000000000, .end = 0x7f0000001000, .path = ""};
  std::copy_n("rw-s", 5, anonymous.perms);
  state.memory_maps = {map, anonymous};

  Socket listener{.pid = 42,
                  .fd = 3,
                  .netns = 4026531840,
                  .family = "inet",
                  .protocol = "tcp",
                  .type = "stream",
                  .state = "LISTEN",
                  .local = "0.0.0.0",
                  .remote = "0.0.0.0",
                  .local_port = 80,
                  .inode = 900,
                  .tid = 42};
  Socket shared = listener;
  shared.pid = shared.tid = 50;
  Socket gone{.netns = 4026531840,
              .family = "inet6",
              .protocol = "tcp",
              .type = "stream",
              .state = "TIME_WAIT",
              .local = "fe80::1",
              .remote = "fe80::2",
              .local_port = 80,
              .remote_port = 4000};
  Socket log{.pid = 42,
             .fd = 9,
             .netns = 4026531840,
             .family = "unix",
             .protocol = "unix",
             .type = "dgram",
             .state = "ESTABLISHED",
             .local = "/run/log",
             .remote = "",
             .inode = 901,
             .peer_inode = 902,
             .tid = 42};
  state.sockets = {listener, shared, gone, log};

  state.net_devices = {{.name = "lo",
                        .netns = 4026531840,
                        .hwaddr = "00:00:00:00:00:00",
                        .flags = {"LOOPBACK", "UP", "LOWER_UP"},
                        .mtu = 65536,
                        .ifindex = 1,
                        .ipv4 = {"127.0.0.1/8"},
                        .ipv6 = {"::1/128"},
                        .rx_bytes = 10,
                        .tx_bytes = 10,
                        .rx_packets = 1,
                        .tx_packets = 1,
                        .addresses = {{.family = "inet",
                                       .local = "127.0.0.1",
                                       .prefix = 8,
                                       .scope = "host",
                                       .label = "lo",
                                       .valid_life_time = ~0u,
                                       .preferred_life_time = ~0u},
                                      {.family = "inet6",
                                       .local = "::1",
                                       .prefix = 128,
                                       .scope = "host",
                                       .label = "",
                                       .flags = {"tentative", "dynamic"},
                                       .valid_life_time = 7,
                                       .preferred_life_time = 0}},
                        .link_type = "loopback",
                        .operstate = "UNKNOWN",
                        .broadcast = "00:00:00:00:00:00",
                        .kind = "",
                        .qdisc = "noqueue",
                        .alias = "",
                        .tx_queue_length = 1000,
                        .master = "",
                        .link_index = 1,
                        .link = ""}};
  state.modules = {{.name = "virtio_net", .state = "Live", .size = 61440, .refcount = 0},
                   {.name = "failover",
                    .state = "Live",
                    .size = 16384,
                    .refcount = 1,
                    .used_by = {"net_failover"}}};
  state.mounts = {{.source = "/dev/vda1",
                   .target = "/",
                   .fstype = "ext4",
                   .options = "rw",
                   .mntns = 4026531840,
                   .id = 1,
                   .parent = 0,
                   .root = "/",
                   .super_options = "rw,errors=remount-ro"},
                  {.source = "proc",
                   .target = "/proc",
                   .fstype = "proc",
                   .options = "rw,nosuid",
                   .mntns = 4026531840,
                   .id = 2,
                   .parent = 1,
                   .root = "/",
                   .super_options = "rw"},
                  {.source = "/dev/vda1",
                   .target = "/srv/www",
                   .fstype = "ext4",
                   .options = "ro",
                   .mntns = 4026531840,
                   .id = 3,
                   .parent = 1,
                   .root = "/www",
                   .super_options = "rw,errors=remount-ro"}};
  state.kernel_log = {{.time_ns = 0, .level = 5, .facility = 0, .text = "Linux version 6.1"},
                      {.time_ns = 12'345'678'000,
                       .sequence = 1,
                       .level = 3,
                       .facility = 0,
                       .text = "oops\nsecond line\x1b[0m"}};
  state.problems = {{"process 42", "cwd: gva:0x10 is not mapped"}};
}

}  // namespace vmsight

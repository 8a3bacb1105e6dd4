// Calls that only attacks make, as far as they are harmless on a kernel that is mended: each enters the
// function where the mistake was with arguments that the kernel refuses today.
#include <net/if.h>
#include <netinet/in.h>

// The kernel's headers come behind: they know what is in those above.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/keyctl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "puppet.h"

static int own_network(void) { return unshare(CLONE_NEWNET) || bring_up("lo") ? -1 : 0; }

// ---- pipes, keys, programs, files ----

static int call_vmsplice(void) {
  int ends[2];
  struct iovec piece = {.iov_base = ends, .iov_len = (size_t)-1};
  return pipe(ends) ? -1 : (int)syscall(SYS_vmsplice, ends[1], &piece, 1, 0);
}

static int join_keyrings(int count) {
  for (int i = 0; i < count; i++) {
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "vmlab") < 0) return -1;
  }
  return 0;
}
static int call_keyring(void) { return join_keyrings(20); }
static int call_keyrings(void) { return join_keyrings(1001); }

static int call_execve(void) {
  char* nothing[] = {NULL};
  return execve("/bin/busybox", nothing, nothing);
}

// A page of a file in a pipe, and a byte behind it.
static int call_splice_and_write(void) {
  int ends[2], file = open("/bin/busybox", O_RDONLY);
  loff_t from = 0;
  if (file < 0 || pipe(ends)) return -1;
  if (splice(file, &from, ends[1], NULL, 1, 0) != 1) return -1;
  return write(ends[1], "x", 1) == 1 ? 0 : -1;
}

// Each line end is four characters in mountinfo, whose buffer grows to 16 MiB so.
static int call_long_line(void) {
  static char buffer[1 << 20];
  char name[256] = {0};
  memset(name, '\n', 255);
  if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
      mount("deep", "/tmp", "tmpfs", 0, NULL) || chdir("/tmp")) {
    return -1;
  }
  for (int i = 0; i < 8700; i++) {
    if (mkdir(name, 0755) || chdir(name)) return -1;
  }
  if (mount("end", ".", "tmpfs", 0, NULL)) return -1;
  const int lines = open("/proc/self/mountinfo", O_RDONLY);
  ssize_t size = 0;
  while (lines >= 0 && (size = read(lines, buffer, sizeof(buffer))) > 0)
    ;
  return lines < 0 || size < 0 ? -1 : 0;
}

static int call_mount_options(void) {
  enum { set_string = 1 };
  char key[251] = {0}, value[251] = {0};
  memset(key, 'k', 250);
  memset(value, 'v', 250);
  const int context = (int)syscall(SYS_fsopen, "pstore", 0);
  for (int i = 0; context >= 0 && i < 9; i++) {
    if (syscall(SYS_fsconfig, context, set_string, key, value, 0)) return -1;
  }
  return context < 0 ? -1 : 0;
}

static int call_release_agent(void) {
  mkdir("/tmp/hierarchy", 0755);
  if (mount("vmlab", "/tmp/hierarchy", "cgroup", 0, "none,name=vmlab")) return -1;
  const int agent = open("/tmp/hierarchy/release_agent", O_WRONLY);
  umount2("/tmp/hierarchy", MNT_DETACH);
  if (agent < 0 || setresuid(65534, 65534, 65534)) return -1;
  return write(agent, "/nothing", 8) == 8 ? 0 : -1;
}

// ---- sockets ----

static int call_packet_ring(void) {
  const int packets = socket(AF_PACKET, SOCK_RAW, 0), version = TPACKET_V3;
  const struct tpacket_req3 ring = {.tp_block_size = 4096,
                                    .tp_block_nr = 1,
                                    .tp_frame_size = 2048,
                                    .tp_frame_nr = 2,
                                    .tp_sizeof_priv = 0x80000000u};
  if (packets < 0 || setsockopt(packets, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)))
    return -1;
  return setsockopt(packets, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring));
}

static int call_urgent(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return -1;
  for (int i = 0; i < 4; i++) {
    if (send(pair[0], "u", 1, MSG_OOB) != 1) return -1;
  }
  return 0;
}

static int call_algorithm(void) {
  const int crypto = socket(AF_ALG, SOCK_SEQPACKET, 0);
  const struct sockaddr_alg name = {
      .salg_family = AF_ALG, .salg_type = "aead", .salg_name = "authencesn(hmac(sha256),cbc(aes))"};
  return crypto < 0 ? -1 : bind(crypto, (const struct sockaddr*)&name, sizeof(name));
}

// By the interface of 32-bit programs, in a user namespace: an empty table.
static int call_compat_tables(void) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) return -1;
  const int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (raw < 0) return -1;
  char* low =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (low == MAP_FAILED) return -1;
  strcpy(low, "filter");
  long result = 366;  // setsockopt of i386; its first argument is in EBX
  __asm__ volatile("int $0x80"
                   : "+a"(result)
                   : "b"((long)raw), "c"(0L), "d"(64L), "S"((long)low), "D"(96L)
                   : "memory", "r8", "r9", "r10", "r11");
  if (result >= 0) return 0;
  errno = (int)-result;
  return -1;
}

// ---- netlink ----

typedef struct {
  char bytes[4096];
  size_t size;
} Message;

static void* put(Message* message, const void* data, size_t size) {
  void* at = message->bytes + message->size;
  memcpy(at, data, size);
  message->size += NLMSG_ALIGN(size);
  return at;
}
static struct nlmsghdr* begin(Message* message, int type, int flags) {
  const struct nlmsghdr head = {.nlmsg_type = (unsigned short)type,
                                .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags)};
  return put(message, &head, sizeof(head));
}
static void end(Message* message, struct nlmsghdr* head) {
  head->nlmsg_len = (unsigned)(message->bytes + message->size - (char*)head);
}
static struct nlattr* open_attribute(Message* message, int type) {
  const struct nlattr head = {.nla_type = (unsigned short)type};
  return put(message, &head, sizeof(head));
}
static void close_attribute(Message* message, struct nlattr* attribute) {
  attribute->nla_len = (unsigned short)(message->bytes + message->size - (char*)attribute);
}
static void attribute(Message* message, int type, const void* data, size_t size) {
  struct nlattr* made = open_attribute(message, type);
  put(message, data, size);
  made->nla_len = (unsigned short)(sizeof(*made) + size);
}
static void text_attribute(Message* message, int type, const char* text) {
  attribute(message, type, text, strlen(text) + 1);
}
static void number_attribute(Message* message, int type, unsigned number) {
  const unsigned big_endian = htonl(number);
  attribute(message, type, &big_endian, sizeof(big_endian));
}

// Sends it, and reads answers until one is an error, or there were so many.
static int ask(int protocol, const Message* message, int answers) {
  const int line = socket(AF_NETLINK, SOCK_RAW, protocol);
  const struct timeval patience = {.tv_sec = 2};
  char buffer[8192];
  if (line < 0 || send(line, message->bytes, message->size, 0) < 0) return -1;
  setsockopt(line, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  for (int seen = 0; seen < answers;) {
    ssize_t size = recv(line, buffer, sizeof(buffer), 0);
    if (size < 0) return -1;
    for (struct nlmsghdr* head = (struct nlmsghdr*)buffer; NLMSG_OK(head, size);
         head = NLMSG_NEXT(head, size)) {
      const struct nlmsgerr* told = NLMSG_DATA(head);
      seen++;
      if (head->nlmsg_type != NLMSG_ERROR || told->error == 0) continue;
      errno = -told->error;
      return -1;
    }
  }
  return 0;
}

static void of_netfilter(Message* message, int family, int resource) {
  const struct nfgenmsg head = {.nfgen_family = (unsigned char)family,
                                .res_id = htons((unsigned short)resource)};
  put(message, &head, sizeof(head));
}
static struct nlmsghdr* begin_tables(Message* message, int type) {
  struct nlmsghdr* head = begin(message, NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_CREATE);
  of_netfilter(message, NFPROTO_INET, 0);
  return head;
}

// A rule with one value that is loaded into a register, a number or a verdict.
static int load_immediate(unsigned into, bool is_verdict, unsigned value) {
  Message message = {.size = 0};
  if (unshare(CLONE_NEWNET)) return -1;
  struct nlmsghdr* head = begin(&message, NFNL_MSG_BATCH_BEGIN, 0);
  head->nlmsg_flags = NLM_F_REQUEST;
  of_netfilter(&message, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  end(&message, head);

  head = begin_tables(&message, NFT_MSG_NEWTABLE);
  text_attribute(&message, NFTA_TABLE_NAME, "t");
  end(&message, head);
  head = begin_tables(&message, NFT_MSG_NEWCHAIN);
  text_attribute(&message, NFTA_CHAIN_TABLE, "t");
  text_attribute(&message, NFTA_CHAIN_NAME, "c");
  end(&message, head);

  head = begin_tables(&message, NFT_MSG_NEWRULE);
  text_attribute(&message, NFTA_RULE_TABLE, "t");
  text_attribute(&message, NFTA_RULE_CHAIN, "c");
  struct nlattr* expressions = open_attribute(&message, NLA_F_NESTED | NFTA_RULE_EXPRESSIONS);
  struct nlattr* element = open_attribute(&message, NLA_F_NESTED | NFTA_LIST_ELEM);
  text_attribute(&message, NFTA_EXPR_NAME, "immediate");
  struct nlattr* options = open_attribute(&message, NLA_F_NESTED | NFTA_EXPR_DATA);
  number_attribute(&message, NFTA_IMMEDIATE_DREG, into);
  struct nlattr* data = open_attribute(&message, NLA_F_NESTED | NFTA_IMMEDIATE_DATA);
  if (is_verdict) {
    struct nlattr* verdict = open_attribute(&message, NLA_F_NESTED | NFTA_DATA_VERDICT);
    number_attribute(&message, NFTA_VERDICT_CODE, value);
    close_attribute(&message, verdict);
  } else {
    number_attribute(&message, NFTA_DATA_VALUE, value);
  }
  close_attribute(&message, data);
  close_attribute(&message, options);
  close_attribute(&message, element);
  close_attribute(&message, expressions);
  end(&message, head);

  head = begin(&message, NFNL_MSG_BATCH_END, 0);
  head->nlmsg_flags = NLM_F_REQUEST;
  of_netfilter(&message, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  end(&message, head);
  return ask(NETLINK_NETFILTER, &message, 3);
}
static int call_register(void) { return load_immediate(6, false, 1); }
static int call_verdict(void) { return load_immediate(NFT_REG_VERDICT, true, 0x7fff0000); }

static struct nlmsghdr* begin_traffic(Message* message, int type, unsigned parent, unsigned handle,
                                      unsigned info, const char* kind) {
  struct nlmsghdr* head = begin(message, type, NLM_F_CREATE | NLM_F_EXCL);
  const struct tcmsg about = {.tcm_family = AF_UNSPEC,
                              .tcm_ifindex = (int)if_nametoindex("lo"),
                              .tcm_parent = parent,
                              .tcm_handle = handle,
                              .tcm_info = info};
  put(message, &about, sizeof(about));
  text_attribute(message, TCA_KIND, kind);
  return head;
}

static int call_route_filter(void) {
  Message message = {.size = 0};
  struct tc_prio_qopt bands = {.bands = 3};
  if (own_network()) return -1;
  struct nlmsghdr* head = begin_traffic(&message, RTM_NEWQDISC, TC_H_ROOT, 0x10000, 0, "prio");
  attribute(&message, TCA_OPTIONS, &bands, sizeof(bands));
  end(&message, head);
  if (ask(NETLINK_ROUTE, &message, 1)) return -1;

  message.size = 0;
  const unsigned priority_and_ip = 100 << 16 | htons(0x0800), to = 1;
  head = begin_traffic(&message, RTM_NEWTFILTER, 0x10000, 0, priority_and_ip, "route");
  struct nlattr* options = open_attribute(&message, TCA_OPTIONS);
  attribute(&message, TCA_ROUTE4_TO, &to, sizeof(to));
  close_attribute(&message, options);
  end(&message, head);
  return ask(NETLINK_ROUTE, &message, 1);
}

// ---- what does not get on ----

static int on_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set);
}

// Waits in vfork() for a child that never goes.
static int stick_vfork(void) {
  if (vfork() == 0) {
    for (;;) pause();
  }
  return 0;
}

// Gives its CPU to nobody else, for 40 s.
static int stick_real_time(void) {
  const struct sched_param first = {.sched_priority = 99};
  alarm(40);
  if (sched_setscheduler(0, SCHED_FIFO, &first)) return -1;
  for (;;)
    ;
}

// A system call that nobody makes: where the code behind it was changed, the CPU goes there.
static int stick_acct(void) { return (int)syscall(SYS_acct, NULL); }

// A user who becomes root, by the number that the kernel has saved.
static int stick_root(void) {
  if (setresuid(1000, 1000, 0)) return -1;
  sleep(3);
  if (seteuid(0)) return -1;
  for (;;) pause();
}

// A socket that listens on port 4323 and is on its way to nobody: no process has it.
static int stick_sent(void) {
  const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(4323)};
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  int ends[2];
  if (bind(listener, (const struct sockaddr*)&any, sizeof(any)) || listen(listener, 1)) return -1;
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)) return -1;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_RIGHTS}};
  memcpy(CMSG_DATA(&control.header), &listener, sizeof(listener));
  struct iovec byte = {.iov_base = "", .iov_len = 1};
  const struct msghdr message = {.msg_iov = &byte,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
  if (sendmsg(ends[0], &message, 0) < 0) return -1;
  close(listener);
  for (;;) pause();
}

static const struct {
  const char* name;
  int (*make)(void);
} sticks[] = {{"vfork", stick_vfork},
              {"real-time", stick_real_time},
              {"acct", stick_acct},
              {"root", stick_root},
              {"sent", stick_sent}};

int stick(const char* name, int cpu, int delay_s) {
  for (size_t i = 0; i < COUNT(sticks); i++) {
    if (strcmp(sticks[i].name, name) != 0) continue;
    const pid_t pid = fork();
    if (pid == 0) {
      become_actor();
      prctl(PR_SET_NAME, "stick");
      on_cpu(cpu);
      usleep(300 * 1000 +
             delay_s * 1000 * 1000);  // the answer is out first: the CPU may be the line's
      _exit(sticks[i].make() < 0 ? errno : 0);
    }
    channel_print("pid=%d\n", pid);
    return pid < 0 ? -1 : 0;
  }
  errno = EINVAL;
  return -1;
}

// ---- by name ----

static const struct {
  const char *name, *modules;
  int (*make)(void);
} calls[] = {
    {"vmsplice", "", call_vmsplice},
    {"keyring", "", call_keyring},
    {"keyrings", "", call_keyrings},
    {"execve", "", call_execve},
    {"splice", "", call_splice_and_write},
    {"long-line", "", call_long_line},
    {"mount-options", "", call_mount_options},
    {"release-agent", "", call_release_agent},
    {"packet-ring", "", call_packet_ring},
    {"urgent", "", call_urgent},
    {"algorithm", "algif_aead authencesn", call_algorithm},
    {"compat-tables", "ip_tables", call_compat_tables},
    {"register", "crc32c_generic nf_tables", call_register},
    {"verdict", "crc32c_generic nf_tables", call_verdict},
    {"route-filter", "sch_prio cls_route", call_route_filter},
};

// Those that are not there say so by what becomes of the call.
static void load_modules(const char* modules) {
  char list[64], *rest = list;
  snprintf(list, sizeof(list), "%s", modules);
  for (char* name; (name = strsep(&rest, " "));) {
    if (*name) setup_module(name);
  }
}

int call(const char* name) {
  for (size_t i = 0; i < COUNT(calls); i++) {
    if (strcmp(calls[i].name, name) != 0) continue;
    load_modules(calls[i].modules);
    sigset_t child, before;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);  // its status is wanted here
    const pid_t pid = fork();
    if (pid == 0) {
      become_actor();
      _exit(calls[i].make() < 0 ? errno : 0);
    }
    int status = 0;
    const bool ended = pid > 0 && waitpid(pid, &status, 0) == pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (!ended) return -1;
    const int error = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
    channel_print("pid=%d result=%s\n", pid, error == 0 ? "0" : strerrorname_np(error));
    return 0;
  }
  errno = EINVAL;
  return -1;
}

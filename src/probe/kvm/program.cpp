#include "probe/kvm/program.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <fmt/format.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/os.h"

namespace vmsight::kvm {
#include "vmsight_kvm.skel.h"  // NOLINT: the structures that it names are in this namespace

namespace {

constexpr int wait_ms = 5;  // events do not wake us: they are looked for

struct Symbols {
  bool slow = false, fast = false, hypercall = false;
};

Error no_types(std::string what) {
  return {.code = ErrorCode::unsupported,
          .message = std::move(what),
          .hint =
              "the host's kernel must be built with CONFIG_DEBUG_INFO_BTF and "
              "CONFIG_DEBUG_INFO_BTF_MODULES, and the module kvm be loaded"};
}

using Types = std::unique_ptr<btf, decltype(&btf__free)>;

bool has_function(const btf* types, const char* name) {
  return types != nullptr && btf__find_by_name_kind(types, name, BTF_KIND_FUNC) > 0;
}

Result<Symbols> find_symbols() {
  const Types kernel(btf__load_vmlinux_btf(), btf__free);
  if (!kernel) {
    const int error = errno;
    if (error == EPERM || error == EACCES)
      return os_error(error, "read the types of the host's kernel");
    return no_types("watch KVM: the host's kernel has no types (/sys/kernel/btf/vmlinux)");
  }
  Types module(btf__load_module_btf("kvm", kernel.get()), btf__free);
  const btf* types = module ? module.get() : kernel.get();  // or KVM is built in
  const Symbols found{.slow = has_function(types, "kvm_emulate_invd"),
                      .fast = has_function(types, "handle_fastpath_invd"),
                      .hypercall = has_function(types, "kvm_emulate_hypercall")};
  if (found.slow) return found;
  if (!module) return no_types("watch KVM: it has no types (/sys/kernel/btf/kvm)");
  return no_types("watch KVM: this one has no function kvm_emulate_invd; Linux 5.11 brought it");
}

/// What libbpf told last. Of a program that the kernel refuses it tells the verifier's whole log.
std::string libbpf_said;

int keep_what_is_said(libbpf_print_level level, const char* format, va_list arguments) {
  if (level != LIBBPF_WARN) return 0;
  char* text = nullptr;
  if (::vasprintf(&text, format, arguments) < 0) return 0;
  libbpf_said += text;
  std::free(text);
  return 0;
}

/// The verifier's reason, in parentheses: the last line of its log but for its statistics.
std::string verifier_reason() {
  const std::size_t end = libbpf_said.rfind("\nprocessed ");
  if (end == libbpf_said.npos) return "";
  const std::size_t start = libbpf_said.rfind('\n', end - 1) + 1;
  return fmt::format(" ({})", libbpf_said.substr(start, end - start));
}

Error explain(int error, const std::string& action) {
  Error why = os_error(error, action);
  if (error == EPERM || error == EACCES) {
    why.code = ErrorCode::permission;
    why.hint = "run as root, on the host itself; a lockdown of the kernel may forbid eBPF, too";
  } else {
    why.code = ErrorCode::unsupported;
    why.hint = "the host's kernel may be too old for this: 6.12 and 7.2 are known to work";
  }
  return why;
}

/// Events carry the numbers of the first PID namespace.
Result<void> check_namespace() {
  char link[64] = "";
  if (::readlink("/proc/self/ns/pid", link, sizeof(link) - 1) < 0) return {};
  if (std::string_view(link) == "pid:[4026531836]") return {};  // PROC_PID_INIT_INO
  return Error{.code = ErrorCode::unsupported,
               .message = "watch KVM: vmsight runs in a PID namespace of its own",
               .hint = "run it on the host itself"};
}

/// Whether a thread in the host's kernel may be interrupted by another. "none (voluntary) full lazy"
bool is_preemptible() {
  std::ifstream file("/sys/kernel/debug/sched/preempt");
  std::string modes;
  std::getline(file, modes);
  return modes.find("(none)") == modes.npos && modes.find("(voluntary)") == modes.npos;
}

class Loaded final : public Program {
 public:
  ~Loaded() override {
    ring_buffer__free(ring_);
    vmsight_kvm__destroy(skeleton_);
  }

  Result<void> open(const guest& guest, bool attached) {
    VMSIGHT_TRY_VOID(check_namespace());
    VMSIGHT_TRY(const Symbols symbols, find_symbols());
    libbpf_said.clear();
    libbpf_set_print(keep_what_is_said);
    skeleton_ = vmsight_kvm__open();
    if (skeleton_ == nullptr) return explain(errno, "open the eBPF program");
    fast_ = symbols.fast;
    std::memcpy(&skeleton_->rodata->guest, &guest, sizeof(guest));
    backed_ = is_preemptible();
    skeleton_->rodata->guest.several_programs = fast_ || backed_;
    bpf_program__set_autoload(skeleton_->progs.on_fast_invd, fast_);
    bpf_program__set_autoload(skeleton_->progs.on_missed_invd, backed_);
    hypercalls_ = symbols.hypercall;
    bpf_program__set_autoload(skeleton_->progs.on_hypercall, hypercalls_);
    bpf_program__set_autoload(skeleton_->progs.on_missed_hypercall, hypercalls_ && backed_);
    bpf_program__set_autoattach(skeleton_->progs.on_hypercall, false);
    bpf_program__set_autoattach(skeleton_->progs.on_missed_hypercall, false);
    if (const int error = vmsight_kvm__load(skeleton_); error != 0) {
      return explain(-error, "load the eBPF program" + verifier_reason());
    }
    if (const int error = attached ? vmsight_kvm__attach(skeleton_) : 0; error != 0) {
      return explain(-error, "attach the eBPF program to KVM");
    }
    ring_ = ring_buffer__new(bpf_map__fd(skeleton_->maps.ring), &Loaded::on_event, this, nullptr);
    if (ring_ == nullptr) return explain(errno, "map the ring of events");
    cpus_ = libbpf_num_possible_cpus();
    if (cpus_ < 1) return explain(-cpus_, "count the host's CPUs");
    return {};
  }

  Result<void> set_trap(std::uint64_t next_rip, const trap& trap) override {
    forget_lone(next_rip);
    VMSIGHT_TRY_VOID(update(skeleton_->maps.traps, &next_rip, &trap));
    __u64& slot = skeleton_->bss->lone_traps[lone_slot(next_rip)];
    if (trap.count == 1 && slot == 0) store(slot, lone_entry(next_rip, &trap));
    return {};
  }
  void remove_trap(std::uint64_t next_rip) override {
    forget_lone(next_rip);
    static_cast<void>(bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.traps), &next_rip));
  }

  Result<void> watch_hypercalls() override {
    if (!hypercalls_) return no_types("watch KVM: this one has no function kvm_emulate_hypercall");
    VMSIGHT_TRY_VOID(attach(skeleton_->progs.on_hypercall, skeleton_->links.on_hypercall));
    if (!backed_) return {};
    return attach(skeleton_->progs.on_missed_hypercall, skeleton_->links.on_missed_hypercall);
  }

  Result<void> set_file_trap(std::uint64_t host, const trap& trap) override {
    return update(skeleton_->maps.file_traps, &host, &trap);
  }
  void remove_file_trap(std::uint64_t host) override {
    static_cast<void>(bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.file_traps), &host));
  }

  Result<void> set_probe(std::uint32_t index, const probe& probe) override {
    const std::vector<counters> none(static_cast<std::size_t>(cpus_));
    const durations no_durations{};
    const rate no_rate{};
    VMSIGHT_TRY_VOID(update(skeleton_->maps.counts, &index, none.data()));
    VMSIGHT_TRY_VOID(update(skeleton_->maps.times, &index, &no_durations));
    VMSIGHT_TRY_VOID(update(skeleton_->maps.rates, &index, &no_rate));
    return update(skeleton_->maps.probes, &index, &probe);
  }

  counters count(std::uint32_t index) const override {
    counters sum{};
    for (const counters& one : of_all_cpus<counters>(skeleton_->maps.counts, index)) {
      sum.hits += one.hits;
      sum.filtered += one.filtered;
      sum.told += one.told;
      sum.lost += one.lost;
      sum.missed_returns += one.missed_returns;
      sum.rate_limited += one.rate_limited;
      sum.foreign += one.foreign;
    }
    // While the guest runs a return may be in the sum, and its entry, which another CPU counted, not yet.
    if (static_cast<std::int64_t>(sum.missed_returns) < 0) sum.missed_returns = 0;
    return sum;
  }

  durations duration(std::uint32_t index) const override {
    durations found{};
    static_cast<void>(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.times), &index, &found));
    return found;
  }

  strangers foreign() const override {
    strangers sum{};
    for (const strangers& one : of_all_cpus<strangers>(skeleton_->maps.nobodys, 0)) {
      sum.kernel += one.kernel;
      sum.user += one.user;
    }
    return sum;
  }

  std::uint64_t missed(Of whom) const override {
    if (whom == Of::user) {
      return missed(skeleton_->progs.on_hypercall, skeleton_->progs.on_missed_hypercall,
                    rescue_hypercall);
    }
    const std::uint64_t slow =
        missed(skeleton_->progs.on_invd, skeleton_->progs.on_missed_invd, rescue_invd);
    return slow + (fast_ ? missed(skeleton_->progs.on_fast_invd) : 0);
  }

  bool has_fastpath() const override { return fast_; }

  Result<std::size_t> read(std::chrono::milliseconds patience, std::size_t most,
                           const Sink& sink) override {
    sink_ = &sink;
    handed_out_ = 0;
    most_ = most;
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (true) {
      const int got = ring_buffer__consume(ring_);
      if (got < 0 && got != -E2BIG) return explain(-got, "read the ring of events");
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      if (handed_out_ > 0 || left.count() <= 0) break;
      const int some = static_cast<int>(std::min<std::int64_t>(left.count(), wait_ms));
      static_cast<void>(ring_buffer__poll(ring_, some));
      if (handed_out_ > 0) break;
    }
    sink_ = nullptr;
    return handed_out_;
  }

 private:
  /// The program may read it at any moment.
  static void store(__u64& slot, std::uint64_t value) {
    std::atomic_ref(slot).store(value, std::memory_order_release);
  }
  void forget_lone(std::uint64_t next_rip) {
    __u64& slot = skeleton_->bss->lone_traps[lone_slot(next_rip)];
    if (slot >> 32 == (next_rip & 0xffffffff)) store(slot, 0);
  }

  static int on_event(void* context, void* data, std::size_t size) {
    auto& self = *static_cast<Loaded*>(context);
    ++self.handed_out_;
    (*self.sink_)({static_cast<const std::byte*>(data), size});
    return self.handed_out_ >= self.most_ ? -E2BIG : 0;  // ends the round
  }

  static Result<void> update(bpf_map* map, const void* key, const void* value) {
    if (bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) == 0) return {};
    if (errno == E2BIG) {
      return Error{.code = ErrorCode::unsupported,
                   .message = "arm probes: too many",
                   .hint = "remove some first"};
    }
    return explain(errno, "tell the eBPF program of a probe");
  }

  template <typename Value>
  std::vector<Value> of_all_cpus(const bpf_map* map, std::uint32_t index) const {
    static_assert(sizeof(Value) % 8 == 0);
    std::vector<Value> values(static_cast<std::size_t>(cpus_));
    if (bpf_map_lookup_elem(bpf_map__fd(map), &index, values.data()) != 0) values.clear();
    return values;
  }

  static Result<void> attach(const bpf_program* program, bpf_link*& link) {
    if (link != nullptr) return {};
    link = bpf_program__attach(program);
    if (link == nullptr) return explain(errno, "attach the eBPF program to KVM");
    return {};
  }

  /// What the first program missed and the second has not seen either. A trap that both missed was
  /// missed by the second; other VMs' traps are missed, too.
  std::uint64_t missed(const bpf_program* first, const bpf_program* second,
                       std::uint32_t kind) const {
    if (!backed_) return missed(first);
    std::uint64_t rescued = 0;
    static_cast<void>(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.rescues), &kind, &rescued));
    const std::uint64_t by_first = missed(first);
    return std::min(by_first - std::min(by_first, rescued), missed(second));
  }

  static std::uint64_t missed(const bpf_program* program) {
    bpf_prog_info info{};
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size) != 0) return 0;
    return info.recursion_misses;
  }

  vmsight_kvm* skeleton_ = nullptr;
  ring_buffer* ring_ = nullptr;
  int cpus_ = 0;
  bool fast_ = false, backed_ = false, hypercalls_ = false;
  const Sink* sink_ = nullptr;
  std::size_t handed_out_ = 0, most_ = 0;
};

}  // namespace

Result<std::unique_ptr<Program>> Program::load(const guest& guest, bool attached) {
  auto program = std::make_unique<Loaded>();
  VMSIGHT_TRY_VOID(program->open(guest, attached));
  return std::unique_ptr<Program>(std::move(program));
}

Result<void> check_host() {
  VMSIGHT_TRY_VOID(check_namespace());
  VMSIGHT_TRY(const Symbols symbols, find_symbols());
  static_cast<void>(symbols);
  return {};
}

}  // namespace vmsight::kvm

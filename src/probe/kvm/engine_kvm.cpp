// The engine "kvm": traps in the guest's kernel and programs that its host's KVM handles and an eBPF
// program there sees. A hit never leaves the host's kernel but as an event in a ring.
#include <fmt/format.h>
#include <algorithm>
#include <bitset>
#include <map>

#include "base/clock.h"
#include "kernel/guest_text.h"
#include "probe/engine.h"
#include "probe/kvm/arm.h"
#include "probe/kvm/file_probes.h"
#include "probe/kvm/in_order.h"
#include "probe/kvm/program.h"
#include "probe/kvm/translate.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::size_t events_at_once = 4096;

using Blind = EngineSetting::Blind;

/// Whatever the VM: what it cannot do here open() and check() say.
EngineAbilities abilities_of(const VmInfo&) {
  return {.name = "kvm", .user_sites = true, .return_sites = true, .max_sites = kvm::max_probes};
}

Result<void> check_vm(const VmInfo& vm) {
  if (vm.accelerator != Accelerator::tcg) return kvm::check_host();
  return Error{.code = ErrorCode::unsupported,
               .message = "engine kvm: the guest is emulated (TCG), KVM has no part in it",
               .hint = "use --engine gdbstub"};
}

class KvmEngine final : public ProbeEngine {
 public:
  explicit KvmEngine(const EngineSetting& setting)
      : vm_(setting.vm),
        kernel_(setting.kernel),
        blind_(setting.blind),
        max_halt_(setting.max_halt),
        ends_storms_(setting.ends_storms) {}

  ~KvmEngine() override {
    if (!armory_) return;  // open() failed
    std::vector<ProbeId> all;
    for (const auto& [id, probe] : probes_) all.push_back(id);
    static_cast<void>(disarm(all));
  }

  Result<void> open() {
    VMSIGHT_TRY_VOID(check_vm(vm_.info()));
    VMSIGHT_TRY(memory_, open_live_read(vm_));
    VMSIGHT_TRY(kvm::guest guest, kvm::describe_guest(vm_, kernel_, *memory_));
    if (blind_ == Blind::to_this_vm) guest.tgid = 0;  // no QEMU has it
    VMSIGHT_TRY(program_, kvm::Program::load(guest, blind_ != Blind::to_everything));
    VMSIGHT_TRY(armory_, Armory::open(vm_, kernel_, *memory_, max_halt_));
    return {};
  }

  EngineAbilities abilities() const override { return abilities_of(vm_.info()); }

  Result<void> check(const ProbeOrder& order) override {
    const auto is_here = [&](const auto& site) {
      return site.second.trap.function == order.site.address - order.site.offset;
    };
    if (order.site.user || std::any_of(sites_.begin(), sites_.end(), is_here)) return {};
    VMSIGHT_TRY(const TrapSite trap, armory_->find(order.site));
    static_cast<void>(trap);
    return order.site.at_return ? check_no_stack_arguments(kernel_, order.site) : Result<void>();
  }

  Result<void> arm(std::span<const ProbeOrder> orders) override {
    Plan plan;
    auto done = make_plan(orders, plan);
    if (done) done = publish(plan);
    if (done) done = armory_->arm(plan.steps(), file_patches(plan));
    if (!done) {
      take_back(plan);
      return done;
    }
    commit(plan);
    return {};
  }

  Result<void> disarm(std::span<const ProbeId> ids) override {
    const Remaining left = without(ids);
    VMSIGHT_TRY_VOID(
        armory_->disarm(empty_of(left), files_ ? files_->leave(ids) : std::vector<CodePatch>{}));
    for (const auto& [at, rest] : left) VMSIGHT_TRY_VOID(reduce(at, rest));
    for (const ProbeId id : ids) {
      const auto probe = probes_.find(id);
      if (probe != probes_.end() && probe->second.armed && probe->second.order.site.user)
        retire(probe->second);
    }
    return files_ ? files_->remove(ids) : Result<void>();
  }

  Result<void> forget(std::span<const ProbeId> ids) override {
    const Remaining left = without(ids);
    armory_->forget(empty_of(left));
    for (const auto& [at, rest] : left) VMSIGHT_TRY_VOID(reduce(at, rest));
    return {};
  }

  /// All processes share the file's page: which of them map it makes no difference.
  Result<void> follow(ProbeId id, const ProbeSite& now) override {
    if (files_) files_->set_inode(id, now.inode);
    return {};
  }

  Result<std::size_t> poll(std::chrono::milliseconds patience, const Sink& sink) override {
    const std::uint64_t deadline =
        monotonic_ns() + static_cast<std::uint64_t>(std::chrono::nanoseconds(patience).count());
    while (true) {
      VMSIGHT_TRY_VOID(vm_.check_alive());
      VMSIGHT_TRY(const std::size_t told, take(deadline, sink));
      VMSIGHT_TRY_VOID(look_after());
      if (told != 0 || monotonic_ns() >= deadline) return told;
    }
  }

  void drain(const Sink& sink) override {
    constexpr int rounds = 64;
    for (int i = 0; i < rounds; ++i) {
      const auto came = program_->read(std::chrono::milliseconds(0), events_at_once,
                                       [&](auto bytes) { keep(bytes); });
      if (!came || *came < events_at_once) break;
    }
    in_order_.tell_all(sink);
  }

  Result<ProbeCounts> counts(ProbeId id) override {
    const auto probe = probes_.find(id);
    if (probe == probes_.end()) {
      return Error{.code = ErrorCode::not_found,
                   .message = fmt::format("no probe has the number {}", id)};
    }
    return probe->second.armed ? count(probe->second) : probe->second.last;
  }

  std::uint64_t late() const override { return in_order_.late(); }

  std::uint64_t foreign() const override {
    const kvm::strangers strangers = program_->foreign();
    return strangers.kernel + strangers.user;
  }

 private:
  struct Probe {
    ProbeOrder order;
    GuestVirt trap;           // of kernel sites: address of the NOP
    std::uint32_t index = 0;  // in the program's maps
    bool armed = false;
    std::uint64_t told = 0;
    std::uint64_t missed_before = 0;
    std::uint64_t hits_before = 0;  // a second ago
    ProbeCounts last;               // when it was disarmed
  };
  struct Site {
    TrapSite trap;
    std::vector<ProbeId> ids;
    std::string now;  // what is there at the moment
  };
  /// What arm() is about to do.
  struct Plan {
    std::map<GuestVirt, Site> sites;  // as they will be
    std::map<ProbeId, Probe> probes;  // the new ones
    std::vector<CodePatch> file_patches;
    std::vector<Armory::Step> steps() const {
      std::vector<Armory::Step> all;
      for (const auto& [at, site] : sites) {
        if (site.now != site.trap.code) all.push_back({&site.trap, site.now});
      }
      return all;
    }
  };

  /// Of kernel sites: the probes that each of them has without these.
  using Remaining = std::map<GuestVirt, std::vector<ProbeId>>;
  Remaining without(std::span<const ProbeId> ids) const {
    Remaining left;
    for (const ProbeId id : ids) {
      const auto probe = probes_.find(id);
      if (probe == probes_.end() || !probe->second.armed || probe->second.order.site.user) continue;
      const GuestVirt at = probe->second.trap;
      std::erase(left.try_emplace(at, sites_.at(at).ids).first->second, id);
    }
    return left;
  }

  std::vector<const TrapSite*> empty_of(const Remaining& left) const {
    std::vector<const TrapSite*> empty;
    for (const auto& [at, rest] : left) {
      if (rest.empty()) empty.push_back(&sites_.at(at).trap);
    }
    return empty;
  }

  Result<void> make_plan(std::span<const ProbeOrder> orders, Plan& plan) {
    for (const ProbeOrder& order : orders) {
      VMSIGHT_CHECK(!probes_.contains(order.id) && !plan.probes.contains(order.id));
      VMSIGHT_TRY(const std::uint32_t index, take_index());
      Probe& probe = plan.probes[order.id] = {
          .order = order, .trap = {}, .index = index, .armed = true, .last = {}};
      probe.missed_before = program_->missed(whose(probe));
      VMSIGHT_TRY_VOID(order.site.user ? plan_file(order, index) : plan_site(order, plan, probe));
      VMSIGHT_TRY(const kvm::probe described, kvm::describe_probe(order));
      VMSIGHT_TRY_VOID(program_->set_probe(index, described));
    }
    return {};
  }

  Result<void> plan_file(const ProbeOrder& order, std::uint32_t index) {
    if (!files_) {
      VMSIGHT_TRY(files_, FileProbes::open(vm_, kernel_, *memory_, *armory_, *program_));
    }
    return files_->plan(order, index);
  }

  Result<void> plan_site(const ProbeOrder& order, Plan& plan, Probe& probe) {
    VMSIGHT_TRY(Site * site, site_of(order.site, plan));
    if (order.site.at_return && !site->trap.has_trampoline()) {
      VMSIGHT_TRY_VOID(armory_->add_trampoline(order.site, site->trap));
    }
    if (site->ids.size() == kvm::max_probes_of_site) {
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("probe {}: {} probes are there already",
                                          escape_bytes(to_string(order.site)), site->ids.size())};
    }
    site->ids.push_back(order.id);
    probe.trap = site->trap.address;
    return {};
  }

  static kvm::Program::Of whose(const Probe& probe) {
    return probe.order.site.user ? kvm::Program::Of::user : kvm::Program::Of::kernel;
  }

  /// The plan keeps them.
  Armory::FilePatches file_patches(Plan& plan) {
    if (!files_) return {};
    plan.file_patches = files_->patches();
    return {.fresh = plan.file_patches, .there = {}, .check = [this] { return files_->check(); }};
  }

  Result<Site*> site_of(const ProbeSite& wanted, Plan& plan) {
    const auto is_it = [&](const auto& entry) {
      const TrapSite& trap = entry.second.trap;
      return wanted.address == trap.function || wanted.address == trap.address;
    };
    const auto planned = std::find_if(plan.sites.begin(), plan.sites.end(), is_it);
    if (planned != plan.sites.end()) return &planned->second;
    const auto known = std::find_if(sites_.begin(), sites_.end(), is_it);
    if (known != sites_.end()) return &(plan.sites[known->first] = known->second);
    VMSIGHT_TRY(TrapSite trap, armory_->find(wanted));
    const GuestVirt at = trap.address;
    std::string nop = trap.nop;
    return &(plan.sites[at] = {.trap = std::move(trap), .ids = {}, .now = std::move(nop)});
  }

  Result<std::uint32_t> take_index() {
    for (std::uint32_t index = 0; index < kvm::max_probes; ++index) {
      if (taken_.test(index)) continue;
      taken_.set(index);
      return index;
    }
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("arm probes: at most {} at once",
                                        static_cast<int>(kvm::max_probes))};
  }

  /// The program knows them before the guest can come there.
  Result<void> publish(const Plan& plan) {
    for (const auto& [at, site] : plan.sites) VMSIGHT_TRY_VOID(publish(site, plan.probes));
    return files_ ? files_->publish() : Result<void>();
  }

  Result<void> publish(const Site& site, const std::map<ProbeId, Probe>& fresh) {
    const auto find = [&](ProbeId id) -> const Probe& {
      const auto it = fresh.find(id);
      return it != fresh.end() ? it->second : probes_.at(id);
    };
    if (!site.trap.has_trampoline()) {
      return set_trap(site.trap.address + FtraceSite::size, kvm::trap_in_place, site, find);
    }
    VMSIGHT_TRY_VOID(
        set_trap(site.trap.trampoline + Trampoline::entry_end, kvm::trap_entry, site, find));
    return set_trap(site.trap.trampoline + Trampoline::return_end, kvm::trap_return, site, find);
  }

  template <typename Find>
  Result<void> set_trap(GuestVirt next, kvm::trap_kind kind, const Site& site, Find find) {
    if (blind_ == Blind::to_its_sites) return {};
    kvm::trap trap{};
    trap.kind = static_cast<__u8>(kind);
    trap.bare = 1;
    for (const ProbeId id : site.ids) {
      const Probe& probe = find(id);
      const ProbeOrder& order = probe.order;
      if (kind == kvm::trap_return && !order.site.at_return) continue;
      if (!order.counts_only || order.site.at_return || !order.filter.steps.empty()) trap.bare = 0;
      if (kind != kvm::trap_return && kvm::filters_early(order))
        trap.early |= static_cast<__u8>(1u << trap.count);
      trap.probes[trap.count++] = probe.index;
    }
    return program_->set_trap(next.raw(), trap);
  }

  void take_back(const Plan& plan) {
    for (const auto& [at, site] : plan.sites) {
      const auto before = sites_.find(at);
      if (site.trap.has_trampoline()) {
        program_->remove_trap((site.trap.trampoline + Trampoline::entry_end).raw());
        program_->remove_trap((site.trap.trampoline + Trampoline::return_end).raw());
      }
      if (before == sites_.end())
        program_->remove_trap((at + FtraceSite::size).raw());
      else
        static_cast<void>(publish(before->second, {}));
    }
    if (files_) files_->take_back();
    for (const auto& [id, probe] : plan.probes) taken_.reset(probe.index);
  }

  void commit(Plan& plan) {
    for (auto& [at, site] : plan.sites) {
      if (site.trap.has_trampoline()) program_->remove_trap((at + FtraceSite::size).raw());
      site.now = site.trap.code;
      if (site.trap.has_trampoline()) {
        site.trap.trampoline_before = Trampoline::code(site.trap.trampoline, at);
      }
      sites_[at] = std::move(site);
    }
    if (files_) files_->commit();
    probes_.merge(plan.probes);
  }

  /// Leaves the site with these probes.
  Result<void> reduce(GuestVirt at, const std::vector<ProbeId>& rest) {
    Site& site = sites_.at(at);
    for (const ProbeId id : site.ids) {
      if (std::find(rest.begin(), rest.end(), id) == rest.end()) retire(probes_.at(id));
    }
    site.ids = rest;
    // A trampoline stays known: calls that are under way still return through it.
    Result<void> done;
    if (!rest.empty() || site.trap.has_trampoline())
      done = publish(site, {});
    else
      program_->remove_trap((at + FtraceSite::size).raw());
    if (rest.empty()) sites_.erase(at);
    return done;
  }

  void retire(Probe& probe) {
    probe.last = count(probe);
    probe.armed = false;
    taken_.reset(probe.index);
  }

  /// A trap of which the second program has not told yet counts as missed for a moment.
  std::uint64_t missed_by(const Probe& probe) const {
    const std::uint64_t now = program_->missed(whose(probe));
    return now - std::min(now, probe.missed_before);
  }

  ProbeCounts count(const Probe& probe) const {
    const kvm::counters counters = program_->count(probe.index);
    ProbeCounts counts{.hits = counters.hits,
                       .filtered = counters.filtered,
                       .told = probe.told,
                       .lost = counters.lost + missed_by(probe),
                       .missed_returns = counters.missed_returns,
                       .rate_limited = counters.rate_limited,
                       .foreign = counters.foreign,
                       .stormed = probe.last.stormed};
    if (probe.order.site.user) {
      const FileProbes::Whereabouts where = files_->whereabouts(probe.order.id);
      counts.reloads = where.reloads;
      counts.absent = where.absent;
    }
    if (!probe.order.site.at_return) return counts;
    const kvm::durations durations = program_->duration(probe.index);
    std::copy(std::begin(durations.bucket), std::end(durations.bucket), counts.durations.begin());
    return counts;
  }

  /// Events wait until none that is older can come: a moment, or until all that came is there if nothing is
  /// armed. Where the ring has more than is taken at once, the newest that came tells how far it is.
  Result<std::size_t> take(std::uint64_t deadline, const Sink& sink) {
    const std::uint64_t now = monotonic_ns();
    std::uint64_t until = deadline;
    if (!in_order_.is_empty())
      until = std::min(until, in_order_.oldest_ns() + kvm::InOrder::window_ns);
    const auto patience = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::nanoseconds(until > now ? until - now : 0));
    const bool is_armed = std::any_of(probes_.begin(), probes_.end(),
                                      [](const auto& entry) { return entry.second.armed; });
    const auto read = [&](std::chrono::milliseconds most) {
      return program_->read(most, events_at_once, [&](auto bytes) { keep(bytes); });
    };
    VMSIGHT_TRY(std::size_t came, read(patience));
    while (!is_armed && came >= events_at_once) {
      VMSIGHT_TRY(came, read(std::chrono::milliseconds(0)));
    }
    if (!is_armed) return in_order_.tell_all(sink);
    const bool is_behind = came >= events_at_once && !in_order_.is_empty();
    return in_order_.tell(is_behind ? in_order_.newest_ns() : now, sink);
  }

  void keep(std::span<const std::byte> bytes) {
    kvm::event event;
    if (bytes.size() < sizeof(event)) return;
    std::memcpy(&event, bytes.data(), sizeof(event));
    const auto known = probes_.find(event.probe);
    if (known == probes_.end()) return;
    Probe& probe = known->second;
    Hit hit;
    if (!kvm::read_event(bytes, probe.order.site, hit)) return;
    hit.fetched.resize(probe.order.fetches.size());
    hit.fetched_return.resize(hit.at_return ? probe.order.fetches_return.size() : 0);
    ++probe.told;
    if (!probe.armed) ++probe.last.told;  // it came before
    in_order_.add(std::move(hit));
  }

  /// Once a second: does the guest still have our traps, and does one of them storm? More often: where
  /// are the pages of files?
  Result<void> look_after() {
    if (files_) VMSIGHT_TRY_VOID(files_->follow());
    const std::uint64_t now = monotonic_ns();
    if (now - looked_after_ns_ < second_ns) return {};
    const double seconds = static_cast<double>(now - looked_after_ns_) / second_ns;
    looked_after_ns_ = now;
    for (const auto& [at, site] : sites_) {
      // Whether a module is still there is looked for by whoever knows sites.
      if (!probes_.at(site.ids.front()).order.site.module.empty()) continue;
      VMSIGHT_TRY(const bool armed, armory_->is_armed(site.trap));
      if (armed) continue;
      return Error{.code = ErrorCode::vm_gone,
                   .message = fmt::format("the probe at {} has vanished from the guest's code",
                                          escape_bytes(site.trap.name)),
                   .hint = "the guest may have rebooted; attach again"};
    }
    return ends_storms_ ? end_storms(seconds) : Result<void>{};
  }

  Result<void> end_storms(double seconds) {
    std::vector<ProbeId> storming;
    for (auto& [id, probe] : probes_) {
      if (!probe.armed) continue;
      const kvm::counters counted = program_->count(probe.index);
      const std::uint64_t hits = counted.hits + counted.foreign;
      const auto rate = static_cast<double>(hits - probe.hits_before) / seconds;
      probe.hits_before = hits;
      if (rate <= static_cast<double>(probe.order.storm_limit)) continue;
      probe.last.stormed = true;
      storming.push_back(id);
    }
    if (storming.empty()) return {};
    return disarm(storming);
  }

  const Vm& vm_;
  Kernel& kernel_;
  const Blind blind_;
  std::chrono::milliseconds max_halt_;
  const bool ends_storms_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<kvm::Program> program_;
  std::unique_ptr<Armory> armory_;
  std::unique_ptr<FileProbes> files_;  // once there are any
  std::bitset<kvm::max_probes> taken_;
  std::map<GuestVirt, Site> sites_;  // armed ones, by the address of the NOP
  std::map<ProbeId, Probe> probes_;  // and those that were
  kvm::InOrder in_order_;
  std::uint64_t looked_after_ns_ = monotonic_ns();
};

Result<std::unique_ptr<ProbeEngine>> open_for(const EngineSetting& setting) {
  auto engine = std::make_unique<KvmEngine>(setting);
  VMSIGHT_TRY_VOID(engine->open());
  return std::unique_ptr<ProbeEngine>(std::move(engine));
}

}  // namespace

const EngineInfo kvm_engine{
    .name = "kvm",
    .what = "functions of the kernel and of programs, seen by eBPF in the host's kernel",
    .cost = "microseconds a hit; vCPUs never wait for us",
    .abilities = abilities_of,
    .check = check_vm,
    .open = open_for,
};

}  // namespace vmsight

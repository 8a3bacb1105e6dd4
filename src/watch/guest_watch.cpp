#include "watch/guest_watch.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "base/clock.h"
#include "host/process.h"
#include "kernel/architecture.h"
#include "kernel/guest_text.h"
#include "kernel/module_symbols.h"
#include "probe/arguments.h"
#include "render/json.h"
#include "render/json_writer.h"
#include "state/records.h"
#include "watch/record_fields.h"

namespace vmsight::detect {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t retry_ns =
    5 * second_ns;  // for modules and programs that are not there yet
constexpr std::uint64_t never_ns = ~0ULL;
constexpr std::size_t max_found = 10'000;  // alarms of one round

bool is_denial(const Action& action) { return action.kind == Action::Kind::deny; }

bool is_same(const ProbeRequest& a, const ProbeRequest& b) {
  return a.site == b.site && a.filter == b.filter && a.pid == b.pid &&
         a.counts_only == b.counts_only;
}

/// It probes a program, too; functions of the kernel come with a module only.
bool probes_programs(const Rule& rule) {
  return std::ranges::any_of(probe_sites(rule.kind), [](const std::string& text) {
    const auto site = parse_site(text);
    return site && site->user;
  });
}

template <typename Record>
nlohmann::json json_of(const Record& record) {
  JsonWriter writer;
  put_fields(kind_of<Record>().fields, record, writer);
  return nlohmann::json::parse(writer.written(), nullptr, false);
}

}  // namespace

GuestWatch::GuestWatch(std::string spec, WatchedRules rules, GuestWatchOptions options)
    : spec_(std::move(spec)), name_(spec_), rules_(std::move(rules)), options_(std::move(options)) {
  for (const Rule& rule : rules_.rules) rule_by_name_[rule.name] = rule;
}

GuestWatch::~GuestWatch() = default;

Result<void> GuestWatch::attach_guest() {
  VMSIGHT_TRY(guest_, open_guest(spec_, options_.attach));
  name_ = guest_.name;
  return open_memory(guest_, options_.attach);
}

Result<void> GuestWatch::open() {
  VMSIGHT_TRY_VOID(attach_guest());
  return open_kernel();
}

std::unique_ptr<GuestWatch::Running> GuestWatch::begin(Rule rule) {
  auto running = std::make_unique<Running>();
  running->rule = std::move(rule);
  running->pending = true;
  return running;
}

/// Of each kernel anew: what detectors remember is of the one before.
Result<void> GuestWatch::resolve_kernel() {
  VMSIGHT_TRY_VOID(find_kernel_of(guest_, options_.attach));
  VMSIGHT_TRY(state_reader_, StateReader::create(*guest_.kernel, *guest_.memory));
  Members members(*guest_.kernel);
  jiffies_ = Jiffies::resolve(members);
  unwinder_.reset();
  running_.clear();
  for (const Rule& rule : rules_.rules) running_.push_back(begin(rule));
  return {};
}

Result<void> GuestWatch::open_kernel() {
  VMSIGHT_TRY_VOID(resolve_kernel());
  arm_pending(monotonic_ns());
  const auto is_broken = [](const auto& running) { return running->broken; };
  if (!std::ranges::all_of(running_, is_broken)) return {};
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("watch {}: none of the rules can be run here", name_)};
}

Result<void> GuestWatch::open_prober() {
  if (prober_) return {};
  if (!guest_.vm) {
    return Error{.code = ErrorCode::unsupported, .message = "an image cannot be probed"};
  }
  VMSIGHT_TRY(probe_memory_, open_view(*guest_.vm, "auto", {}, nullptr));
  VMSIGHT_TRY(prober_,
              Prober::open({.vm = *guest_.vm,
                            .kernel = *guest_.kernel,
                            .memory = *probe_memory_,
                            .engine = options_.engine,
                            .max_halt = options_.attach.wish.max_halt.value_or(default_max_halt)}));
  return {};
}

void GuestWatch::note_once(Running& running, std::string reason) {
  if (running.reason == reason) return;
  running.reason = std::move(reason);
  options_.note(
      fmt::format("{}: rule \"{}\": {}", escape_bytes(name_), running.rule.name, running.reason));
}

/// Symbols of modules are of those that were loaded when they were read.
void GuestWatch::follow_modules(std::uint64_t now_ns) {
  if (now_ns - modules_ns_ < retry_ns) return;
  modules_ns_ = now_ns;
  Reader reader(*guest_.memory, guest_.kernel->space());
  const auto loaded = read_module_places(*guest_.kernel, reader);
  if (!loaded) return;
  std::vector<std::string> now;
  for (const LoadedModule& module : *loaded) {
    const std::uint64_t at = module.memory.empty() ? 0 : module.memory.front().start.raw();
    now.push_back(fmt::format("{} {:#x}", module.name, at));
  }
  if (std::exchange(modules_, now) == now) return;
  guest_.kernel->forget_modules();
  unwinder_.reset();
  for (const auto& running : running_) running->next_try_ns = 0;
}

/// What is not there yet may come: a module that is loaded, a program that is started.
void GuestWatch::arm_pending(std::uint64_t now_ns) {
  if (is_suspended(now_ns)) return;
  follow_modules(now_ns);
  for (const auto& running : running_) {
    if (!running->pending || running->broken || now_ns < running->next_try_ns) continue;
    running->next_try_ns = probes_programs(running->rule) ? now_ns + retry_ns : never_ns;
    auto done = running->detector ? Result<void>() : make(*running);
    if (done) done = arm(*running);
    running->pending = !done;
    if (done) continue;
    running->broken = done.error().code != ErrorCode::not_found;
    note_once(*running, done.error().message + (running->broken ? "" : "; it is looked for again"));
  }
}

Result<void> GuestWatch::make(Running& running) {
  Reader reader(*guest_.memory, guest_.kernel->space());
  VMSIGHT_TRY(running.detector,
              make_detector(running.rule, *rules_.set, {*guest_.kernel, reader, name_}));
  return {};
}

/// An error takes the place of a call only where its caller expects one, and only by an engine that has the guest
/// stand meanwhile.
Result<void> GuestWatch::check_denial(std::span<const ProbeRequest> requests) {
  if (!prober_->abilities().refuses_calls) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format(
                     "engine {} lets the guest run on at a hit, so that the call cannot be "
                     "refused; engine gdbstub can refuse it",
                     prober_->abilities().name)};
  }
  Reader reader(*guest_.memory, guest_.kernel->space());
  for (const ProbeRequest& request : requests) {
    VMSIGHT_TRY(const auto sites, prober_->find(request));
    for (const ProbeSite& site : sites) {
      const FunctionPlan plan = plan_function(*guest_.kernel, reader, site);
      const bool gives_error = plan.result && plan.result->is_signed && !plan.result->type.empty();
      if (gives_error) continue;
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format(
                       "{} does not return a signed number, so that its caller expects no "
                       "error instead of it",
                       escape_bytes(to_string(site)))};
    }
  }
  return {};
}

bool GuestWatch::Running::has(const ProbeRequest& request) const {
  return std::ranges::any_of(armed,
                             [&](const Armed& one) { return is_same(one.request, request); });
}

bool GuestWatch::Running::has(ProbeId id) const {
  return std::ranges::any_of(
      armed, [&](const Armed& one) { return std::ranges::find(one.ids, id) != one.ids.end(); });
}

Result<void> GuestWatch::disarm_others(Running& running, const std::vector<ProbeRequest>& wanted) {
  std::vector<ProbeId> gone;
  std::erase_if(running.armed, [&](const Armed& one) {
    const bool is_wanted = std::ranges::any_of(
        wanted, [&](const ProbeRequest& request) { return is_same(request, one.request); });
    if (!is_wanted) gone.insert(gone.end(), one.ids.begin(), one.ids.end());
    return !is_wanted;
  });
  return gone.empty() || !prober_ ? Result<void>() : prober_->remove(gone);
}

/// Those that are armed already stay so.
Result<void> GuestWatch::arm(Running& running) {
  const auto requests = running.detector->probes();
  VMSIGHT_TRY_VOID(disarm_others(running, requests));
  if (requests.empty()) return {};
  VMSIGHT_TRY_VOID(open_prober());
  const bool shall_deny =
      options_.may_deny && std::ranges::any_of(running.rule.actions, &is_denial);
  const auto can = shall_deny ? check_denial(requests) : Result<void>();
  for (const ProbeRequest& request : requests) {
    if (running.has(request)) continue;
    VMSIGHT_TRY(auto ids, add(running, request, shall_deny && can));
    running.armed.push_back({request, std::move(ids)});
  }
  running.reason.clear();
  if (!can) note_once(running, "its action \"deny\" will not be taken: " + can.error().message);
  return {};
}

Result<std::vector<ProbeId>> GuestWatch::add(Running& running, ProbeRequest request, bool denies) {
  request.standing = denies;
  return prober_->add({&request, 1}, [this, &running, request, denies](const ProbeEvent& event) {
    ++running.told;
    running.detector->hit(request, event, [&](Detection found) {
      if (denies && event.refusal != nullptr) *event.refusal = -EPERM;
      if (denies) found.evidence["denied"] = event.refusal != nullptr;
      raise(running, std::move(found), std::nullopt);
    });
  });
}

Result<void> GuestWatch::step(std::chrono::milliseconds patience) {
  std::uint64_t now_ns = monotonic_ns();
  arm_pending(now_ns);
  auto looked = look(now_ns);
  now_ns = monotonic_ns();
  const std::uint64_t due_ns = next_due_ns();
  const auto most_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(patience).count());
  const std::uint64_t wait_ns = std::min(most_ns, due_ns > now_ns ? due_ns - now_ns : 0);
  const auto wait_ms =
      std::chrono::ceil<std::chrono::milliseconds>(std::chrono::nanoseconds(wait_ns));
  if (looked && prober_) {
    auto polled = prober_->poll(wait_ms);
    if (!polled) looked = std::move(polled).error();
  } else if (looked && wait_ms.count() > 0) {
    ::usleep(static_cast<useconds_t>(wait_ms.count() * 1000));
  }
  if (looked) count_hits();
  deliver_found();
  if (looked || looked.error().code != ErrorCode::vm_gone) return looked;
  look_after_probes();
  return follow_reboot(looked.error());
}

/// Probes that are gone are armed anew, as after a reboot; but first those are asked who tell a reboot from
/// a guest that removes them.
void GuestWatch::look_after_probes() {
  for (const auto& running : running_) {
    const auto* checks = std::get_if<Integrity>(&running->rule.kind);
    const bool is_asked =
        checks != nullptr && std::ranges::find(checks->checks, "own-traps") != checks->checks.end();
    running->next_look_ns = is_asked ? 0 : never_ns;
  }
  static_cast<void>(look(monotonic_ns()));
  for (int i = 0; i < 20 && !found_.empty(); ++i) {  // a second: a guest that runs has ticks
    if (i != 0) ::usleep(50'000);
    deliver_found();
  }
}

/// The VM goes on, so it is the guest that is another one now.
Result<void> GuestWatch::follow_reboot(const Error& why) {
  if (!guest_.vm) return Error{.code = ErrorCode::vm_gone, .message = name_ + " has ended"};
  VMSIGHT_TRY_VOID(guest_.vm->check_alive());
  options_.note(fmt::format("{}: {}; it is attached to anew", escape_bytes(name_), why.message));
  prober_.reset();
  found_.clear();
  running_.clear();
  suspended_ = false;
  Result<void> opened;
  constexpr int attempts = 600;
  for (int i = 0; i < attempts; ++i) {
    VMSIGHT_TRY_VOID(guest_.vm->check_alive());
    VMSIGHT_TRY_VOID(guest_.memory->refresh());
    opened = open_kernel();
    if (opened) break;
    ::usleep(200'000);
  }
  if (opened) options_.note(fmt::format("{}: watched again", escape_bytes(name_)));
  return opened;
}

std::uint64_t GuestWatch::next_due_ns() const {
  std::uint64_t due = never_ns;
  for (const auto& running : running_) {
    if (running->detector && running->detector->every_ns() != 0)
      due = std::min(due, running->next_look_ns);
    if (running->pending && !running->broken && !suspended_)
      due = std::min(due, running->next_try_ns);
  }
  if (const auto sum = limiter_.next_due_ns()) due = std::min(due, *sum);
  constexpr std::uint64_t doubt_ns = 50'000'000;  // between questions whether the kernel lives on
  if (!found_.empty()) due = std::min(due, monotonic_ns() + doubt_ns);
  return due;
}

/// One state for all detectors whose time has come.
Result<void> GuestWatch::look(std::uint64_t now_ns) {
  unsigned parts = 0;
  bool any_due = false;
  for (const auto& running : running_) {
    if (!running->detector) continue;
    const bool is_due = running->detector->every_ns() != 0 && now_ns >= running->next_look_ns;
    if (is_due) parts |= running->detector->parts();
    any_due |= is_due;
  }
  if (!any_due) return {};
  StateOptions options;
  options.parts = parts | part_os;
  const Stopwatch reading;
  VMSIGHT_TRY_VOID(state_reader_->read(options, state_));
  ++readings_;
  reading_ns_ += reading.elapsed_ns();
  Reader reader(*guest_.memory, guest_.kernel->space());
  const Look look = make_look(reader, now_ns);
  for (const auto& running : running_) {
    const std::uint64_t every_ns = running->detector ? running->detector->every_ns() : 0;
    if (every_ns == 0 || now_ns < running->next_look_ns) continue;
    running->next_look_ns = std::max(running->next_look_ns + every_ns, now_ns + every_ns / 2);
    look_by(*running, look);
  }
  return check_found();
}

GuestWatch::Moment GuestWatch::now() {
  Reader reader(*guest_.memory, guest_.kernel->space());
  return {.host_ns = monotonic_ns(), .guest_ns = guest_time(reader)};
}

/// A guest that was reset has no kernel, and its memory is overwritten piece by piece until another one is
/// found there. Its clock stands, or is no clock any more.
bool GuestWatch::lives_on(const Moment& seen, const Moment& now) {
  constexpr std::uint64_t slack_ns = second_ns, longest_reboot_ns = 20 * second_ns;
  const std::uint64_t waited_ns = now.host_ns - seen.host_ns;
  const std::uint64_t moved_ns = now.guest_ns - seen.guest_ns;
  if (waited_ns > longest_reboot_ns) return true;  // it stands, and its kernel is still there
  return moved_ns != 0 && moved_ns <= 2 * waited_ns + slack_ns;
}

/// What was found in memory in which the kernel is no more, since the guest reboots, is dropped.
Result<void> GuestWatch::check_found() {
  if (found_.empty()) return {};
  State still;
  auto read = state_reader_->read({.parts = part_os}, still);
  if (!read && read.error().code == ErrorCode::vm_gone) found_.clear();
  return read;
}

/// What it is about is told when it begins, not at each look.
void GuestWatch::look_by(Running& running, const Look& look) {
  ++running.looks;
  running.now_there.clear();
  const bool is_of_progress = std::holds_alternative<Progress>(running.rule.kind);
  running.detector->look(look, [&](Detection found) {
    // Progress is of what stands.
    raise(running, std::move(found), is_of_progress ? std::nullopt : std::optional(now()));
  });
  running.over_there = std::exchange(running.now_there, {});
  const auto wanted = running.detector->probes();
  const auto is_armed = [&](const ProbeRequest& request) { return running.has(request); };
  if (wanted.size() == running.armed.size() && std::ranges::all_of(wanted, is_armed)) return;
  running.pending = !running.broken;
  running.next_try_ns = 0;
}

Look GuestWatch::make_look(Reader& reader, std::uint64_t now_ns) {
  return {.state = state_,
          .kernel = *guest_.kernel,
          .reader = reader,
          .vm = guest_.vm ? &guest_.vm->info() : nullptr,
          .host_ns = now_ns,
          .guest_ns = guest_time(reader),
          .where = [this, &reader](GuestVirt task, std::int32_t cpu,
                                   bool runs) { return place_of(reader, task, cpu, runs); },
          .halted_by_somebody = [this] { return halted_by_somebody(); },
          .runs_other_code = [this] { return runs_other_code(); }};
}

/// Ticks of the guest: they stand while it does. An idle guest may count them late, all at once.
std::uint64_t GuestWatch::guest_time(Reader& reader) {
  const auto at = guest_.kernel->symbol("jiffies_64");
  const auto rate = jiffies_.per_second(reader);
  if (!at || !rate || *rate == 0) return monotonic_ns();
  reader.clear_fault();
  const std::uint64_t ticks = reader.u64(*at) & 0xffffffffffff;
  reader.clear_fault();
  return ticks * (second_ns / *rate);
}

std::string GuestWatch::symbol_of(GuestVirt address) {
  const auto place = guest_.kernel->locate(address);
  if (!place) return "";
  return fmt::format("{}+{:#x}", escape_bytes(place->name), place->offset);
}

std::string GuestWatch::place_of(Reader& reader, GuestVirt task, std::int32_t cpu, bool runs) {
  if (!runs) {
    if (!unwinder_) {
      auto made = guest_.kernel->space().architecture().make_unwinder(*guest_.kernel, reader);
      if (!made) return "";
      unwinder_ = *std::move(made);
    }
    const auto stack = unwinder_->unwind(reader, task);
    reader.clear_fault();
    std::string text;
    for (std::size_t i = 0; stack && i < stack->frames.size() && i < 6; ++i) {
      text += text.empty() ? "" : " < ";
      text += symbol_of(stack->frames[i].pc);
    }
    return text;
  }
  if (!guest_.vm) return "";
  const auto registers = guest_.vm->registers();
  if (!registers || cpu < 0 || static_cast<std::size_t>(cpu) >= registers->size()) return "";
  const VcpuRegisters& vcpu = (*registers)[static_cast<std::size_t>(cpu)];
  return vcpu.cpl == 3 ? fmt::format("user code at {:#x}", vcpu.rip)
                       : symbol_of(GuestVirt(vcpu.rip));
}

std::string GuestWatch::halted_by_somebody() {
  if (!guest_.vm) return "an image";
  if (is_stopped(guest_.vm->info().pid)) return "the QEMU process is stopped";
  const auto state = guest_.vm->run_state();
  return state && *state != "running" ? *state : "";
}

bool GuestWatch::runs_other_code() {
  if (!guest_.vm) return false;
  const auto registers = guest_.vm->registers();
  const auto start = guest_.kernel->symbol("_stext"), end = guest_.kernel->symbol("_etext");
  if (!registers || registers->empty() || !start || !end) return false;
  const AddressSpace& space = guest_.kernel->space();
  const auto text = space.translate(*guest_.memory, *start);
  if (!text) return false;
  std::vector<std::uint64_t> tables;
  for (const VcpuRegisters& vcpu : *registers) tables.push_back(vcpu.cr3);
  return !space.architecture().maps_image(*guest_.memory, tables, *text, *end - *start, *start);
}

/// Those that are only counted tell their detectors once a second.
void GuestWatch::count_hits() {
  const std::uint64_t now_ns = monotonic_ns();
  if (!prober_ || now_ns - counted_ns_ < second_ns / 2) return;
  counted_ns_ = now_ns;
  const auto probes = prober_->list();
  if (!probes) return;
  for (const auto& running : running_) {
    std::uint64_t all = 0;
    for (const Armed& armed : std::vector(running->armed)) {  // what has ended is taken out
      std::uint64_t passed = 0;  // the filter: hits of others are no heartbeat of a process
      for (const ProbeInfo& probe : *probes) {
        if (std::ranges::find(armed.ids, probe.id) == armed.ids.end()) continue;
        all += probe.counts.hits;
        passed += probe.counts.hits - std::min(probe.counts.filtered, probe.counts.hits);
        tell_end(*running, probe);
      }
      if (running->detector) running->detector->counted(armed.request, passed);
    }
    running->hits = std::max(running->hits, all);
  }
}

void GuestWatch::tell_end(Running& running, const ProbeInfo& probe) {
  if (probe.counts.stormed)
    note_once(running, to_string(probe.site) + " was hit too often, and is disarmed");
  if (probe.ended.empty()) return;
  note_once(running, to_string(probe.site) + ": " + probe.ended);
  std::erase_if(running.armed, [&](const Armed& one) {
    return std::ranges::find(one.ids, probe.id) != one.ids.end();
  });
  running.pending = true;  // the module may come back
}

void GuestWatch::raise(Running& running, Detection detection, std::optional<Moment> seen) {
  if (!detection.object.empty()) {
    running.now_there.insert(detection.object);
    if (running.over_there.contains(detection.object)) return;
  }
  if (found_.size() >= max_found) return;
  const CompiledRule& rule = running.detector->rule();
  Found found{.alarm = rule.alarm(detection.fields, wall_clock_ns()),
              .key = rule.limit_key(detection.fields),
              .by = &running,
              .seen = seen};
  found.alarm.evidence = std::move(detection.evidence);
  found.alarm.pid = detection.pid;
  ++running.alarms;
  found_.push_back(std::move(found));
}

/// Of the process that it is about, as it is now: its record, files and sockets.
nlohmann::json GuestWatch::evidence_of(std::int32_t pid) {
  State state;
  StateOptions options;
  options.parts = part_processes | part_open_files | part_sockets;
  options.pid = pid;
  if (pid <= 0 || !state_reader_->read(options, state)) return nullptr;
  const Process* process = find_process(state, pid);
  if (process == nullptr) return nullptr;
  nlohmann::json evidence{{"process", json_of(*process)}};
  constexpr std::size_t most = 64;
  for (const OpenFile& file : state.open_files) {
    if (evidence["open_files"].size() < most) evidence["open_files"].push_back(json_of(file));
  }
  for (const Socket& socket : state.sockets) {
    if (socket.pid == pid && evidence["sockets"].size() < most)
      evidence["sockets"].push_back(json_of(socket));
  }
  return evidence;
}

/// What can be told; the rest waits.
std::vector<GuestWatch::Found> GuestWatch::take_found(Doubt doubt) {
  const auto was_seen = [](const Found& found) { return found.seen.has_value(); };
  if (doubt == Doubt::is_told || std::ranges::none_of(found_, was_seen))
    return std::exchange(found_, {});
  const Moment at = now();
  const auto is_sure = [&](const Found& found) { return !found.seen || lives_on(*found.seen, at); };
  if (!std::ranges::all_of(found_, is_sure) && !halted_by_somebody().empty())
    return std::exchange(found_, {});
  const auto doubtful = std::stable_partition(found_.begin(), found_.end(), is_sure);
  std::vector<Found> sure(std::make_move_iterator(found_.begin()),
                          std::make_move_iterator(doubtful));
  found_.erase(found_.begin(), doubtful);
  return sure;
}

void GuestWatch::deliver_found(Doubt doubt) {
  constexpr std::size_t with_evidence = 16;  // of one round: reading it takes time
  const std::uint64_t now_ns = monotonic_ns();
  std::size_t looked_at = 0;
  for (Found& found : take_found(doubt)) {
    const CompiledRule& rule = found.by->detector->rule();
    for (Alarm& alarm :
         limiter_.add(std::move(found.alarm), found.key, rule.limit_every_ns(), now_ns)) {
      if (alarm.pid > 0 && looked_at++ < with_evidence) {
        if (auto evidence = evidence_of(alarm.pid); evidence.is_object()) {
          alarm.evidence.update(evidence);
        }
      }
      options_.alarm(alarm, rule_by_name_.at(alarm.rule));
    }
  }
  for (const Alarm& alarm : limiter_.due(now_ns))
    options_.alarm(alarm, rule_by_name_.at(alarm.rule));
}

Result<void> GuestWatch::finish() {
  Result<void> done;
  if (prober_) done = prober_->finish();
  deliver_found(Doubt::is_told);
  for (const Alarm& alarm : limiter_.flush()) options_.alarm(alarm, rule_by_name_.at(alarm.rule));
  return done;
}

Result<void> GuestWatch::read(unsigned parts, State& into) {
  StateOptions options;
  options.parts = parts;
  return state_reader_->read(options, into);
}

}  // namespace vmsight::detect

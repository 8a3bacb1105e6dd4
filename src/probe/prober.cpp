// Requests as text to orders of an engine, and its hits to events with names.
#include <fmt/format.h>
#include <algorithm>
#include <map>
#include <utility>

#include "base/clock.h"
#include "kernel/guest_text.h"
#include "kernel/module_symbols.h"
#include "probe/arguments.h"
#include "probe/engine.h"
#include "probe/expression.h"
#include "probe/kernel_sites.h"
#include "probe/user_sites.h"

namespace vmsight {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t follow_interval_ns = 500'000'000;
/// How often it is looked whether the guest still runs its kernel. Where probes stop the guest it waits for us,
/// and the monitor tells of resets, too.
constexpr std::uint64_t watch_interval_ns = 1'000'000'000, slow_watch_interval_ns = 10'000'000'000;

class EngineProber final : public Prober {
 public:
  EngineProber(const EngineSetting& setting, std::unique_ptr<ProbeEngine> engine, bool is_auto)
      : setting_(setting),
        reader_(setting.memory, setting.kernel.space()),
        is_auto_(is_auto),
        engine_(std::move(engine)) {}

  EngineAbilities abilities() const override { return engine_->abilities(); }
  std::uint64_t foreign() const override { return engine_->foreign(); }
  std::uint64_t late() const override { return engine_->late(); }
  std::string engine_note() const override { return note_; }
  std::string left_out_note() const override { return left_out_note_; }

  Result<std::vector<ProbeSite>> find(const ProbeRequest& request) override {
    VMSIGHT_TRY(const Site site, parse_site(request.site));
    if (!site.user) return find_kernel(request, site);
    VMSIGHT_TRY_VOID(setting_.memory.refresh());
    reader_.flush();
    return find_user_sites(setting_.kernel, reader_, site,
                           {.pid = request.pid, .symbols_files = request.symbols_files});
  }

  Result<std::vector<ProbeId>> add(std::span<const ProbeRequest> requests,
                                   ProbeHandler handler) override {
    const auto shared = std::make_shared<ProbeHandler>(std::move(handler));
    std::vector<Probe> probes;
    std::vector<ProbeOrder> orders;
    std::optional<Error> no_fit;  // why a site was left out
    std::size_t left_out = 0;
    for (const ProbeRequest& request : requests) {
      VMSIGHT_TRY(const auto sites, find(request));
      const bool may_skip = request.where_filter_fits || sites.size() > 1;
      for (const ProbeSite& site : sites) {
        Probe probe{.site = site,
                    .plan = plan_function(setting_.kernel, reader_, site, request.text_arguments),
                    .handler = shared};
        auto planned = plan_fields(setting_.kernel, request.fields, probe.plan);
        auto made =
            planned ? order_for(request, probe) : Result<ProbeOrder>(std::move(planned).error());
        if (!made && may_skip && made.error().code == ErrorCode::usage) {
          no_fit = std::move(made).error();
          continue;
        }
        VMSIGHT_TRY(ProbeOrder order, std::move(made));
        if (auto can = engine_->check(order);
            !can && may_skip && can.error().code == ErrorCode::unsupported) {
          if (left_out++ == 0) left_out_note_ = can.error().message;
          no_fit = std::move(can).error();
          continue;
        }
        order.id = next_id_ + static_cast<ProbeId>(orders.size());
        orders.push_back(std::move(order));
        probes.push_back(std::move(probe));
      }
    }
    if (orders.empty() && no_fit) return *no_fit;
    if (left_out != 0) left_out_note_ = fmt::format("{} left out; {}", left_out, left_out_note_);
    VMSIGHT_TRY_VOID(arm(orders));
    std::vector<ProbeId> ids;
    for (std::size_t i = 0; i < orders.size(); ++i) {
      ids.push_back(orders[i].id);
      probes_.emplace(orders[i].id, std::move(probes[i]));
    }
    next_id_ += static_cast<ProbeId>(orders.size());
    return ids;
  }

  Result<void> remove(std::span<const ProbeId> ids) override {
    VMSIGHT_TRY_VOID(engine_->disarm(ids));
    for (const ProbeId id : ids) probes_.erase(id);
    return {};
  }

  Result<std::vector<ProbeInfo>> list() override {
    std::vector<ProbeInfo> all;
    for (const auto& [id, probe] : probes_) {
      VMSIGHT_TRY(const ProbeCounts counts, engine_->counts(id));
      all.push_back({.id = id,
                     .site = probe.site,
                     .problem = probe.plan.problem,
                     .ended = probe.ended,
                     .counts = counts});
    }
    return all;
  }

  Result<std::size_t> poll(std::chrono::milliseconds patience) override {
    VMSIGHT_TRY_VOID(watch_kernel());
    VMSIGHT_TRY_VOID(follow_processes());
    return engine_->poll(patience, [this](Hit& hit) { tell(hit); });
  }

  Result<void> finish() override {
    std::vector<ProbeId> ids;
    for (const auto& [id, probe] : probes_) ids.push_back(id);
    auto disarmed = engine_->disarm(ids);
    engine_->drain([this](Hit& hit) { tell(hit); });
    return disarmed;
  }

 private:
  struct Probe {
    ProbeSite site;
    FunctionPlan plan;
    std::shared_ptr<ProbeHandler> handler;
    std::string ended;
    unsigned absent = 0;  // looks in a row that did not find its module
  };

  Result<std::vector<ProbeSite>> find_kernel(const ProbeRequest& request, const Site& site) {
    VMSIGHT_TRY(auto sites, find_kernel_sites(setting_.kernel, site));
    const auto is_left_out = [&](const ProbeSite& found) {
      return std::find(request.without.begin(), request.without.end(), found.function) !=
             request.without.end();
    };
    if (site.is_pattern()) std::erase_if(sites, is_left_out);
    return sites;
  }

  /// Of another kernel addresses mean nothing; modules come and go.
  Result<void> watch_kernel() {
    const std::uint64_t now = monotonic_ns();
    const bool stops = engine_->abilities().stops_guest;
    const std::uint64_t interval = stops ? slow_watch_interval_ns : watch_interval_ns;
    const bool is_time = std::exchange(looks_again_, false) || now - watched_ns_ >= interval;
    if (probes_.empty() || !is_time) return {};
    watched_ns_ = now;
    VMSIGHT_TRY_VOID(setting_.memory.refresh());
    reader_.flush();
    VMSIGHT_TRY_VOID(setting_.kernel.check_running());
    VMSIGHT_TRY_VOID(check_clock());
    return end_unloaded();
  }

  /// A kernel that began anew where it was before, or was set back to a snapshot, has none of our probes.
  Result<void> check_clock() {
    const auto at = setting_.kernel.symbol("jiffies_64");
    if (!at) return {};
    reader_.clear_fault();
    const std::uint64_t ticks = reader_.u64(*at);
    const bool is_known = reader_.ok();
    reader_.clear_fault();
    if (!is_known || std::exchange(ticks_, ticks) <= ticks) return {};
    return Error{
        .code = ErrorCode::vm_gone,
        .message = "the guest's clock has gone back: it was reset, or set back to a snapshot",
        .hint = "begin anew when it is up"};
  }

  Result<void> end_unloaded() {
    const auto is_of_module = [](const auto& entry) {
      const Probe& probe = entry.second;
      return !probe.site.user && !probe.site.module.empty() && probe.ended.empty();
    };
    if (std::none_of(probes_.begin(), probes_.end(), is_of_module)) return {};
    const auto modules = read_module_places(setting_.kernel, reader_);
    if (!modules) return {};
    std::vector<ProbeId> gone;
    for (auto& entry : probes_) {
      Probe& probe = entry.second;
      const auto has_it = [&](const LoadedModule& module) {
        return module.name == probe.site.module && module.contains(probe.site.address);
      };
      if (!is_of_module(entry)) continue;
      if (std::any_of(modules->begin(), modules->end(), has_it)) {
        probe.absent = 0;
        continue;
      }
      if (++probe.absent < 2) {  // this look may have met a list that was changing
        looks_again_ = true;
        continue;
      }
      probe.ended =
          fmt::format("the guest has unloaded module {}", escape_bytes(probe.site.module));
      gone.push_back(entry.first);
    }
    return gone.empty() ? Result<void>() : engine_->forget(gone);
  }

  /// Where "auto" chose an engine by what it can do at all, another may have to take these sites.
  Result<void> arm(std::span<const ProbeOrder> orders) {
    auto armed = arm_by(*engine_, orders);
    const bool any_user = std::any_of(orders.begin(), orders.end(),
                                      [](const ProbeOrder& order) { return order.site.user; });
    if (armed || armed.error().code != ErrorCode::unsupported || !is_auto_ || !any_user ||
        !probes_.empty() || engine_->abilities().any_instruction) {
      return armed;
    }
    auto other = open_for_any_instruction();
    if (!other) return armed;
    VMSIGHT_TRY_VOID(arm_by(*other, orders));
    engine_ = std::move(other);
    note_ = std::move(armed).error().message;
    return {};
  }

  /// nullptr if there is none that works here.
  std::unique_ptr<ProbeEngine> open_for_any_instruction() const {
    for (const EngineInfo* info : all_engines()) {
      if (!info->abilities(setting_.vm.info()).any_instruction) continue;
      if (auto opened = info->open(setting_)) return std::move(*opened);
    }
    return nullptr;
  }

  Result<void> arm_by(ProbeEngine& engine, std::span<const ProbeOrder> orders) const {
    for (const ProbeOrder& order : orders) VMSIGHT_TRY_VOID(check(engine.abilities(), order.site));
    return engine.arm(orders);
  }

  using Ability = bool EngineAbilities::*;

  Result<void> check(const EngineAbilities& can, const ProbeSite& site) const {
    const struct {
      bool wanted;
      Ability ability;
      std::string_view what;
    } needs[] = {
        {site.user, &EngineAbilities::user_sites, "probe user programs"},
        {site.at_return, &EngineAbilities::return_sites, "see functions return"},
        {site.offset != 0, &EngineAbilities::any_instruction, "probe inside of functions"}};
    for (const auto& need : needs) {
      if (!need.wanted || can.*need.ability) continue;
      return Error{.code = ErrorCode::unsupported,
                   .message = fmt::format("probe {}: engine {} cannot {}",
                                          escape_bytes(to_string(site)), can.name, need.what),
                   .hint = hint_of(need.ability)};
    }
    return {};
  }

  std::string hint_of(Ability ability) const {
    for (const EngineInfo* info : all_engines()) {
      if (info->abilities(setting_.vm.info()).*ability)
        return fmt::format("try --engine {}", info->name);
    }
    return "";
  }

  static Result<ProbeOrder> order_for(const ProbeRequest& request, const Probe& probe) {
    ProbeOrder order{.site = probe.site,
                     .fetches = probe.plan.fetches,
                     .counts_only = request.counts_only,
                     .standing = request.standing,
                     .rate_limit = request.rate_limit,
                     .storm_limit = request.storm_limit};
    if (probe.site.at_return) order.fetches_return = probe.plan.fetches_return;
    std::string filter = request.filter;
    if (request.pid && !probe.site.user) {
      filter = filter.empty() ? fmt::format("tgid == {}", *request.pid)
                              : fmt::format("tgid == {} && ({})", *request.pid, filter);
    }
    if (!filter.empty()) {
      bool unknown_name = false;
      const FilterNames own = filter_names(probe.plan, probe.site.at_return);
      const FilterNames names = [&](std::string_view name) {
        auto found = own(name);
        if (!found) unknown_name = true;
        return found;
      };
      auto parsed = parse_filter(filter, names);
      if (!parsed && unknown_name) return with_names(std::move(parsed).error(), probe);
      VMSIGHT_TRY(order.filter, std::move(parsed));
    }
    return order;
  }

  static Error with_names(Error error, const Probe& probe) {
    error.hint = "names are pid, tgid, comm, cpu";
    for (const ArgumentPlan& argument : probe.plan.arguments) error.hint += ", " + argument.name;
    if (probe.site.at_return) error.hint += ", retval, duration";
    return error;
  }

  static ProbeArgument argument_of(const ProbeValue& value, bool is_result) {
    ProbeArgument argument{.name = value.plan->name,
                           .type = value.plan->type,
                           .known = value.known,
                           .number = value.number,
                           .is_signed = value.plan->is_signed,
                           .text = to_text(value, is_result)};
    argument.is_pointer = value.plan->shape == ArgumentPlan::Shape::pointer ||
                          value.plan->shape == ArgumentPlan::Shape::text;
    argument.is_text = value.plan->shape == ArgumentPlan::Shape::text;
    argument.structure = value.plan->structure;
    argument.names = value.names.empty() ? small_negative(value) : value.names;
    argument.cut = value.cut;
    if (value.plan->shape == ArgumentPlan::Shape::opaque) argument.known = false;
    if (is_result && argument.names.empty() && (argument.is_signed || argument.is_pointer))
      argument.names = error_name(value.number);
    argument.unused = value.unused;
    if (value.text) argument.bytes = *value.text;
    return argument;
  }

  /// Programs are started and end while their code is probed.
  Result<void> follow_processes() {
    const std::uint64_t now = monotonic_ns();
    if (now - followed_ns_ < follow_interval_ns) return {};
    std::vector<ProbeSite*> sites;
    struct Before {
      ProbeId id;
      GuestVirt inode;
      std::vector<UserPlace> places;
    };
    std::vector<Before> before;
    for (auto& [id, probe] : probes_) {
      if (!probe.site.user || !probe.site.any_process) continue;
      sites.push_back(&probe.site);
      before.push_back({id, probe.site.inode, probe.site.places});
    }
    followed_ns_ = now;
    if (sites.empty()) return {};
    VMSIGHT_TRY_VOID(setting_.memory.refresh());
    reader_.flush();
    VMSIGHT_TRY_VOID(find_places_again(setting_.kernel, reader_, sites));
    for (std::size_t i = 0; i < sites.size(); ++i) {
      const auto& [id, inode, places] = before[i];
      const bool moved = sites[i]->inode != inode || sites[i]->places != places;
      if (moved) VMSIGHT_TRY_VOID(engine_->follow(id, *sites[i]));
    }
    return {};
  }

  void tell(Hit& hit) {
    const auto at = probes_.find(hit.probe);
    if (at == probes_.end() || !*at->second.handler) return;
    const Probe& probe = at->second;
    const std::vector<ProbeValue> values = decode_arguments(probe.plan, hit);
    std::vector<ProbeArgument> arguments;
    for (const ProbeValue& value : values) arguments.push_back(argument_of(value, false));
    const auto result_value = decode_result(probe.plan, hit);
    std::optional<ProbeArgument> result;
    if (result_value) result = argument_of(*result_value, true);
    reader_.flush();
    std::string function = probe.plan.name;
    std::optional<std::int64_t> system_call = probe.plan.system_call;
    // Of a number that the kernel does not know: strace's name.
    const auto number = probe.plan.number;
    if (number && *number < hit.fetched.size() && hit.fetched[*number].ok) {
      system_call = static_cast<std::int64_t>(hit.fetched[*number].value);
      function = fmt::format("syscall_{:#x}", hit.fetched[*number].value);
    }
    (*probe.handler)({.hit = hit,
                      .site = probe.site,
                      .function = function,
                      .system_call = system_call,
                      .abi = probe.plan.abi,
                      .arguments = arguments,
                      .result = result ? &*result : nullptr,
                      .refusal = hit.can_be_refused ? &hit.refusal : nullptr,
                      .memory = reader_});
  }

  EngineSetting setting_;
  Reader reader_;
  std::map<ProbeId, Probe> probes_;
  ProbeId next_id_ = 1;
  std::uint64_t followed_ns_ = monotonic_ns(), watched_ns_ = 0;
  bool looks_again_ = false;  // for modules that were not found
  std::uint64_t ticks_ = 0;   // the guest's clock when it was last looked at
  bool is_auto_;
  std::string note_, left_out_note_;
  std::unique_ptr<ProbeEngine> engine_;  // the first to go: its hits may need the rest
};

/// It is read while a guest runs, and where QEMU halts it at a hit.
Result<void> check_memory(const GuestMemory& memory) {
  const ViewNature nature = memory.nature();
  if (nature.passive && !nature.one_moment) return {};
  const std::string_view why =
      nature.one_moment ? "it is not live" : "it asks QEMU or the guest, which may stand at a hit";
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("probe by technique {}: {}", memory.technique(), why),
               .hint = "use --technique live-map or live-read"};
}

}  // namespace

Result<std::unique_ptr<Prober>> Prober::open(const ProbeSetting& setting) {
  VMSIGHT_TRY_VOID(check_memory(setting.memory));
  const EngineSetting given{.vm = setting.vm,
                            .kernel = setting.kernel,
                            .memory = setting.memory,
                            .max_halt = setting.max_halt};
  VMSIGHT_TRY(auto opened, open_engine(given, setting.engine));
  return std::unique_ptr<Prober>(
      std::make_unique<EngineProber>(given, std::move(opened), setting.engine == "auto"));
}

}  // namespace vmsight

// vmsight.h: probes.
#include "library/c_errors.h"
#include "library/c_guest.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>

#include "probe/hit_memory.h"
#include "vmsight/probe.h"

using namespace vmsight;

struct vmsight_prober {
  std::unique_ptr<Prober> prober;
  std::string engine;
  bool in_handler = false, closed = false;  // a handler runs; it has closed us
};

namespace {

Result<vmsight_prober*> open_prober(vmsight_guest& guest, const char* engine) {
  Guest& of = guest.guest;
  if (!of.vm) {
    return Error{.code = ErrorCode::unsupported, .message = of.name + " is an image: nothing runs"};
  }
  auto made = std::make_unique<vmsight_prober>();
  VMSIGHT_TRY(made->prober,
              Prober::open({.vm = *of.vm,
                            .kernel = *of.kernel,
                            .memory = *of.memory,
                            .engine = engine == nullptr ? "auto" : engine,
                            .max_halt = guest.options.wish.max_halt.value_or(default_max_halt)}));
  made->engine = made->prober->abilities().name;
  return made.release();
}

/// C wants strings that end.
class Words {
 public:
  const char* keep(std::string_view text) {
    all_.push_back(std::make_unique<std::string>(text));
    return all_.back()->c_str();
  }

 private:
  std::vector<std::unique_ptr<std::string>> all_;
};

vmsight_probe_argument argument_of(const ProbeArgument& argument, Words& words) {
  vmsight_probe_argument made{};
  made.size = sizeof made;
  made.name = words.keep(argument.name);
  made.names = argument.names.c_str();
  made.structure = words.keep(argument.structure);
  made.unused = argument.unused ? 1 : 0;
  made.type = words.keep(argument.type);
  made.text = argument.text.c_str();
  made.known = argument.known ? 1 : 0;
  made.is_signed = argument.is_signed ? 1 : 0;
  made.number = argument.number;
  if (argument.bytes) {
    made.bytes = words.keep(*argument.bytes);
    made.byte_count = argument.bytes->size();
  }
  return made;
}

void call(const ProbeEvent& event, vmsight_probe_handler handler, void* context) {
  Words words;
  std::vector<vmsight_probe_argument> arguments;
  for (const ProbeArgument& argument : event.arguments)
    arguments.push_back(argument_of(argument, words));
  std::vector<const vmsight_probe_argument*> pointers;  // so that an argument can grow
  for (const vmsight_probe_argument& argument : arguments) pointers.push_back(&argument);
  vmsight_probe_argument result{};
  if (event.result != nullptr) result = argument_of(*event.result, words);
  const ProbeHit& hit = event.hit;
  vmsight_probe_event made{};
  made.size = sizeof made;
  made.probe = hit.probe;
  made.at_return = hit.at_return ? 1 : 0;
  made.time_ns = hit.time_ns;
  made.duration_ns = hit.duration_ns;
  made.vcpu = hit.vcpu;
  made.task_known = hit.task.task.raw() != 0 ? 1 : 0;
  made.pid = hit.task.pid;
  made.tgid = hit.task.tgid;
  made.comm = hit.task.comm.data();
  made.function = words.keep(event.function);
  made.arguments = pointers.data();
  made.argument_count = arguments.size();
  made.result = event.result != nullptr ? &result : nullptr;
  std::copy(hit.registers.general.begin(), hit.registers.general.end(), made.general);
  made.rip = hit.registers.rip;
  made.rflags = hit.registers.rflags;
  made.cr3 = hit.registers.cr3;
  made.gs_base = hit.registers.gs_base;
  made.known = hit.registers.known;
  HitMemory memory(event.memory, hit.registers.cr3);
  made.memory = &memory;
  made.system_call = event.system_call.value_or(-1);
  handler(&made, context);
}

Result<ProbeRequest> request_of(const vmsight_probe_request& request) {
  if (request.site == nullptr)
    return Error{.code = ErrorCode::usage, .message = "probe: no site is named"};
  ProbeRequest made{.site = request.site};
  if (request.filter != nullptr) made.filter = request.filter;
  if (request.pid != 0) made.pid = request.pid;
  if (request.symbols_file != nullptr) made.symbols_files = {request.symbols_file};
  made.counts_only = request.counts_only != 0;
  made.standing = request.standing != 0;
  made.rate_limit = request.rate_limit;
  if (request.storm_limit != 0) made.storm_limit = request.storm_limit;
  made.where_filter_fits = request.where_filter_fits != 0;
  return made;
}

/// What a handler may not do: what called it is not done with the probes.
Result<void> usable(const vmsight_prober* prober) {
  VMSIGHT_TRY_VOID(c::needed(prober, "prober"));
  if (!prober->in_handler) return {};
  return c::wrong(
      "a handler may only read memory: this is to be called after vmsight_prober_poll()");
}

Error no_probe(std::uint32_t probe) {
  return {.code = ErrorCode::not_found, .message = fmt::format("no probe has number {}", probe)};
}

}  // namespace

vmsight_prober* vmsight_prober_open(vmsight_guest* guest, const char* engine,
                                    vmsight_error* error) {
  return c::guarded(error, static_cast<vmsight_prober*>(nullptr), [&]() -> Result<vmsight_prober*> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    return open_prober(*guest, engine);
  });
}

void vmsight_prober_close(vmsight_prober* prober) {
  if (prober != nullptr && prober->in_handler)
    prober->closed = true;  // by whoever called the handler
  else
    delete prober;
}

const char* vmsight_prober_engine(const vmsight_prober* prober) {
  return prober != nullptr ? prober->engine.c_str() : "";
}

std::uint64_t vmsight_prober_foreign(const vmsight_prober* prober) {
  return prober != nullptr ? prober->prober->foreign() : 0;
}

int vmsight_prober_find(vmsight_prober* prober, const vmsight_probe_request* request,
                        vmsight_probe_place place, void* context, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(usable(prober));
    VMSIGHT_TRY(const auto taken, c::take(request));
    VMSIGHT_TRY(const ProbeRequest wanted, request_of(taken));
    VMSIGHT_TRY(const auto sites, prober->prober->find(wanted));
    for (const ProbeSite& site : sites) {
      const std::string text = to_string(site);
      if (place == nullptr) continue;
      if (!site.user) place(text.c_str(), site.address.raw(), 0, context);
      for (const UserPlace& one : site.places)
        place(text.c_str(), one.address.raw(), one.tgid, context);
    }
    return static_cast<int>(sites.size());
  });
}

int vmsight_prober_add(vmsight_prober* prober, const vmsight_probe_request* request,
                       std::uint32_t* first, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(usable(prober));
    VMSIGHT_TRY(const auto taken, c::take(request));
    VMSIGHT_TRY(const ProbeRequest wanted, request_of(taken));
    ProbeHandler handler;
    if (taken.handler != nullptr) {
      handler = [prober, call_it = taken.handler,
                 context = taken.context](const ProbeEvent& event) {
        if (prober->closed) return;
        prober->in_handler = true;
        call(event, call_it, context);
        prober->in_handler = false;
      };
    }
    VMSIGHT_TRY(const auto ids, prober->prober->add({&wanted, 1}, std::move(handler)));
    if (first != nullptr && !ids.empty()) *first = ids.front();
    return static_cast<int>(ids.size());
  });
}

int vmsight_prober_remove(vmsight_prober* prober, std::uint32_t probe, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(usable(prober));
    VMSIGHT_TRY_VOID(prober->prober->remove({&probe, 1}));
    return 0;
  });
}

int vmsight_prober_counts(vmsight_prober* prober, std::uint32_t probe, vmsight_probe_counts* counts,
                          vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(usable(prober));
    VMSIGHT_TRY(const auto all, prober->prober->list());
    const auto info = std::find_if(all.begin(), all.end(),
                                   [probe](const ProbeInfo& each) { return each.id == probe; });
    if (info == all.end()) return no_probe(probe);
    const ProbeCounts& from = info->counts;
    vmsight_probe_counts told{};
    told.hits = from.hits;
    told.filtered = from.filtered;
    told.told = from.told;
    told.lost = from.lost;
    told.missed_returns = from.missed_returns;
    told.rate_limited = from.rate_limited;
    told.foreign = from.foreign;
    std::copy(from.durations.begin(), from.durations.end(), told.durations);
    told.stormed = from.stormed ? 1 : 0;
    told.reloads = from.reloads;
    return c::give(counts, told);
  });
}

int vmsight_prober_poll(vmsight_prober* prober, int milliseconds, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(usable(prober));
    const std::chrono::milliseconds patience(std::max(milliseconds, 0));
    auto told = prober->prober->poll(patience);
    if (prober->closed) delete prober;
    if (!told) return told.error();
    return static_cast<int>(*told);
  });
}

std::size_t vmsight_probe_read(const vmsight_probe_event* event, std::uint64_t address, void* into,
                               std::size_t bytes) {
  if (event == nullptr || event->memory == nullptr || into == nullptr) return 0;
  return static_cast<HitMemory*>(event->memory)
      ->copy(address, {static_cast<std::byte*>(into), bytes});
}

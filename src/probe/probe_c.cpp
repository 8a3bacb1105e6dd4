#include "vmsight/probe_c.h"

#include <fmt/format.h>
#include <algorithm>
#include <cstring>

#include "probe/hit_memory.h"
#include "vmsight/guest.h"
#include "vmsight/probe.h"

using namespace vmsight;

/// All that an engine needs, in the order in which it is given back.
struct vmsight_prober {
  Guest guest;
  std::unique_ptr<Prober> prober;
  std::string error, engine;
};

namespace {

std::string text_of(const Error& error) {
  return error.hint.empty() ? error.message : error.message + "; " + error.hint;
}

Result<std::unique_ptr<vmsight_prober>> open_prober(const char* vm, const char* engine) {
  auto made = std::make_unique<vmsight_prober>();
  VMSIGHT_TRY(made->guest, attach(vm));
  Guest& guest = made->guest;
  if (!guest.vm) {
    return Error{.code = ErrorCode::unsupported,
                 .message = guest.name + " is an image: nothing runs"};
  }
  VMSIGHT_TRY(made->prober, Prober::open({*guest.vm, *guest.kernel, *guest.memory},
                                         engine == nullptr ? "auto" : engine));
  made->engine = made->prober->abilities().name;
  return made;
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
    made.size = argument.bytes->size();
  }
  return made;
}

void call(const ProbeEvent& event, vmsight_probe_handler handler, void* context) {
  Words words;
  std::vector<vmsight_probe_argument> arguments;
  for (const ProbeArgument& argument : event.arguments)
    arguments.push_back(argument_of(argument, words));
  vmsight_probe_argument result{};
  if (event.result != nullptr) result = argument_of(*event.result, words);
  const Hit& hit = event.hit;
  vmsight_probe_event made{};
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
  made.arguments = arguments.data();
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

ProbeRequest request_of(const vmsight_probe_request& request) {
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

template <typename Value>
int fail(vmsight_prober* prober, const Result<Value>& result) {
  prober->error = text_of(result.error());
  return -1;
}

}  // namespace

vmsight_prober* vmsight_prober_open(const char* vm, const char* engine, char* error,
                                    std::size_t error_size) {
  auto opened = open_prober(vm, engine);
  if (opened) return opened->release();
  if (error != nullptr && error_size > 0) {
    const std::string why = text_of(opened.error());
    error[why.copy(error, error_size - 1)] = '\0';
  }
  return nullptr;
}

void vmsight_prober_close(vmsight_prober* prober) {
  if (prober != nullptr) prober->prober.reset();
  delete prober;
}

const char* vmsight_prober_error(const vmsight_prober* prober) { return prober->error.c_str(); }

const char* vmsight_prober_engine(const vmsight_prober* prober) { return prober->engine.c_str(); }

std::uint64_t vmsight_prober_foreign(const vmsight_prober* prober) {
  return prober->prober->foreign();
}

int vmsight_prober_find(vmsight_prober* prober, const vmsight_probe_request* request,
                        vmsight_probe_place place, void* context) {
  const auto sites = prober->prober->find(request_of(*request));
  if (!sites) return fail(prober, sites);
  for (const ProbeSite& site : *sites) {
    const std::string text = to_string(site);
    if (place == nullptr) continue;
    if (!site.user) place(text.c_str(), site.address.raw(), 0, context);
    for (const UserPlace& one : site.places)
      place(text.c_str(), one.address.raw(), one.tgid, context);
  }
  return static_cast<int>(sites->size());
}

int vmsight_prober_add(vmsight_prober* prober, const vmsight_probe_request* request,
                       std::uint32_t* first) {
  const ProbeRequest made = request_of(*request);
  ProbeHandler handler;
  if (request->handler != nullptr) {
    handler = [call_it = request->handler, context = request->context](const ProbeEvent& event) {
      call(event, call_it, context);
    };
  }
  const auto ids = prober->prober->add({&made, 1}, std::move(handler));
  if (!ids) return fail(prober, ids);
  if (first != nullptr && !ids->empty()) *first = ids->front();
  return static_cast<int>(ids->size());
}

int vmsight_prober_remove(vmsight_prober* prober, std::uint32_t probe) {
  const auto done = prober->prober->remove({&probe, 1});
  return done ? 0 : fail(prober, done);
}

int vmsight_prober_counts(vmsight_prober* prober, std::uint32_t probe,
                          vmsight_probe_counts* counts) {
  const auto all = prober->prober->list();
  if (!all) return fail(prober, all);
  for (const ProbeInfo& info : *all) {
    if (info.id != probe) continue;
    const ProbeCounts& from = info.counts;
    *counts = {.hits = from.hits,
               .filtered = from.filtered,
               .told = from.told,
               .lost = from.lost,
               .missed_returns = from.missed_returns,
               .rate_limited = from.rate_limited,
               .foreign = from.foreign,
               .durations = {},
               .stormed = from.stormed ? 1 : 0,
               .reloads = from.reloads};
    std::copy(from.durations.begin(), from.durations.end(), counts->durations);
    return 0;
  }
  prober->error = fmt::format("no probe has number {}", probe);
  return -1;
}

int vmsight_prober_poll(vmsight_prober* prober, int milliseconds) {
  const auto told = prober->prober->poll(std::chrono::milliseconds(std::max(milliseconds, 0)));
  return told ? static_cast<int>(*told) : fail(prober, told);
}

std::size_t vmsight_probe_read(const vmsight_probe_event* event, std::uint64_t address, void* into,
                               std::size_t size) {
  return static_cast<HitMemory*>(event->memory)
      ->copy(address, {static_cast<std::byte*>(into), size});
}

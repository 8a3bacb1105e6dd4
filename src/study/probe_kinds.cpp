#include "study/probe_kinds.h"

#include <array>

namespace vmsight {
namespace {

constexpr std::uint16_t text_size = 64;

struct Described {
  ProbeKind kind;
  std::string_view name, what;
};
constexpr std::array described{
    Described{ProbeKind::counting, "count", "hits are counted"},
    Described{ProbeKind::event, "event", "time, vCPU, registers, pid, comm are told"},
    Described{ProbeKind::event_string, "event+string",
              "and a string that the first argument points to"},
    Described{ProbeKind::call, "entry+return",
              "both are trapped; the return is told, with its duration"},
    Described{ProbeKind::rejected_pid, "rejected: pid", "the filter asks for another pid"},
    Described{ProbeKind::rejected_comm, "rejected: comm", "the filter asks for another comm"},
    Described{ProbeKind::idle, "no hits", "a function is probed that nobody calls"},
    Described{ProbeKind::rejected_address, "rejected: address",
              "a trap at an address that has no probe"},
    Described{ProbeKind::rejected_vm, "rejected: VM", "a trap in another VM than the probed one"},
    Described{ProbeKind::unwatched, "trap alone", "a trap at which nobody looks"},
};
constexpr auto all_kinds = [] {
  std::array<ProbeKind, described.size()> kinds{};
  for (std::size_t i = 0; i < kinds.size(); ++i) kinds[i] = described[i].kind;
  return kinds;
}();
/// Of an engine that stops the guest, which costs far more than what becomes of the hit.
constexpr std::array stopping_kinds{ProbeKind::event};

const Described& description(ProbeKind kind) {
  for (const Described& one : described) {
    if (one.kind == kind) return one;
  }
  return described.front();
}

/// Nobody has it: pids are positive, and a comm of digits like these is no program's.
ProbeFilter filter_of_nobody(ProbeKind kind) {
  ProbeFilter filter;
  if (kind == ProbeKind::rejected_pid)
    filter.terms = {{.field = FilterTerm::Field::pid, .number = -1}};
  if (kind == ProbeKind::rejected_comm)
    filter.terms = {{.field = FilterTerm::Field::comm, .text = "0123456789"}};
  if (!filter.terms.empty()) filter.steps = {{FilterStep::Kind::term, 0}};
  return filter;
}

constexpr std::array published{
    PublishedProbe{"Lares", 28, "kernel", "static", "guest and hypervisor"},
    PublishedProbe{"SIM", 0.40, "kernel", "static", "guest and hypervisor"},
    PublishedProbe{"hprobes", 2.6, "kernel, programs", "dynamic", "hypervisor"},
};

}  // namespace

std::string_view name_of(ProbeKind kind) { return description(kind).name; }
std::string_view what_of(ProbeKind kind) { return description(kind).what; }

std::span<const ProbeKind> kinds_of_engine(const EngineAbilities& engine) {
  if (engine.stops_guest) return stopping_kinds;
  return all_kinds;
}

bool counts_hits(ProbeKind kind) {
  return kind != ProbeKind::idle && kind != ProbeKind::rejected_vm && kind != ProbeKind::unwatched;
}

ProbeOrder order_for(ProbeKind kind, ProbeId id, const ProbeSite& site, const ProbeFetch& text) {
  ProbeOrder order{.id = id, .site = site};
  order.site.at_return = kind == ProbeKind::call;
  order.counts_only = kind == ProbeKind::counting;
  order.filter = filter_of_nobody(kind);
  if (kind == ProbeKind::event_string) order.fetches = {text};
  return order;
}

ProbeFetch first_argument_text(const ProbeSite& site, std::int32_t pt_regs_di) {
  ProbeFetch fetch{.what = ProbeFetch::What::string, .base = reg::rdi, .size = text_size};
  if (site.function.starts_with("__x64_sys_")) {  // they get a struct pt_regs *
    fetch.step_count = 1;
    fetch.steps[0] = pt_regs_di;
  }
  return fetch;
}

std::span<const PublishedProbe> published_probes() { return published; }

PublishedProbe properties_of_engine(std::string_view engine) {
  return {.name = engine,
          .microseconds = 0,
          .where = "kernel, programs",
          .when = "dynamic",
          .changes = "nothing"};
}

}  // namespace vmsight

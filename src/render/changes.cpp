#include "render/changes.h"

#include "render/escape.h"
#include "render/format.h"
#include "render/json.h"
#include "render/ps.h"

namespace vmsight {
namespace {

/// What users call a change of a kind of record.
struct Words {
  std::string_view part, kind, added, removed;
};
constexpr Words words(const Process&) { return {"processes", "process", "started", "ended"}; }
constexpr Words words(const OpenFile&) { return {"open_files", "file", "opened", "closed"}; }
constexpr Words words(const MemoryMap&) { return {"memory_maps", "map", "mapped", "unmapped"}; }
constexpr Words words(const Socket&) { return {"sockets", "socket", "opened", "closed"}; }
constexpr Words words(const Module&) { return {"modules", "module", "loaded", "unloaded"}; }
constexpr Words words(const NetDevice&) { return {"net_devices", "device", "added", "removed"}; }
constexpr Words words(const Mount&) { return {"mounts", "mount", "mounted", "unmounted"}; }
constexpr Words words(const CpuInfo&) { return {"cpus", "cpu", "added", "removed"}; }
constexpr Words words(const LogRecord&) { return {"kernel_log", "log", "logged", ""}; }

std::string ids(const Process& p) {
  return fmt::format("parent {}, uid {}", p.ppid, p.uid ? fmt::to_string(*p.uid) : "?");
}
std::string text(const Process& p) {
  return fmt::format("{} {} ({})", p.pid, command_text(p), ids(p));
}
std::string text(const OpenFile& f) {
  return fmt::format("{} fd {} {}", f.pid, f.fd, known(f.path));
}
std::string text(const MemoryMap& m) {
  return fmt::format("{} {:x}-{:x} {} {}", m.pid, m.start, m.end, m.perms, known(m.path));
}
std::string text(const Module& m) {
  return fmt::format("{} {} bytes, {}", known(m.name), m.size, known(m.state));
}
std::string text(const NetDevice& d) {
  return fmt::format("{} {} {} {} <{}>", known(d.name), known(d.hwaddr), fmt::join(d.ipv4, " "),
                     fmt::join(d.ipv6, " "), fmt::join(d.flags, ","));
}
std::string text(const Mount& m) {
  return fmt::format("{} on {} ({}, {})", known(m.source), known(m.target), known(m.fstype),
                     known(m.options));
}
std::string text(const CpuInfo& c) {
  return fmt::format("{} {}", c.cpu, c.online ? "online" : "offline");
}
std::string text(const LogRecord& r) { return std::string(r.text); }

std::string endpoint(std::string_view address, std::uint32_t port) {
  return port == 0 ? known(address) : fmt::format("{}:{}", known(address), port);
}
std::string text(const Socket& s) {
  std::string owner = s.pid ? fmt::format(", pid {}", *s.pid) : "";
  return fmt::format("{} {} {} -> {}{}", known(s.protocol), known(s.state),
                     endpoint(s.local, s.local_port), endpoint(s.remote, s.remote_port), owner);
}

class Lines {
 public:
  Lines(Output& out, const ChangeTime& time) : out_(out), time_(time) {}

  template <typename Record>
  void operator()(const Change<Record>& change) {
    const Record& record = change.after != nullptr ? *change.after : *change.before;
    const Words word = words(record);
    if (change.before == nullptr) return line(word.added, word.kind, text(record));
    if (change.after == nullptr) return line(word.removed, word.kind, text(record));
    line("changed", word.kind, fmt::format("{}, was {}", text(record), text(*change.before)));
  }

  void line(std::string_view change, std::string_view kind, std::string_view what) {
    out_.print("{:>10.3f}  {:<9}  {:<8} {}\n", static_cast<double>(time_.since_ns) / 1e9, change,
               kind, for_terminal(what));
  }

 private:
  Output& out_;
  const ChangeTime& time_;
};

class Objects {
 public:
  Objects(Output& out, const ChangeTime& time) : out_(out), time_(time) {}

  template <typename Record>
  void operator()(const Change<Record>& change) {
    const Record& record = change.after != nullptr ? *change.after : *change.before;
    const bool both = change.before != nullptr && change.after != nullptr;
    object(words(record).part,
           both                       ? "changed"
           : change.before == nullptr ? "added"
                                      : "removed",
           to_json(record), both ? to_json(*change.before) : Json(nullptr));
  }

  void object(std::string_view part, std::string_view change, Json record, Json before) {
    out_.print("{}\n", dump({{"schema", "vmsight.change/1"},
                             {"view", time_.view},
                             {"time_ns", time_.start_ns},
                             {"part", part},
                             {"change", change},
                             {"record", std::move(record)},
                             {"before", std::move(before)}}));
  }

 private:
  Output& out_;
  const ChangeTime& time_;
};

template <typename Visitor>
void visit(const Changes& changes, Visitor visitor) {
  const auto each = [&](const auto& list) {
    for (const auto& change : list) visitor(change);
  };
  each(changes.cpus);
  each(changes.modules);
  each(changes.net_devices);
  each(changes.mounts);
  each(changes.processes);
  each(changes.open_files);
  each(changes.memory_maps);
  each(changes.sockets);
  each(changes.kernel_log);
}

}  // namespace

void print_change_header(Output& out) { out.write("      TIME  CHANGE     KIND     WHAT\n"); }

void print_changes(Output& out, const Changes& changes, const ChangeTime& time) {
  visit(changes, Lines(out, time));
}

void write_changes(Output& out, const Changes& changes, const ChangeTime& time) {
  visit(changes, Objects(out, time));
}

void print_reboot(Output& out, std::string_view banner, const ChangeTime& time) {
  Lines(out, time).line("rebooted", "guest", banner);
}

void write_reboot(Output& out, std::string_view banner, const ChangeTime& time) {
  Objects(out, time).object("os", "rebooted", {{"banner", json_text(banner)}}, nullptr);
}

}  // namespace vmsight

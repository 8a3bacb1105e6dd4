#include "render/changes_text.h"

#include "render/escape.h"
#include "render/format.h"
#include "render/json_writer.h"
#include "render/ps_text.h"
#include "state/records.h"

namespace vmsight {
namespace {

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
std::string text(const Thread& t) {
  return fmt::format("{} of {} {}", t.pid, t.tgid, known(t.comm));
}
std::string text(const LogRecord& r) { return std::string(r.text); }
std::string text(const Cgroup& c) { return fmt::format("{}:{}", c.hierarchy, c.path); }

std::string endpoint(std::string_view address, std::uint32_t port) {
  return port == 0 ? known(address) : fmt::format("{}:{}", known(address), port);
}
std::string text(const Socket& s) {
  std::string owner = s.pid ? fmt::format(", pid {}", *s.pid) : "";
  return fmt::format("{} {} {} -> {}{}", known(s.protocol), known(s.state),
                     endpoint(s.local, s.local_port), endpoint(s.remote, s.remote_port), owner);
}

/// What changed, where the texts of the records do not show it: "; pids_max 100, was 50".
template <typename Record>
std::string fields(const Kind<Record>& kind, const Record& before, const Record& after) {
  std::string text;
  for (const Field<Record>& field : kind.fields) {
    if (field.changed == nullptr || !field.changed(before, after)) continue;
    JsonWriter now, then;
    field.put(after, now);
    field.put(before, then);
    text += fmt::format("; {} {}, was {}", field.name, now.written(), then.written());
  }
  return text;
}

class Lines {
 public:
  Lines(Output& out, const ChangeTime& time) : out_(out), time_(time) {}

  template <typename Record>
  void operator()(const Change<Record>& change) {
    const Record& record = change.after != nullptr ? *change.after : *change.before;
    const Kind<Record>& kind = kind_of<Record>();
    if (change.before == nullptr) return line(kind.added, kind.name, text(record));
    if (change.after == nullptr) return line(kind.removed, kind.name, text(record));
    const std::string now = text(record), then = text(*change.before);
    const std::string how = now != then ? ", was " + then : fields(kind, *change.before, record);
    line("changed", kind.name, now + how);
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
    const Kind<Record>& kind = kind_of<Record>();
    const Record& record = change.after != nullptr ? *change.after : *change.before;
    const bool both = change.before != nullptr && change.after != nullptr;
    begin(kind.key, both ? "changed" : change.before == nullptr ? "added" : "removed");
    writer_.key("record");
    put_fields(kind.fields, record, writer_);
    writer_.key("before");
    both ? put_fields(kind.fields, *change.before, writer_) : writer_.null();
    end();
  }

  void rebooted(std::string_view banner) {
    begin("os", "rebooted");
    writer_.key("record");
    writer_.begin_object();
    writer_.key("banner");
    put_value(banner, writer_);
    writer_.end_object();
    writer_.key("before");
    writer_.null();
    end();
  }

 private:
  void begin(std::string_view part, std::string_view change) {
    writer_.begin_object();
    writer_.key("schema");
    writer_.text("vmsight.change/1");
    writer_.key("view");
    put_value(time_.view, writer_);
    writer_.key("time_ns");
    put_value(time_.start_ns, writer_);
    writer_.key("part");
    writer_.text(part);
    writer_.key("change");
    writer_.text(change);
  }
  void end() {
    writer_.end_object();
    out_.write(writer_.written());
    out_.write("\n");
    writer_.clear();
  }

  Output& out_;
  const ChangeTime& time_;
  JsonWriter writer_;
};

template <typename Visitor>
void visit(const Changes& changes, Visitor visitor) {
  each_kind([&]<typename Record>(const Kind<Record>&) {
    for (const Change<Record>& change : changes.of<Record>()) visitor(change);
  });
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
  Objects(out, time).rebooted(banner);
}

}  // namespace vmsight

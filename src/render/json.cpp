#include "render/json.h"

#include "render/escape.h"
#include "render/json_writer.h"
#include "state/records.h"

namespace vmsight {
namespace {

template <typename T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

/// Writes the members of one object, one after the other.
class Document {
 public:
  Document(Output& out, bool one_line) : out_(out), break_(one_line ? "" : "\n") {}

  void open() { out_.write("{"); }
  void close() { out_.print("{}}}\n", break_); }

  void member(std::string_view key, const Json& value) {
    begin(key);
    out_.write(dump(value));
  }
  template <typename Record>
  void list(const Kind<Record>& kind, const std::vector<Record>& records) {
    list(kind.key, records, [&](const Record& record) {
      writer_.clear();
      put_fields(kind.fields, record, writer_);
      return writer_.written();
    });
  }
  /// `text_of` gives the JSON of one.
  template <typename Record, typename TextOf>
  void list(std::string_view key, const std::vector<Record>& records, TextOf text_of) {
    begin(key);
    out_.write("[");
    bool first = true;
    for (const Record& record : records) {
      if (out_.failed()) return;
      out_.write(first ? "" : ",");
      out_.write(break_);
      out_.write(text_of(record));
      first = false;
    }
    out_.write("]");
  }

 private:
  void begin(std::string_view key) {
    out_.print("{}{}\"{}\":", first_ ? "" : ",", break_, key);
    first_ = false;
  }

  Output& out_;
  std::string_view break_;
  JsonWriter writer_;
  bool first_ = true;
};

}  // namespace

Json json_text(std::string_view text) {
  return text.data() == nullptr ? Json(nullptr) : Json(for_json(text));
}

std::string json_address(std::uint64_t address) { return fmt::format("{:#x}", address); }

std::string dump(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

Json to_json(const VmSummary& vm) {
  return {{"name", for_json(vm.name)},
          {"pid", optional_json(vm.pid)},
          {"accelerator", json_text(vm.accelerator)},
          {"vcpus", optional_json(vm.vcpus)},
          {"memory_bytes", vm.memory_bytes},
          {"machine", vm.machine.empty() ? Json(nullptr) : Json(for_json(vm.machine))}};
}

Json to_json(const Inconsistencies& met) {
  return {{"list", met.list},
          {"died", met.died},
          {"recycled", met.recycled},
          {"changed", met.changed},
          {"unreadable", met.unreadable},
          {"torn", met.torn}};
}

Json to_json(const ViewInfo& view) {
  const auto& why = view.not_proven;
  return {{"technique", view.technique},
          {"paused", view.paused},
          {"start_ns", view.start_ns},
          {"duration_ns", view.duration_ns},
          {"bytes_read", view.bytes_read},
          {"pages", view.pages},
          {"retries", view.retries},
          {"pause_ns", view.pause_ns},
          {"consistency", to_string(view.consistency)},
          {"not_proven", why.empty() ? Json(nullptr) : Json(for_json(why))},
          {"inconsistencies", to_json(view.inconsistencies)}};
}

Json to_json(const TickInfo& tick) {
  return {{"number", tick.number},
          {"late_ns", tick.late_ns},
          {"late", tick.late},
          {"missed", tick.missed}};
}

Json to_json(const OsInfo& os) {
  return {{"sysname", json_text(os.sysname)},     {"nodename", json_text(os.nodename)},
          {"release", json_text(os.release)},     {"version", json_text(os.version)},
          {"machine", json_text(os.machine)},     {"uptime_s", optional_json(os.uptime_s)},
          {"cmdline", json_text(os.cmdline)},     {"boot_unix_ns", optional_json(os.boot_unix_ns)},
          {"unix_ns", optional_json(os.unix_ns)}, {"memory_bytes", optional_json(os.memory_bytes)}};
}

Json to_json(const Problem& problem) {
  return {{"where", for_json(problem.where)}, {"what", for_json(problem.what)}};
}

void write_document(Output& out, const VmSummary& vm, const State& state,
                    const DocumentOptions& options) {
  const auto has = [&](Part part) { return (options.parts & part) != 0; };
  Document document(out, options.one_line);
  document.open();
  document.member("schema", "vmsight.state/1");
  document.member("vm", to_json(vm));
  document.member("view", to_json(state.view));
  if (has(part_os)) document.member("os", to_json(state.os));
  each_kind([&](const auto& kind) {
    if (has(kind.part)) document.list(kind, state.*kind.records);
  });
  std::vector<Problem> problems = vm.problems;
  problems.insert(problems.end(), state.problems.begin(), state.problems.end());
  document.list("problems", problems,
                [](const Problem& problem) { return dump(to_json(problem)); });
  if (options.tick) document.member("tick", to_json(*options.tick));
  document.close();
}

}  // namespace vmsight

#include "render/ps_text.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "render/ps_columns.h"

namespace vmsight {
namespace {

struct SortKey {
  const PsColumn* column;
  bool descending;
};

struct ShownColumn {
  const PsColumn* column;
  std::string header;
};

Result<const PsColumn*> column_named(std::string_view name) {
  if (const PsColumn* column = find_ps_column(name)) return column;
  return Error{.code = ErrorCode::usage,
               .message = fmt::format("unknown column '{}'", name),
               .hint = fmt::format("columns: {}", fmt::join(ps_column_names(), " "))};
}

Result<std::vector<ShownColumn>> columns_of(const PsFormat& format) {
  static const std::vector<std::string> full = {"uid",   "pid",   "ppid", "c",
                                                "stime", "tname", "time", "cmd"};
  std::vector<ShownColumn> columns;
  for (const std::string& text : format.columns.empty() ? full : format.columns) {
    const std::size_t equals = std::min(text.find('='), text.size());
    VMSIGHT_TRY(const PsColumn* column, column_named(std::string_view(text).substr(0, equals)));
    const bool has_header = equals < text.size();
    columns.push_back({column, has_header ? text.substr(equals + 1) : std::string(column->header)});
  }
  return columns;
}

Result<std::vector<SortKey>> sort_keys(std::string_view text) {
  std::vector<SortKey> keys;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    std::string_view name = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const bool descending = name.starts_with('-');
    if (descending || name.starts_with('+')) name.remove_prefix(1);
    VMSIGHT_TRY(const PsColumn* column, column_named(name));
    keys.push_back({column, descending});
  }
  return keys;
}

void sort_rows(std::vector<PsRow>& rows, const std::vector<SortKey>& keys, const PsClock& clock) {
  const auto less = [&](const PsRow& a, const PsRow& b) {
    for (const SortKey& key : keys) {
      const PsRow& low = key.descending ? b : a;
      const PsRow& high = key.descending ? a : b;
      if (key.column->key != nullptr) {
        const std::int64_t x = key.column->key(low, clock), y = key.column->key(high, clock);
        if (x != y) return x < y;
      } else {
        const std::string x = key.column->text(low, clock), y = key.column->text(high, clock);
        if (x != y) return x < y;
      }
    }
    return false;
  };
  std::stable_sort(rows.begin(), rows.end(), less);
}

std::vector<PsRow> rows_of(const State& state, const PsFormat& format) {
  std::vector<PsRow> rows;
  if (!format.threads) {
    for (const Process& process : state.processes) {
      rows.push_back({&process, nullptr, {}, format.names_only});
    }
    return rows;
  }
  std::unordered_map<std::int32_t, const Process*> by_tgid;
  for (const Process& process : state.processes) by_tgid.emplace(process.tgid, &process);
  for (const Thread& thread : state.threads) {
    const auto process = by_tgid.find(thread.tgid);
    if (process != by_tgid.end()) {
      rows.push_back({process->second, &thread, {}, format.names_only});
    }
  }
  return rows;
}

/// Orders rows as a forest. A guest may forge parents that form a cycle: rows that no root
/// reaches are printed as roots, each row once, without recursion.
class Forest {
 public:
  Forest(const std::vector<PsRow>& rows, PsForest shape) : shape_(shape) {
    std::unordered_set<std::int32_t> pids;
    for (const PsRow& row : rows) pids.insert(row.process->pid);
    for (const PsRow& row : rows) {
      const Process& process = *row.process;
      if (pids.contains(process.ppid) && process.ppid != process.pid) {
        children_[process.ppid].push_back(&row);
      } else {
        roots_.push_back(&row);
      }
    }
    for (const PsRow& row : rows) roots_.push_back(&row);
  }

  std::vector<PsRow> take() {
    for (const PsRow* root : roots_) visit(*root);
    return std::move(ordered_);
  }

 private:
  struct Step {
    const PsRow* row;
    std::size_t depth;
  };
  static constexpr std::size_t max_indent = 40;

  void visit(const PsRow& root) {
    std::vector<Step> stack = {{&root, 0}};
    while (!stack.empty()) {
      const Step step = stack.back();
      stack.pop_back();
      if (!seen_.insert(step.row).second) continue;
      PsRow row = *step.row;
      row.indent = indent(step.depth);
      ordered_.push_back(std::move(row));
      const auto found = children_.find(step.row->process->pid);
      if (found == children_.end()) continue;
      // ps draws no arms from init, whose children are many.
      const bool is_init = shape_ == PsForest::arms && step.row->process->pid == 1;
      for (auto child = found->second.rbegin(); child != found->second.rend(); ++child) {
        stack.push_back({*child, step.depth + (is_init ? 0 : 1)});
      }
    }
  }

  std::string indent(std::size_t depth) const {
    if (depth == 0) return {};
    if (shape_ == PsForest::spaces) return std::string(std::min(depth, max_indent) * 2, ' ');
    return std::string(std::min(depth - 1, max_indent) * 4, ' ') + " \\_ ";
  }

  PsForest shape_;
  std::unordered_map<std::int32_t, std::vector<const PsRow*>> children_;
  std::vector<const PsRow*> roots_;
  std::unordered_set<const PsRow*> seen_;
  std::vector<PsRow> ordered_;
};

/// What the guest's clock has counted since it booted, if it is known; else in whole seconds.
std::uint64_t uptime_ns(const OsInfo& os) {
  if (os.unix_ns && os.boot_unix_ns && *os.unix_ns > *os.boot_unix_ns) {
    return static_cast<std::uint64_t>(*os.unix_ns - *os.boot_unix_ns);
  }
  return os.uptime_s.value_or(0) * 1'000'000'000;
}

}  // namespace

std::string command_text(const Process& process) {
  const std::string comm(process.comm.data() == nullptr ? "?" : process.comm);
  const bool is_defunct = process.state == 'Z' || process.state == 'X';
  if (is_defunct && process.validity != Validity::live) return "[" + comm + "] <defunct>";
  if (!process.cmdline || process.cmdline->empty()) return "[" + comm + "]";
  return fmt::format("{}", fmt::join(*process.cmdline, " "));
}

Result<void> print_processes(Output& out, const State& state, const PsFormat& format) {
  VMSIGHT_TRY(const auto columns, columns_of(format));
  VMSIGHT_TRY(const auto keys, sort_keys(format.sort.empty() ? "pid,tid" : format.sort));
  const PsClock clock{.uptime_ns = uptime_ns(state.os),
                      .boot_unix_ns = state.os.boot_unix_ns,
                      .unix_ns = state.os.unix_ns,
                      .memory_bytes = state.os.memory_bytes};
  std::vector<PsRow> rows = rows_of(state, format);
  sort_rows(rows, keys, clock);
  if (format.forest != PsForest::none) rows = Forest(rows, format.forest).take();
  std::vector<Column> headers;
  for (const auto& [column, header] : columns) headers.push_back({header, column->align});
  // As ps: where no column has a header, there is no line of them.
  TableOptions options = format.table;
  options.headers &= std::any_of(headers.begin(), headers.end(),
                                 [](const Column& column) { return !column.header.empty(); });
  Table table(std::move(headers));
  for (const PsRow& row : rows) {
    for (const auto& shown : columns) table.cell(shown.column->text(row, clock));
  }
  table.print(out, options);
  return {};
}

}  // namespace vmsight

#include "render/csv.h"

#include <fmt/format.h>

#include "render/escape.h"

namespace vmsight {

void CsvRow::clear() {
  row_.clear();
  follows_ = false;
  depth_ = 0;
}

void CsvRow::cell(std::string_view text) {
  if (follows_) row_ += ',';
  follows_ = true;
  row_ += text;
}

void CsvRow::quoted_cell(std::string_view text) {
  cell("\"");
  for (const char c : text) {
    if (c == '"') row_ += '"';
    row_ += c;
  }
  row_ += '"';
}

void CsvRow::null() { depth_ != 0 ? nested_.null() : cell(""); }

void CsvRow::boolean(bool value) {
  depth_ != 0 ? nested_.boolean(value) : cell(value ? "true" : "false");
}

void CsvRow::number(std::uint64_t value) {
  depth_ != 0 ? nested_.number(value) : cell(fmt::format_int(value).c_str());
}

void CsvRow::number(std::int64_t value) {
  depth_ != 0 ? nested_.number(value) : cell(fmt::format_int(value).c_str());
}

void CsvRow::number(double value) {
  depth_ != 0 ? nested_.number(value) : cell(fmt::format("{}", value));
}

void CsvRow::text(std::string_view bytes) {
  if (depth_ != 0) return nested_.text(bytes);
  const std::string safe = for_terminal(bytes);
  const bool is_plain = !safe.empty() && safe.front() != ' ' && safe.back() != ' ' &&
                        safe.find_first_of(",\"") == std::string::npos;
  is_plain ? cell(safe) : quoted_cell(safe);
}

void CsvRow::begin_list() {
  ++depth_;
  nested_.begin_list();
}

void CsvRow::end_list() {
  nested_.end_list();
  leave();
}

void CsvRow::begin_object() {
  ++depth_;
  nested_.begin_object();
}

/// That of the record itself is the heading of a column.
void CsvRow::key(std::string_view name) {
  if (depth_ != 0) nested_.key(name);
}

void CsvRow::end_object() {
  nested_.end_object();
  leave();
}

void CsvRow::leave() {
  if (--depth_ != 0) return;
  quoted_cell(nested_.written());
  nested_.clear();
}

void write_csv(Output& out, const State& state, Part part, bool headings) {
  each_kind([&](const auto& kind) {
    if (kind.part != part) return;
    const auto& records = state.*kind.records;
    const CsvTable table(records);
    if (headings) table.put_headings(out);
    table.put(out, records);
  });
}

}  // namespace vmsight

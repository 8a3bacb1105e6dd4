// Records as CSV (RFC 4180, lines end in \n): a line of headings, then a line a record, with the
// fields that the table of the kind has and JSON shows.
//
// What is null or absent is an empty cell, an empty text is "". Lists and objects stand in their
// cell as JSON. Texts of the guest have no control characters and no bytes that are not UTF-8: such
// appear as `\xNN`, so that nothing reaches a terminal raw. They are not made safe for spreadsheets,
// which take a cell that begins with = + - or @ for a formula.
#pragma once

#include <string>

#include "render/json_writer.h"
#include "render/output.h"
#include "state/records.h"

namespace vmsight {

/// Takes the fields of a record, and makes a cell of each value.
class CsvRow final : public ValueSink {
 public:
  void null() override;
  void boolean(bool value) override;
  void number(std::uint64_t value) override;
  void number(std::int64_t value) override;
  void number(double value) override;
  void text(std::string_view bytes) override;
  void begin_list() override;
  void end_list() override;
  void begin_object() override;
  void key(std::string_view name) override;
  void end_object() override;

  /// Without the end of the line.
  std::string_view written() const { return row_; }
  void clear();

 private:
  void cell(std::string_view text);
  void quoted_cell(std::string_view text);
  void leave();

  std::string row_;
  bool follows_ = false;  // a comma is due
  unsigned depth_ = 0;    // in lists and objects of the cell
  JsonWriter nested_;
};

/// The headings of one kind, and its records. Fields that a record may have or not (`has`) are there
/// if one of these has them.
template <typename Record>
class CsvTable {
 public:
  explicit CsvTable(const std::vector<Record>& records) {
    for (const Field<Record>& field : kind_of<Record>().fields) {
      bool is_there = field.has == nullptr;
      for (std::size_t i = 0; !is_there && i < records.size(); ++i)
        is_there = field.has(records[i]);
      if (is_there) fields_.push_back(&field);
    }
  }
  void put_headings(Output& out) const {
    std::string_view separator;
    for (const Field<Record>* field : fields_) {
      out.write(std::exchange(separator, std::string_view(",")));
      out.write(field->name);
    }
    out.write("\n");
  }
  void put(Output& out, const std::vector<Record>& records) const {
    CsvRow row;
    for (const Record& record : records) {
      if (out.failed()) return;
      row.clear();
      for (const Field<Record>* field : fields_) {
        const bool has = field->has == nullptr || field->has(record);
        has ? field->put(record, row) : row.null();
      }
      out.write(row.written());
      out.write("\n");
    }
  }

 private:
  std::vector<const Field<Record>*> fields_;
};

/// The records of one part of a state.
void write_csv(Output& out, const State& state, Part part, bool headings);

}  // namespace vmsight

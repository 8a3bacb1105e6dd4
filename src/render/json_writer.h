// JSON as it is written: values go straight into the output, no tree is made of them.
//
// The bytes are those of nlohmann::json's dump(-1, ' ', ensure_ascii): everything beyond printable
// ASCII is escaped, in lower case.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "state/records.h"

namespace vmsight {

class JsonWriter final : public ValueSink {
 public:
  void null() override { word("null"); }
  void boolean(bool value) override { word(value ? "true" : "false"); }
  void number(std::uint64_t value) override;
  void number(std::int64_t value) override;
  void number(double value) override;
  /// Bytes that are not UTF-8 become `\xNN`.
  void text(std::string_view bytes) override;
  void begin_list() override { open('['); }
  void end_list() override { close(']'); }
  void begin_object() override { open('{'); }
  void key(std::string_view name) override;
  void end_object() override { close('}'); }

  /// JSON that is made elsewhere, as a value.
  void word(std::string_view json);
  std::string_view written() const { return std::string_view(text_).substr(0, size_); }
  void clear() {
    size_ = 0;
    follows_ = false;
  }

 private:
  void separate() {
    if (follows_) append(',');
    follows_ = true;
  }
  void open(char bracket) {
    separate();
    append(bracket);
    follows_ = false;
  }
  void close(char bracket) {
    append(bracket);
    follows_ = true;
  }
  void escape(std::string_view& bytes);
  void append_unit(std::uint32_t unit);
  template <typename Number>
  void append_number(Number value);
  void append(std::string_view text);
  void append(char c) {
    *room(1) = c;
    ++size_;
  }
  /// So many bytes behind what was written.
  char* room(std::size_t size);

  std::string text_;      // and room behind what was written
  std::size_t size_ = 0;  // of that
  bool follows_ = false;  // something stands before the next value or key: a comma is due
};

}  // namespace vmsight

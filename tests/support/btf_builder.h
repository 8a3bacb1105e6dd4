// Writes BTF blobs, right ones and (by patching the bytes) wrong ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/btf.h"

namespace vmsight::test {

class BtfBuilder {
 public:
  struct Field {
    std::string_view name;
    TypeId type = 0;
    std::uint32_t bits = 0;      // offset
    std::uint32_t bit_size = 0;  // of a bitfield
  };
  struct Named {
    std::string_view name;
    std::uint64_t value = 0;  // of an enumerator, or the type of a parameter
  };

  BtfBuilder() = default;
  /// Split BTF, on top of `base`.
  BtfBuilder(const Btf& base, std::uint32_t base_strings)
      : strings_(), first_string_(base_strings), next_id_(base.end_id()) {}

  /// The id that the next type will have, to refer to it ahead.
  TypeId next_id() const { return next_id_; }

  TypeId integer(std::string_view name, std::uint32_t size, std::uint32_t encoding = 0) {
    begin(name, BtfKind::integer, 0, size);
    word(encoding << 24 | size * 8);
    return next_id_++;
  }
  /// Pointers, typedefs, modifiers, functions: a kind that only refers.
  TypeId refer(BtfKind kind, TypeId target, std::string_view name = "", bool flag = false) {
    begin(name, kind, 0, target, flag);
    return next_id_++;
  }
  TypeId pointer(TypeId target) { return refer(BtfKind::pointer, target); }
  TypeId array(TypeId element, std::uint32_t count) {
    begin("", BtfKind::array, 0, 0);
    word(element);
    word(1);
    word(count);
    return next_id_++;
  }
  TypeId composite(BtfKind kind, std::string_view name, std::uint32_t size,
                   const std::vector<Field>& fields) {
    bool flag = false;
    for (const Field& field : fields) flag = flag || field.bit_size != 0;
    begin(name, kind, fields.size(), size, flag);
    for (const Field& field : fields) {
      word(string(field.name));
      word(field.type);
      word(field.bits | field.bit_size << 24);
    }
    return next_id_++;
  }
  TypeId structure(std::string_view name, std::uint32_t size, const std::vector<Field>& fields) {
    return composite(BtfKind::structure, name, size, fields);
  }
  TypeId enumeration(std::string_view name, const std::vector<Named>& values, bool is_signed,
                     std::uint32_t size = 4) {
    const bool wide = size == 8;
    begin(name, wide ? BtfKind::enumeration64 : BtfKind::enumeration, values.size(), size,
          is_signed);
    for (const Named& value : values) {
      word(string(value.name));
      word(static_cast<std::uint32_t>(value.value));
      if (wide) word(static_cast<std::uint32_t>(value.value >> 32));
    }
    return next_id_++;
  }
  TypeId prototype(TypeId returns, const std::vector<Named>& parameters) {
    begin("", BtfKind::function_proto, parameters.size(), returns);
    for (const Named& parameter : parameters) {
      word(string(parameter.name));
      word(static_cast<std::uint32_t>(parameter.value));
    }
    return next_id_++;
  }
  TypeId variable(std::string_view name, TypeId type) {
    begin(name, BtfKind::variable, 0, type);
    word(1);
    return next_id_++;
  }
  TypeId section(std::string_view name, const std::vector<TypeId>& variables) {
    begin(name, BtfKind::data_section, variables.size(), 4096);
    for (std::size_t i = 0; i < variables.size(); ++i) {
      word(variables[i]);
      word(static_cast<std::uint32_t>(i * 8));
      word(8);
    }
    return next_id_++;
  }

  std::uint32_t strings_size() const { return static_cast<std::uint32_t>(strings_.size()); }
  std::uint32_t types_size() const { return static_cast<std::uint32_t>(types_.size() * 4); }

  std::vector<std::byte> blob(std::uint32_t header_size = 24) const {
    std::vector<std::byte> bytes(header_size + types_size() + strings_size());
    const std::uint32_t header[] = {0x0001eb9f,   header_size,  0,
                                    types_size(), types_size(), strings_size()};
    std::memcpy(bytes.data(), header, sizeof header);
    if (!types_.empty()) std::memcpy(bytes.data() + header_size, types_.data(), types_size());
    std::memcpy(bytes.data() + header_size + types_size(), strings_.data(), strings_size());
    return bytes;
  }

 private:
  std::uint32_t string(std::string_view text) {
    if (text.empty()) return 0;
    const auto offset = static_cast<std::uint32_t>(first_string_ + strings_.size());
    strings_.append(text).push_back('\0');
    return offset;
  }
  void word(std::uint32_t value) { types_.push_back(value); }
  void begin(std::string_view name, BtfKind kind, std::size_t count, std::uint32_t size_or_type,
             bool flag = false) {
    word(string(name));
    word(static_cast<std::uint32_t>(kind) << 24 | static_cast<std::uint32_t>(count) |
         (flag ? 1u << 31 : 0));
    word(size_or_type);
  }

  std::vector<std::uint32_t> types_;
  std::string strings_ = std::string(1, '\0');
  std::uint32_t first_string_ = 0;
  TypeId next_id_ = 1;
};

}  // namespace vmsight::test

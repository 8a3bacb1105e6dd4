#include "state/records.h"

#include <fmt/format.h>

#include <charconv>
#include <iterator>

namespace vmsight {

std::vector<std::pair<std::string_view, Part>> document_parts() {
  std::vector<std::pair<std::string_view, Part>> parts{{"os", part_os}};
  each_kind([&](const auto& kind) {
    if ((kind.part & part_all) != 0) parts.emplace_back(kind.key, kind.part);
  });
  return parts;
}

unsigned parts_named_by(std::string_view where) {
  for (const auto& [key, part] : document_parts()) {
    if (where.starts_with(key)) return part;
  }
  return part_all;
}

void put_hexadecimal(std::uint64_t value, ValueSink& sink) {
  char text[24] = "0x";
  const auto end = std::to_chars(text + 2, std::end(text), value, 16).ptr;
  sink.text({text, static_cast<std::size_t>(end - text)});
}

void put_address(std::uint64_t address, ValueSink& sink) {
  address == 0 ? sink.null() : put_hexadecimal(address, sink);
}

void put_device(std::uint64_t device, ValueSink& sink) {
  char text[48];
  const auto end = fmt::format_to(text, "{}:{}", device >> 20, device & 0xfffff);
  sink.text({text, static_cast<std::size_t>(end - text)});
}

}  // namespace vmsight

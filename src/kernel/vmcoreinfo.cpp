#include "kernel/vmcoreinfo.h"

#include <fmt/format.h>

#include <charconv>

#include "kernel/architecture.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

constexpr std::size_t max_vmcoreinfo = 64 * 1024;

/// The value of a line "KEY=value".
std::optional<std::string_view> value_of(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(key) && line.substr(key.size()).starts_with('=')) {
      return line.substr(key.size() + 1);
    }
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return std::nullopt;
}

template <typename T>
std::optional<T> number_of(std::string_view text, std::string_view key, int base) {
  const auto value = value_of(text, key);
  T number = 0;
  if (!value) return std::nullopt;
  const auto [end, error] =
      std::from_chars(value->data(), value->data() + value->size(), number, base);
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

}  // namespace

std::string read_vmcoreinfo(Kernel& kernel, GuestMemory& memory) {
  // kernel/vmcore_info.c: char *vmcoreinfo_data; size_t vmcoreinfo_size, without a final NUL.
  const auto data = kernel.symbol("vmcoreinfo_data");
  const auto size = kernel.symbol("vmcoreinfo_size");
  if (!data || !size) return "";
  Reader reader(memory, kernel.space());
  const GuestVirt text_at = reader.pointer(*data);
  const std::uint64_t length = reader.u64(*size);
  if (!reader.ok() || length > max_vmcoreinfo) return "";
  std::string text(length, '\0');
  text.resize(reader.copy(text_at, std::as_writable_bytes(std::span(text))));
  return text;
}

std::optional<std::uint64_t> page_table_of(std::string_view vmcoreinfo) {
  const auto base = number_of<std::int64_t>(vmcoreinfo, "NUMBER(phys_base)", 10);
  for (const Architecture* architecture : architectures()) {
    const auto symbol = fmt::format("SYMBOL({})", architecture->kernel_page_table);
    const auto table = number_of<std::uint64_t>(vmcoreinfo, symbol, 16);
    if (table && base) {
      return *table - architecture->image_base.raw() + static_cast<std::uint64_t>(*base);
    }
  }
  return std::nullopt;
}

}  // namespace vmsight

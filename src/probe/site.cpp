// Sites as text: "kprobe:vfs_read+0x10", "uprobe:/bin/bash:readline".
#include <fmt/format.h>
#include <algorithm>
#include <charconv>

#include "kernel/guest_text.h"
#include "vmsight/probe.h"

namespace vmsight {
namespace {

constexpr std::string_view hint =
    "write kprobe:FUNCTION, kretprobe:FUNCTION, uprobe:PATH:FUNCTION or kprobe:0xADDRESS";

Error bad_site(std::string_view text, std::string_view why) {
  return {.code = ErrorCode::usage,
          .message = fmt::format("site '{}': {}", escape_bytes(text), why),
          .hint = std::string(hint)};
}

std::optional<std::uint64_t> number(std::string_view text) {
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  if (hexadecimal) text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, hexadecimal ? 16 : 10);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Kind {
  std::string_view name;
  bool user, at_return;
};
constexpr std::array<Kind, 8> kinds{{
    {"kprobe", false, false},
    {"k", false, false},
    {"kretprobe", false, true},
    {"kr", false, true},
    {"uprobe", true, false},
    {"u", true, false},
    {"uretprobe", true, true},
    {"ur", true, true},
}};

/// "SYMBOL", "SYMBOL+OFFSET", "0xADDRESS".
bool take_target(Site& site, std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) {
    site.address = number(text);
    return site.address.has_value();
  }
  const std::size_t plus = text.find('+');
  if (plus != text.npos) {
    const auto offset = number(text.substr(plus + 1));
    if (!offset) return false;
    site.offset = *offset;
  }
  site.symbol = text.substr(0, plus);
  return !site.symbol.empty();
}

}  // namespace

Result<Site> parse_site(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const Kind& known) {
    return known.name == text.substr(0, colon);
  });
  if (colon == text.npos || kind == kinds.end()) return bad_site(text, "its kind is not known");
  Site site{.user = kind->user, .at_return = kind->at_return};
  std::string_view rest = text.substr(colon + 1);
  // The last colon: a path may hold others.
  if (const std::size_t last = rest.rfind(':'); last != rest.npos) {
    const std::string_view owner = rest.substr(0, last);
    rest.remove_prefix(last + 1);
    if (owner.empty()) return bad_site(text, "nothing stands between the colons");
    (site.user ? site.path : site.module) = owner;
    if (!site.user && owner.find(':') != owner.npos) return bad_site(text, "too many colons");
  }
  if (!take_target(site, rest)) return bad_site(text, "no function or address");
  if (site.user && site.path.empty() && !site.address) {
    return bad_site(text, "the path of a program or library is missing");
  }
  if (site.user && !site.path.empty() && !site.path.starts_with('/')) {
    return bad_site(text, "the path must begin with /");
  }
  if (site.at_return && site.offset != 0) return bad_site(text, "a return has no offset");
  if (site.is_pattern() && site.offset != 0) return bad_site(text, "a pattern has no offset");
  return site;
}

std::string to_string(const Site& site) {
  std::string text = site.user ? (site.at_return ? "uretprobe:" : "uprobe:")
                               : (site.at_return ? "kretprobe:" : "kprobe:");
  const std::string& owner = site.user ? site.path : site.module;
  if (!owner.empty()) text += owner + ":";
  text += site.address ? fmt::format("{:#x}", *site.address) : site.symbol;
  if (site.offset != 0) text += fmt::format("+{:#x}", site.offset);
  return text;
}

std::string to_string(const ProbeSite& site) {
  std::string text = site.module.empty() ? "" : site.module + ":";
  if (site.function.empty()) {
    return text + fmt::format("{:#x}", site.user && !site.module.empty() ? site.file_offset
                                                                         : site.address.raw());
  }
  text += site.function;
  if (site.offset != 0) text += fmt::format("+{:#x}", site.offset);
  return text;
}

}  // namespace vmsight

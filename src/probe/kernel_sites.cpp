#include "probe/kernel_sites.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <algorithm>

#include "kernel/guest_text.h"

namespace vmsight {
namespace {

constexpr std::size_t max_name = 128;  // of names that are compared; KSYM_NAME_LEN was 128
constexpr std::size_t max_near = 5;

bool is_function(const Symbol& symbol) {
  constexpr std::string_view text_types = "tTwW";
  return text_types.find(symbol.type) != text_types.npos && !symbol.name.starts_with("__pfx_") &&
         !symbol.name.starts_with("__cfi_");
}

/// What the compiler moved out of a function's way: "vfs_read.cold", "f.cold.7". It is jumped to, not called.
bool is_fragment(std::string_view name) {
  const std::size_t at = name.rfind(".cold");
  return at != name.npos && name.find_first_not_of(".0123456789", at + 5) == name.npos;
}

/// Edits that make `a` into `b`, at most `limit` + 1.
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit) {
  const std::size_t longer = std::max(a.size(), b.size());
  if (longer - std::min(a.size(), b.size()) > limit || longer > max_name) return limit + 1;
  std::array<std::size_t, max_name + 1> row{};
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0], least = row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      least = std::min(least, row[j]);
    }
    if (least > limit) return limit + 1;
  }
  return row[b.size()];
}

std::uint64_t size_of(std::span<const Symbol> symbols, std::size_t at) {
  for (std::size_t next = at + 1; next < symbols.size(); ++next) {
    if (symbols[next].address > symbols[at].address) {
      return symbols[next].address - symbols[at].address;
    }
  }
  return 0;
}

ProbeSite make_site(const Site& wanted, std::span<const Symbol> symbols, std::size_t at) {
  return {.at_return = wanted.at_return,
          .address = symbols[at].address + wanted.offset,
          .function = std::string(symbols[at].name),
          .module = std::string(symbols[at].module),
          .offset = wanted.offset,
          .size = size_of(symbols, at)};
}

Result<std::vector<ProbeSite>> find_address(Kernel& kernel, const Site& wanted) {
  ProbeSite site{.at_return = wanted.at_return, .address = GuestVirt(*wanted.address)};
  const auto place = kernel.locate(site.address);
  if (!place) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("site '{}': no code of the guest's kernel is there",
                                        to_string(wanted))};
  }
  site.function = place->name;
  site.module = place->module;
  site.offset = place->offset;
  if (site.at_return && site.offset != 0) {
    return Error{
        .code = ErrorCode::usage,
        .message = fmt::format("site '{}': {}+{:#x} is not where a function begins",
                               to_string(wanted), escape_bytes(site.function), site.offset)};
  }
  return std::vector{std::move(site)};
}

bool is_wanted(const Site& wanted, const Symbol& symbol) {
  if (!is_function(symbol) || (!wanted.module.empty() && wanted.module != symbol.module)) {
    return false;
  }
  if (!wanted.is_pattern()) return symbol.name == wanted.symbol;
  const std::size_t fixed = wanted.symbol.find_first_of("*?[\\");
  if (!symbol.name.starts_with(wanted.symbol.substr(0, fixed)) || is_fragment(symbol.name))
    return false;
  return ::fnmatch(wanted.symbol.c_str(), std::string(symbol.name).c_str(), 0) == 0;
}

Error no_function(const Site& wanted, std::span<const Symbol> symbols) {
  NearestNames nearest(wanted.symbol);
  bool module_seen = wanted.module.empty();
  for (const Symbol& symbol : symbols) {
    if (!wanted.module.empty() && symbol.module != wanted.module) continue;
    module_seen = true;
    if (is_function(symbol)) nearest.offer(symbol.name);
  }
  Error error{.code = ErrorCode::not_found,
              .message = fmt::format("site '{}': the guest's kernel has no such function",
                                     escape_bytes(to_string(wanted)))};
  if (!module_seen) {
    error.message = fmt::format("site '{}': the guest has no module '{}'",
                                escape_bytes(to_string(wanted)), escape_bytes(wanted.module));
    error.hint = "`vmsight lsmod VM` lists modules";
  } else if (!wanted.is_pattern()) {
    error.hint = nearest.hint();
  }
  if (error.hint.empty())
    error.hint = "the compiler may have inlined it; `vmsight sym VM PATTERN` lists names";
  return error;
}

Error several(const Site& wanted, const std::vector<ProbeSite>& sites) {
  std::string places;
  for (const ProbeSite& site : sites) {
    if (places.size() > 200) {
      places += " ...";
      break;
    }
    places += fmt::format(" {:#x}", site.address.raw());
    if (!site.module.empty()) places += fmt::format(" [{}]", escape_bytes(site.module));
  }
  const std::string_view kind = wanted.at_return ? "kretprobe" : "kprobe";
  return {.code = ErrorCode::ambiguous,
          .message = fmt::format("site '{}': {} functions have this name:{}",
                                 escape_bytes(to_string(wanted)), sites.size(), places),
          .hint = fmt::format("choose one: {0}:0xADDRESS or {0}:MODULE:FUNCTION", kind)};
}

}  // namespace

Result<std::vector<ProbeSite>> find_kernel_sites(Kernel& kernel, const Site& wanted) {
  VMSIGHT_TRY(const auto symbols, kernel.symbols());
  if (wanted.address) return find_address(kernel, wanted);
  std::vector<ProbeSite> sites;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    if (!is_wanted(wanted, symbols[i])) continue;
    // Aliases are one function.
    if (!sites.empty() && sites.back().address == symbols[i].address + wanted.offset) continue;
    sites.push_back(make_site(wanted, symbols, i));
  }
  if (sites.empty()) return no_function(wanted, symbols);
  if (!wanted.is_pattern() && sites.size() > 1) return several(wanted, sites);
  if (sites.size() > max_pattern_sites) {
    return Error{
        .code = ErrorCode::usage,
        .message = fmt::format("site '{}': {} functions match, at most {} can be probed",
                               escape_bytes(to_string(wanted)), sites.size(), max_pattern_sites),
        .hint = "write a narrower pattern"};
  }
  const ProbeSite& first = sites.front();
  if (first.at_return && is_fragment(first.function)) {
    return Error{
        .code = ErrorCode::usage,
        .message = fmt::format("site '{}': it is a part of a function, which does not return",
                               escape_bytes(to_string(wanted)))};
  }
  if (first.size != 0 && first.offset >= first.size) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("site '{}': the function has only {:#x} bytes",
                                        escape_bytes(to_string(wanted)), first.size)};
  }
  return sites;
}

void NearestNames::offer(std::string_view candidate) {
  // The compiler's copies of a function have its name and more: "schedule.isra.0".
  const bool is_copy = candidate.size() > name_.size() && candidate.starts_with(name_) &&
                       candidate[name_.size()] == '.';
  const std::size_t limit = std::min<std::size_t>(4, 1 + name_.size() / 3);
  const std::size_t distance = is_copy ? 0 : edit_distance(name_, candidate, limit);
  if (distance > limit) return;
  const auto after = std::upper_bound(best_.begin(), best_.end(), distance,
                                      [](std::size_t d, const Near& n) { return d < n.distance; });
  const auto same = [&](const Near& near) { return near.name == candidate; };
  if (std::any_of(best_.begin(), best_.end(), same)) return;
  best_.insert(after, {distance, std::string(candidate)});
  if (best_.size() > max_near) best_.pop_back();
}

std::string NearestNames::hint() const {
  if (best_.empty()) return "";
  std::string text = "did you mean ";
  for (std::size_t i = 0; i < best_.size(); ++i) {
    if (i > 0) text += i + 1 == best_.size() ? " or " : ", ";
    text += escape_bytes(best_[i].name);
  }
  return text + "?";
}

}  // namespace vmsight

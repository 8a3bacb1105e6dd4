// The text form of a KernelMemo.
#include <charconv>

#include <fmt/format.h>

#include "kernel/bytes.h"
#include "kernel/cache.h"

namespace vmsight {
namespace {

constexpr std::string_view magic = "vmsight-kernel 1 ";
constexpr std::size_t checksum_digits = 16;

/// Words of a line, and numbers from them. Remembers if anything did not parse.
class Words {
 public:
  explicit Words(std::string_view line) : rest_(line) {}

  std::string_view next() {
    const std::size_t end = std::min(rest_.find(' '), rest_.size());
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    good_ &= !word.empty();
    return word;
  }
  std::string_view rest() { return std::exchange(rest_, {}); }
  template <typename Number>
  Number number(int base = 10) {
    const std::string_view word = next();
    Number value{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    good_ &= error == std::errc() && end == word.data() + word.size();
    return value;
  }
  /// A lone "-" is left: the kernel has no such thing.
  bool is_absent() const { return rest_ == "-"; }
  bool good() const { return good_ && rest_.empty(); }
  void skip_absent() { rest_ = {}; }

 private:
  std::string_view rest_;
  bool good_ = true;
};

KernelMemo::Tables parse_tables(Words& words) {
  KernelMemo::Tables tables;
  tables.from_rodata = words.number<std::int64_t>();
  KallsymsLayout& layout = tables.layout;
  layout.count = words.number<std::uint32_t>();
  layout.encoding = static_cast<KallsymsLayout::Encoding>(words.number<std::uint8_t>() % 3);
  for (std::uint32_t* field :
       {&layout.names, &layout.names_size, &layout.token_table, &layout.token_index,
        &layout.offsets, &layout.relative_base, &layout.seqs, &layout.size}) {
    *field = words.number<std::uint32_t>();
  }
  return tables;
}

SymbolValue parse_symbol(Words& words) {
  SymbolValue symbol;
  symbol.value = words.number<std::uint64_t>(16);
  symbol.absolute = words.next() == "a";
  const std::string_view type = words.next();
  if (!type.empty()) symbol.type = type.front();
  return symbol;
}

Member parse_member(Words& words) {
  Member member;
  member.offset = words.number<std::uint32_t>();
  member.size = words.number<std::uint32_t>();
  member.bit_offset = words.number<std::uint8_t>();
  member.bit_size = words.number<std::uint8_t>();
  member.count = words.number<std::uint32_t>();
  return member;
}

KernelMemo::ModuleTypes parse_module(Words& words) {
  const auto size = words.number<std::uint64_t>();
  return {size, words.number<std::uint64_t>(16)};
}

template <typename Value, typename Parse>
void remember(Remembered<Value>& into, std::string_view name, Words& words, Parse parse) {
  if (words.is_absent()) {
    words.skip_absent();
    into.set(name, std::nullopt);
  } else {
    into.set(name, parse(words));
  }
}

bool parse_line(std::string_view line, KernelMemo& memo) {
  Words words(line);
  const std::string_view kind = words.next();
  if (kind == "banner") {
    memo.banner = words.rest();
  } else if (kind == "build-id") {
    memo.build_id = words.next();
  } else if (kind == "kallsyms") {
    memo.kallsyms = parse_tables(words);
  } else if (kind == "symbol") {
    const std::string_view name = words.next();
    remember(memo.symbols, name, words, parse_symbol);
  } else if (kind == "member") {
    const std::string_view type = words.next();
    const std::string_view path = words.next();
    remember(memo.members, fmt::format("{} {}", type, path), words, parse_member);
  } else if (kind == "size") {
    const std::string_view name = words.next();
    remember(memo.type_sizes, name, words,
             [](Words& rest) { return rest.number<std::uint64_t>(); });
  } else if (kind == "extent") {
    const std::string_view name = words.next();
    remember(memo.symbol_sizes, name, words,
             [](Words& rest) { return rest.number<std::uint64_t>(); });
  } else if (kind == "enumerator") {
    const std::string_view name = words.next();
    remember(memo.enumerators, name, words,
             [](Words& rest) { return rest.number<std::int64_t>(); });
  } else if (kind == "module") {
    const std::string_view name = words.next();
    remember(memo.modules, name, words, parse_module);
  } else {
    return false;
  }
  return words.good();
}

/// Names are the caller's, and may hold what would break the format: those are not kept.
bool can_be_kept(std::string_view name, std::size_t spaces) {
  std::size_t found = 0;
  for (const char c : name) {
    if (c < ' ' || c > '~') return false;
    found += c == ' ';
  }
  return !name.empty() && found == spaces && name.front() != ' ' && name.back() != ' ';
}

template <typename Value, typename Format>
void append(std::string& text, std::string_view kind, const Remembered<Value>& answers,
            Format format, std::size_t spaces = 0) {
  for (const auto& [name, answer] : answers) {
    if (!can_be_kept(name, spaces)) continue;
    fmt::format_to(std::back_inserter(text), "{} {} {}\n", kind, name,
                   answer ? format(*answer) : std::string("-"));
  }
}

std::string tables_text(const KernelMemo::Tables& tables) {
  const KallsymsLayout& l = tables.layout;
  return fmt::format("kallsyms {} {} {} {} {} {} {} {} {} {} {}\n", tables.from_rodata, l.count,
                     static_cast<unsigned>(l.encoding), l.names, l.names_size, l.token_table,
                     l.token_index, l.offsets, l.relative_base, l.seqs, l.size);
}

std::string symbol_text(const SymbolValue& symbol) {
  return fmt::format("{:x} {} {}", symbol.value, symbol.absolute ? 'a' : 'r', symbol.type);
}

std::string member_text(const Member& m) {
  return fmt::format("{} {} {} {} {}", m.offset, m.size, m.bit_offset, m.bit_size, m.count);
}

std::string body_text(const KernelMemo& memo) {
  std::string text = fmt::format("banner {}\nbuild-id {}\n", memo.banner, memo.build_id);
  if (memo.kallsyms) text += tables_text(*memo.kallsyms);
  const auto number = [](auto value) { return fmt::format("{}", value); };
  append(text, "symbol", memo.symbols, symbol_text);
  append(text, "member", memo.members, member_text, 1);
  append(text, "size", memo.type_sizes, number);
  append(text, "extent", memo.symbol_sizes, number);
  append(text, "enumerator", memo.enumerators, number);
  append(text, "module", memo.modules, [](const KernelMemo::ModuleTypes& module) {
    return fmt::format("{} {:x}", module.size, module.hash);
  });
  return text;
}

Error damaged(std::string what) {
  return {.code = ErrorCode::bad_data, .message = std::move(what)};
}

}  // namespace

std::string format_memo(const KernelMemo& memo) {
  const std::string body = body_text(memo);
  return fmt::format("{}{:016x}\n{}", magic, fnv1a(body), body);
}

Result<KernelMemo> parse_memo(std::string_view text) {
  if (!text.starts_with(magic)) return damaged("it is of another version");
  const std::size_t head = magic.size() + checksum_digits + 1;
  if (text.size() < head || text[head - 1] != '\n') return damaged("it is cut short");
  std::string_view rest = text.substr(head);
  if (text.substr(magic.size(), checksum_digits) != fmt::format("{:016x}", fnv1a(rest)))
    return damaged("its checksum does not match");
  KernelMemo memo;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    if (!parse_line(rest.substr(0, end), memo)) return damaged("a line cannot be understood");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return memo;
}

}  // namespace vmsight

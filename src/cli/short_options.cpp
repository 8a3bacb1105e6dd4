#include "cli/short_options.h"

#include <fmt/format.h>
#include <algorithm>

namespace vmsight {
namespace {

using Argument = ShortOption::Argument;

class Expansion {
 public:
  Expansion(std::string_view verb, std::span<const ShortOption> known,
            const std::vector<std::string>& words)
      : verb_(verb), known_(known), words_(words) {}

  Result<std::vector<std::string>> run() {
    for (at_ = 0; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (word == "--") break;
      const bool is_short = word.size() > 1 && (word[0] == '-' || word[0] == '+') && word[1] != '-';
      if (is_short) {
        VMSIGHT_TRY_VOID(expand(word));
      } else {
        into_.push_back(word);
      }
    }
    into_.insert(into_.end(), words_.begin() + static_cast<std::ptrdiff_t>(at_), words_.end());
    return std::move(into_);
  }

 private:
  Result<void> expand(const std::string& word) {
    for (std::size_t i = 1; i < word.size(); ++i) {
      const auto option = std::find_if(known_.begin(), known_.end(), [&](const ShortOption& one) {
        return one.sign == word[0] && one.letter == word[i];
      });
      if (option == known_.end()) {
        return Error{.code = ErrorCode::usage,
                     .message = fmt::format("{}: unknown option '{}{}' in '{}'", verb_, word[0],
                                            word[i], word),
                     .hint = fmt::format("see `vmsight {} --help`", verb_)};
      }
      if (option->argument == Argument::none) {
        if (!option->long_name.empty()) into_.emplace_back(option->long_name);
        continue;
      }
      return take_argument(*option, word.substr(i + 1));
    }
    return {};
  }

  Result<void> take_argument(const ShortOption& option, std::string rest) {
    if (rest.empty() && option.argument != Argument::attached && at_ + 1 < words_.size()) {
      const std::string& next = words_[at_ + 1];
      const bool may_take = option.argument == Argument::required ||
                            (!next.empty() && next[0] != '-' && next[0] != '+');
      if (may_take) {
        rest = next;
        ++at_;
      }
    }
    if (rest.empty() && option.argument == Argument::required) {
      return Error{
          .code = ErrorCode::usage,
          .message = fmt::format("{}: {}{} needs an argument", verb_, option.sign, option.letter),
          .hint = fmt::format("see `vmsight {} --help`", verb_)};
    }
    if (rest.empty()) rest = no_argument;
    if (!option.long_name.empty()) into_.push_back(fmt::format("{}={}", option.long_name, rest));
    return {};
  }

  std::string_view verb_;
  std::span<const ShortOption> known_;
  const std::vector<std::string>& words_;
  std::vector<std::string> into_;
  std::size_t at_ = 0;
};

}  // namespace

Result<void> expand_short_options(std::string_view verb, std::span<const ShortOption> known,
                                  std::vector<std::string>& words) {
  VMSIGHT_TRY(words, Expansion(verb, known, words).run());
  return {};
}

}  // namespace vmsight

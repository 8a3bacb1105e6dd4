// What `vmsight study` was asked for, and how it goes to vmsight-study, which does it: as words such as
// "rounds=5", which keep every byte of a name or path. A list is a word for each element.
//
// This header is all of it: the verb (src/cli/study.cpp) includes it, and is not linked with the study.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "vmsight/result.h"

namespace vmsight {

inline constexpr const char* study_program = "vmsight-study";

struct StudyOptions {
  std::string study;  // "techniques", "probes", "consistency" or "loop"
  std::string vm;
  bool json = false, headers = true;

  std::vector<std::string> techniques;  // compared: names or classes; empty: all there are
  std::vector<double> rates;            // beside the maximum
  std::vector<double> cpu;              // the parts of a core, in percent, that we are held to
  std::optional<double> seconds;        // of a round, or of the loop
  unsigned rounds = 5;                  // of techniques and of probes
  std::string resume;                   // a file, or ""
  std::string technique = "auto";       // of the loop
  double rate = 0;                      // of the loop

  std::string call;                               // makes the guest call `site` $CALLS times
  std::string site = "kprobe:__x64_sys_getppid";  // does next to nothing
  std::uint64_t calls = 1'000'000;                // a run
  std::uint64_t slow_calls = 100;  // a run of an engine that stops the guest at each hit
  std::vector<std::string> engines;
  double timeout = 600;  // seconds, of a run

  std::uint64_t views = 1000;  // of consistency: by each way
};

/// Visits each option and its name, of StudyOptions that may be const.
template <typename Options, typename Visit>
void each_study_option(Options& options, const Visit& visit) {
  visit("study", options.study);
  visit("vm", options.vm);
  visit("json", options.json);
  visit("headers", options.headers);
  visit("techniques", options.techniques);
  visit("rates", options.rates);
  visit("cpu", options.cpu);
  visit("seconds", options.seconds);
  visit("rounds", options.rounds);
  visit("resume", options.resume);
  visit("technique", options.technique);
  visit("rate", options.rate);
  visit("call", options.call);
  visit("site", options.site);
  visit("calls", options.calls);
  visit("slow-calls", options.slow_calls);
  visit("engines", options.engines);
  visit("timeout", options.timeout);
  visit("views", options.views);
}

namespace study_words {

template <typename Value>
void add(std::vector<std::string>& words, std::string_view name, const Value& value) {
  words.push_back(fmt::format("{}={}", name, value));
}
template <typename Value>
void add(std::vector<std::string>& words, std::string_view name,
         const std::optional<Value>& value) {
  if (value) add(words, name, *value);
}
template <typename Value>
void add(std::vector<std::string>& words, std::string_view name, const std::vector<Value>& list) {
  for (const Value& value : list) add(words, name, value);
}

inline bool read(std::string_view text, std::string& into) {
  into = text;
  return true;
}
inline bool read(std::string_view text, bool& into) {
  into = text == "true";
  return into || text == "false";
}
template <typename Number>
bool read(std::string_view text, Number& into) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, into);
  return error == std::errc() && rest == end;
}
template <typename Value>
bool read(std::string_view text, std::optional<Value>& into) {
  return read(text, into.emplace());
}
template <typename Value>
bool read(std::string_view text, std::vector<Value>& into) {
  return read(text, into.emplace_back());
}

/// False if the word is no option, or its value none of that option.
inline bool read_word(std::string_view word, StudyOptions& into) {
  const std::size_t sign = word.find('=');
  bool known = false;
  each_study_option(into, [&](std::string_view name, auto& option) {
    if (sign != word.npos && name == word.substr(0, sign))
      known = read(word.substr(sign + 1), option);
  });
  return known;
}

}  // namespace study_words

/// The arguments of vmsight-study.
inline std::vector<std::string> words_of(const StudyOptions& options) {
  std::vector<std::string> words;
  each_study_option(options, [&](std::string_view name, const auto& option) {
    study_words::add(words, name, option);
  });
  return words;
}

/// usage if a word is none of words_of(), or no study is named: typed by hand, or of another version.
inline Result<StudyOptions> study_options_of(std::span<const std::string_view> words) {
  StudyOptions options;
  const auto refuse = [](std::string_view what) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("{}: {}", study_program, what),
                 .hint = "`vmsight study` starts this program itself; both must be of one version"};
  };
  for (const std::string_view word : words) {
    if (!study_words::read_word(word, options)) return refuse(fmt::format("what is '{}'?", word));
  }
  constexpr std::string_view known[] = {"techniques", "probes", "consistency", "loop"};
  if (std::ranges::find(known, options.study) == std::end(known)) return refuse("no study named");
  return options;
}

}  // namespace vmsight

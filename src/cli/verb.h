// A verb of the command line: what it is called, what it takes, what it does.
//
// One file a verb, named after it; verbs.cpp has the table of all. A verb declares its options,
// then runs once. Results go to Session::out, everything else to standard error.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "render/output.h"
#include "vmsight/result.h"
#include "vmsight/view.h"

namespace vmsight {

class FrontService;

/// Options that verbs share.
struct CommonOptions {
  std::string vm;  // "" if the verb takes none or it was left out
  std::string technique = "auto";
  TechniqueWish wish;                 // what "auto" must give
  std::optional<std::string> kernel;  // --kernel: an index or the start of a build id
  ImageOptions image;                 // how an image is opened
  bool reads_states = false;          // and nothing else of the guest's memory
  bool use_cache = true;
  std::shared_ptr<FrontService>
      service;               // what the verb needs its user's rights for, in the sandbox
  bool sandbox = true;       // what interprets the guest's memory has no rights
  bool all_kernels = false;  // list every kernel in memory, though the running one is known
  bool json = false;
  bool csv = false;
  bool headers = true;
};

struct Session {
  CommonOptions common;
  Output out;
  std::size_t width = 0;  // of the terminal that `out` is, 0 if it is none

  explicit Session(int fd) : out(fd) {}
};

class Verb {
 public:
  virtual ~Verb() = default;
  virtual void declare(CLI::App& app) = 0;
  /// Rewrites the words after the verb that the declared options cannot express (`+L1`).
  virtual Result<void> rewrite(std::vector<std::string>&) const { return {}; }
  virtual Result<void> run(Session& session) = 0;
};

enum class VmArgument : std::uint8_t { none, optional, required };

struct VerbInfo {
  std::string_view name;
  std::string_view group;      // heading in `vmsight --help`
  std::string_view arguments;  // "VM PID [options]"
  std::string_view summary;
  std::string_view examples;  // two lines, each a command that works
  VmArgument vm = VmArgument::required;
  bool shows_records = false;  // of the state: --format csv
  std::string_view refuses{};  // a common option that it has an error for: not in its help
  std::string_view
      keeps_rights{};  // what it does for which it runs without a sandbox; "" = it runs in one
  std::unique_ptr<Verb> (*make)() = nullptr;
};

template <typename V>
std::unique_ptr<Verb> make_verb() {
  return std::make_unique<V>();
}

/// All verbs, in the order of the help.
std::span<const VerbInfo* const> all_verbs();
const VerbInfo* find_verb(std::string_view name);

/// The options and arguments of a verb, as the command line declares them.
void declare_verb(CLI::App& app, const VerbInfo& info, Verb& verb, CommonOptions& common);

inline Error usage_error(std::string message, std::string hint = {}) {
  return {.code = ErrorCode::usage, .message = std::move(message), .hint = std::move(hint)};
}

/// For options that take a number above 0, with an answer that people can read.
inline CLI::Validator positive() {
  return {[](std::string& text) {
            double value = 0;
            const bool is_number = CLI::detail::lexical_cast(text, value);
            return is_number && value > 0 ? "" : "'" + text + "' is not a number above 0";
          },
          "POSITIVE"};
}

/// --count and --duration of what goes on until it is told to end; `what` is counted: "events".
void declare_end(CLI::App& app, std::string_view what, std::optional<std::uint64_t>& count,
                 std::optional<double>& duration_s);

inline constexpr const char* filter_group = "Filters";
inline constexpr const char* format_group = "Format";

}  // namespace vmsight

// Integrity of a guest: whether its kernel is as it was built and loaded, and tells all that it runs.
//
//   integrity_check.cpp's table ---> IntegrityChecker::run() ---> findings, what was checked, what was not
//
// Everything is read from outside and nothing is changed. A check that finds something on a guest
// that runs looks again: only what is there in three looks, over more than 100 ms, is a finding; some
// checks need more.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detect/integrity/own_traps.h"
#include "detect/integrity/text_baseline.h"
#include "vmsight/kernel.h"
#include "vmsight/memory.h"
#include "vmsight/state.h"

namespace vmsight {

enum class Sureness : std::uint8_t {
  certain,  // no kernel does this by itself
  likely,   // nothing is known that does it
  hint,     // often harmless: for a person to judge
};
std::string_view to_string(Sureness sureness);

struct Finding {
  std::string_view check;  // its name
  std::string what;        // a sentence, with symbols; holds text of the guest
  std::string object;      // what it is about, the same in each look: "sys_call_table[59]"
  std::vector<std::string> sources;  // what says so
  Sureness sureness = Sureness::hint;
  std::optional<GuestVirt> address;
  std::optional<std::int32_t> pid;
};

struct CheckInfo {
  std::string_view name;    // "syscall-table"
  std::string_view what;    // what it looks at, a line
  std::string_view family;  // "kernel", "processes", "settings", "network"
};

/// What became of one check. A check that was skipped found nothing, and proves nothing.
struct CheckReport {
  std::string_view check;
  bool done = false;
  std::string note;  // why it was skipped, or what limits it; "" if there is nothing to say
  std::uint64_t looked_at = 0;  // entries, processes, bytes ...
  bool changing = false;  // skipped: the kernel held the locks under which it changes its code
};

struct Findings {
  std::vector<Finding> findings;     // in the order of the checks
  std::vector<CheckReport> reports;  // one a check that was selected
};

/// All checks, in the order in which they run.
std::span<const CheckInfo> integrity_checks();

struct IntegrityOptions {
  /// Where baselines of kernel text are kept, as default_cache_directory(); "" = nowhere.
  std::string cache_directory;
  /// The file to compare with instead; made if there is none.
  std::string baseline_file{};
  /// By which all of these are read and written.
  std::shared_ptr<BaselineFiles> files = own_baseline_files();
  /// Which traps in the guest's code are vmsight's own, asked at each look: read_own_traps() of a VM.
  /// Without it there are none.
  std::function<std::vector<OwnTrap>()> own_traps{};
  /// Between two looks at what was found on a guest that runs.
  std::chrono::milliseconds pause{70};
};

class IntegrityChecker {
 public:
  /// Both must outlive it.
  static Result<std::unique_ptr<IntegrityChecker>> create(Kernel& kernel, GuestMemory& memory,
                                                          IntegrityOptions options = {});
  virtual ~IntegrityChecker() = default;

  /// Runs the checks of these names, all if there are none; not_found for a name that is none.
  /// `state` has what parts() says, read a moment ago; nullptr = it is read here if it is needed.
  /// May be called again and again; each call takes views of its own.
  virtual Result<Findings> run(std::span<const std::string> names, const State* state) = 0;

  /// The parts of the state that these checks need (Part); 0 if none.
  static unsigned parts(std::span<const std::string> names);
};

}  // namespace vmsight

// What we have changed in a VM and not yet undone, on disk: for when both we and the guard that
// would undo it (undo/guard.h) were killed. Only guards write there.
//
//   /run/vmsight/PID-N-N.json              root; the directory is 0700, a file 0600
//   $XDG_RUNTIME_DIR/vmsight/...           others
//
// A file is written before its change and removed after it was undone. It appears whole or not at
// all.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "host/process.h"
#include "undo/change_kind.h"
#include "vmsight/result.h"

namespace vmsight {

/// A change that outlives us.
struct Change {
  std::string kind;  // name of a ChangeKind
  nlohmann::json payload = nlohmann::json::object();
  std::string what;  // as its kind says; "" from whoever does not know it
  bool outlives_vm = false;
  bool on_purpose = false;
};
Change make_change(const ChangeKind& kind, nlohmann::json payload = nlohmann::json::object());

struct Record {
  std::string path;
  ProcessId vm;      // the QEMU process
  ProcessId author;  // for whom it was changed
  ProcessId guard;   // who changed it, and undoes it when the author is gone
  Change change;
};

/// The record of one change that comes and goes.
class JournalEntry {
 public:
  /// Makes the directory. permission or os if it is not ours alone, or there can be none.
  /// The guard is the calling process.
  static Result<JournalEntry> prepare(const ProcessId& vm, Change change, const ProcessId& author);
  /// Does nothing if it is written already.
  Result<void> write();
  /// Not to find it is no error.
  Result<void> remove();
  static Result<void> remove_record(const std::string& path);

 private:
  Record record_;
  bool is_written_ = false;
};

/// All records; files that are none are left out. Of very many only some.
std::vector<Record> read_journal();

/// nullopt if it is none. `path` is left empty.
std::optional<Record> parse_record(std::string_view text);
std::string format_record(const Record& record);

/// "" if there can be none: not root, and no XDG_RUNTIME_DIR.
std::string journal_directory();
/// The same, made if it was not there. permission if others may write or look there, or there can be none.
Result<std::string> make_journal_directory();

}  // namespace vmsight

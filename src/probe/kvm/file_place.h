// A place in a file of the guest, and where the guest has it in memory now.
//
//   file + offset -> page cache -> a page of RAM -> the bytes there
//
// The guest may drop the page and read it again into another one, or move it; nobody tells us. An
// inode that was freed may be another file's by now, and a file may get other contents.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "probe/page_cache.h"
#include "vmsight/memory.h"

namespace vmsight {

struct FilePlace {
  GuestVirt inode;
  FileIdentity file;
  std::uint64_t offset = 0;
  /// What follows the instruction, once it was seen; of no other build of the file, most likely.
  std::string behind;
};

class FilePlaces {
 public:
  enum class State {
    missing,   // not in memory now
    original,  // endbr64
    armed,     // the trap
    other,     // another instruction
    replaced,  // the file is another one
  };
  struct Look {
    State state = State::missing;
    GuestPhys at;  // of the instruction, unless it is missing or replaced
    HostVirt host;
    std::string bytes;
  };

  /// `ram` says where the host has the guest's RAM, and must outlive it. unsupported if the kernel lacks what is
  /// needed.
  static Result<FilePlaces> resolve(const RamMap& ram, Kernel& kernel);

  /// Where it is now. `reader` was flushed, of a view that has just begun. Remembers what is behind the
  /// instruction if that was not known.
  Look look(Reader& reader, FilePlace& place, std::string_view trap) const;

 private:
  FilePlaces(const RamMap& ram, PageCache cache) : ram_(&ram), cache_(std::move(cache)) {}

  const RamMap* ram_;
  PageCache cache_;
};

/// The bytes behind an instruction as they are when nobody probes: functions may be shorter than that,
/// and the next one armed too.
std::string without_traps(std::string_view bytes, std::string_view trap);

}  // namespace vmsight

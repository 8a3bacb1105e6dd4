// An image's file, open and not looked at yet, with all that reading it may need: whoever interprets what is in it opens
// nothing, so that it can be done in a sandbox.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/os.h"
#include "image/image_bytes.h"

namespace vmsight {

/// A file without a name, to unpack into. It goes when it is closed.
struct ScratchFile {
  std::string folder;
  UniqueFd write;
  UniqueFd read;  // the same file, which cannot be written by it
};
/// In $TMPDIR, else /var/tmp.
Result<ScratchFile> make_scratch_file();

struct ImageFile {
  std::string path;
  SharedBytes bytes;
  SharedBytes state;                 // VMware's, of the file beside a .vmem; null if there is none
  std::vector<ScratchFile> scratch;  // if the first bytes are those of something packed
  std::optional<Error> no_scratch;   // why there is none though it will be needed
};

}  // namespace vmsight

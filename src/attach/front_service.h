// What a program needs its user's rights for after it has given them up, beside what attach() itself does: to read and
// write files of its own. The front does it, and answers.
#pragma once

#include <string>
#include <string_view>

#include "vmsight/guest.h"

namespace vmsight {

/// Its methods are called in the front's process, which is a copy of ours from before the sandbox. Who asks may have been
/// taken over by a guest: believe nothing of what he says.
class FrontService {
 public:
  virtual ~FrontService() = default;
  virtual Result<std::string> serve(std::string_view what, std::string_view text) = 0;
  /// The front ends: nothing more is asked. It may be called by a signal handler.
  virtual void end() {}
  /// A file that the sandbox may write at any place; -1: none.
  virtual int output() const { return -1; }
};

/// Asks the front to have `options.service` do it; where there is no sandbox it is asked here.
Result<std::string> ask_service(const Guest& guest, const AttachOptions& options,
                                std::string_view what, std::string_view text = {});

}  // namespace vmsight

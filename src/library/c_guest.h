// What stands behind the C interface's vmsight_guest.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "vmsight/guest.h"
#include "vmsight/state.h"
#include "vmsight/vmsight.h"

/// In the order in which it is made; given back in the other.
struct vmsight_guest {
  vmsight::Guest guest;
  vmsight::AttachOptions options;
  std::unique_ptr<vmsight::StateReader> reader;  // made when a state is first read
  std::optional<vmsight::View> view;             // between begin and end
  std::string technique;
  std::string name, module;  // of the last vmsight_symbol_at()
};

#include "cli/verb.h"

namespace vmsight {

extern const VerbInfo list_verb, info_verb;
extern const VerbInfo ps_verb;
extern const VerbInfo state_verb;

namespace {

constexpr const VerbInfo* table[] = {
    &list_verb, &info_verb, &ps_verb, &state_verb,
};

}  // namespace

std::span<const VerbInfo* const> all_verbs() { return table; }

const VerbInfo* find_verb(std::string_view name) {
  for (const VerbInfo* verb : table) {
    if (verb->name == name) return verb;
  }
  return nullptr;
}

}  // namespace vmsight

#include "render/reference.h"

#include <fmt/format.h>

#include "state/records.h"

namespace vmsight {
namespace {

template <typename Record>
std::string_view role_of(const Field<Record>& field) {
  return field.order != nullptr ? "tells it apart" : field.changed != nullptr ? "change" : "";
}

template <typename Record>
void add_fields(std::string& text, std::span<const Field<Record>> fields, bool has_roles) {
  text += has_roles ? "\n| field | unit | what it is | in the feed |\n|---|---|---|---|\n"
                    : "\n| field | unit | what it is |\n|---|---|---|\n";
  for (const Field<Record>& field : fields) {
    text += fmt::format("| `{}` | {} | {}{} |", field.name, field.unit, field.meaning,
                        field.has != nullptr ? " (only if asked for)" : "");
    if (has_roles) text += fmt::format(" {} |", role_of(field));
    text += '\n';
  }
}

template <typename Structure>
void add_structure(std::string& text, std::string_view heading) {
  text += fmt::format("\n### {}\n", heading);
  add_fields(text, fields_of(Structure{}), false);
}

}  // namespace

std::string records_reference() {
  std::string text;
  each_kind([&](const auto& kind) {
    text += fmt::format("{}### `{}`\n\n{}; in the feed a {} is *{}*", text.empty() ? "" : "\n",
                        kind.key, kind.meaning, kind.name, kind.added);
    text += kind.comes_only ? ".\n" : fmt::format(" or *{}*.\n", kind.removed);
    add_fields(text, kind.fields, true);
  });
  add_structure<NetAddress>(text, "`addresses` of `net_devices`");
  add_structure<CpuCache>(text, "`caches` of `cpus`");
  add_structure<FileFacts>(text, "`exe_file`, `cwd_file`, `root_file` of `processes`");
  add_structure<Socket::Memory>(text, "`memory` of `sockets`");
  return text;
}

}  // namespace vmsight

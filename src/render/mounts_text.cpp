#include "render/mounts_text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

#include "base/text.h"
#include "render/escape.h"
#include "render/format.h"
#include "render/json.h"

namespace vmsight {
namespace {

constexpr std::string_view column_names[] = {
    "TARGET", "SOURCE", "FSTYPE", "OPTIONS",    "VFS-OPTIONS", "FS-OPTIONS", "MAJ:MIN",
    "FSROOT", "ID",     "PARENT", "OPT-FIELDS", "PROPAGATION", "MNTNS"};

/// "/dev/vda1[/subvolume]": with the root of a bind mount, as findmnt shows it.
std::string source_text(const Mount& mount, bool with_fsroot) {
  std::string source = known(mount.source);
  const bool whole = mount.root.empty() || mount.root == "/";
  if (with_fsroot && !whole) source += fmt::format("[{}]", mount.root);
  return source;
}

std::string optional_fields(const Mount& mount) {
  std::string text;
  const auto add = [&](std::string_view name, std::uint32_t number) {
    if (number != 0) text += fmt::format("{}{}:{}", text.empty() ? "" : " ", name, number);
  };
  add("shared", mount.peer_group);
  add("master", mount.master_group);
  add("propagate_from", mount.propagate_from);
  if (mount.propagation.ends_with("unbindable"))
    text += text.empty() ? "unbindable" : " unbindable";
  return text;
}

std::string cell_text(const Mount& mount, MountColumn column, const MountFormat& format) {
  switch (column) {
    case MountColumn::target:
      return known(mount.target);
    case MountColumn::source:
      return source_text(mount, format.with_fsroot);
    case MountColumn::fstype:
      return known(mount.fstype);
    case MountColumn::options:
      return merged_options(mount);
    case MountColumn::vfs_options:
      return known(mount.options);
    case MountColumn::fs_options:
      return known(mount.super_options);
    case MountColumn::device:
      return device_name(mount.device);
    case MountColumn::fsroot:
      return known(mount.root);
    case MountColumn::id:
      return std::to_string(mount.id);
    case MountColumn::parent:
      return std::to_string(mount.parent);
    case MountColumn::opt_fields:
      return optional_fields(mount);
    case MountColumn::propagation:
      return known(mount.propagation);
    case MountColumn::mntns:
      return std::to_string(mount.mntns);
  }
  return "";
}

std::string_view name_of(MountColumn column) {
  return column_names[static_cast<std::size_t>(column)];
}

/// A cell that is one word: what would end it, and what a terminal would obey, as "\xNN".
std::string as_word(std::string_view text, std::string_view special) {
  std::string word;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte > 0x20 && byte != 0x7f && byte != '\\';
    const bool blank = c == ' ' && special.find(' ') == special.npos;
    if ((plain || blank) && special.find(c) == special.npos) {
      word += c;
    } else {
      word += fmt::format("\\x{:02x}", byte);
    }
  }
  return for_terminal(word);
}

void print_raw(Output& out, const State& state, const MountFormat& format) {
  std::vector<std::string> words;
  if (format.table.headers) {
    for (const MountColumn column : format.columns) words.emplace_back(name_of(column));
    out.print("{}\n", fmt::join(words, " "));
  }
  for (const Mount& mount : state.mounts) {
    words.clear();
    for (const MountColumn column : format.columns) {
      words.push_back(as_word(cell_text(mount, column, format), " "));
    }
    out.print("{}\n", fmt::join(words, " "));
  }
}

void print_pairs(Output& out, const State& state, const MountFormat& format) {
  for (const Mount& mount : state.mounts) {
    std::vector<std::string> words;
    for (const MountColumn column : format.columns) {
      words.push_back(fmt::format("{}=\"{}\"", name_of(column),
                                  as_word(cell_text(mount, column, format), "\"$`")));
    }
    out.print("{}\n", fmt::join(words, " "));
  }
}

/// As `findmnt -J -l`: a flat list with a key a column.
void print_json(Output& out, const State& state, const MountFormat& format) {
  Json list = Json::array();
  for (const Mount& mount : state.mounts) {
    Json record = Json::object();
    for (const MountColumn column : format.columns) {
      std::string key(name_of(column));
      for (char& c : key) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      }
      const std::string text = cell_text(mount, column, format);
      const bool number = column == MountColumn::id || column == MountColumn::parent;
      record[key] = number         ? Json(column == MountColumn::id ? mount.id : mount.parent)
                    : text.empty() ? Json(nullptr)
                                   : json_text(text);
    }
    list.push_back(std::move(record));
  }
  out.print("{}\n", dump({{"filesystems", std::move(list)}}));
}

/// Walks each namespace's mounts from its roots. Guest data: parents may form cycles, which no
/// root reaches; those mounts are printed at the end, each once, without recursion.
class MountTree {
 public:
  MountTree(const std::vector<Mount>& mounts, bool ascii) : ascii_(ascii) {
    std::set<Id> ids;
    for (const Mount& mount : mounts) ids.emplace(mount.mntns, mount.id);
    for (const Mount& mount : mounts) {
      const Id parent{mount.mntns, mount.parent};
      const bool child = mount.parent != mount.id && ids.contains(parent);
      (child ? children_[parent] : roots_).push_back(&mount);
    }
    for (const Mount& mount : mounts) roots_.push_back(&mount);
  }

  template <typename Visit>
  void walk(Visit visit) {
    for (const Mount* root : roots_) {
      std::vector<Step> stack = {{root, "", ""}};
      while (!stack.empty()) {
        const Step step = std::move(stack.back());
        stack.pop_back();
        if (!seen_.insert(step.mount).second) continue;
        visit(*step.mount, step.lead);
        push_children(stack, step);
      }
    }
  }

 private:
  using Id = std::pair<std::uint64_t, std::uint32_t>;
  struct Step {
    const Mount* mount;
    std::string lead, below;  // drawn before this mount, and before its children
  };
  static constexpr std::size_t max_lead = 120;

  void push_children(std::vector<Step>& stack, const Step& step) const {
    const auto found = children_.find({step.mount->mntns, step.mount->id});
    if (found == children_.end()) return;
    const auto& list = found->second;
    const std::string base = step.below.size() > max_lead ? "" : step.below;
    for (std::size_t i = list.size(); i-- > 0;) {
      const bool last = i + 1 == list.size();
      const std::string_view branch = ascii_ ? (last ? "`-" : "|-") : (last ? "└─" : "├─");
      const std::string_view trunk = last ? "  " : ascii_ ? "| " : "│ ";
      stack.push_back({list[i], base + std::string(branch), base + std::string(trunk)});
    }
  }

  bool ascii_;
  std::map<Id, std::vector<const Mount*>> children_;
  std::vector<const Mount*> roots_;
  std::unordered_set<const Mount*> seen_;
};

}  // namespace

std::span<const std::string_view> mount_column_names() { return column_names; }

std::optional<MountColumn> mount_column(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  const auto* const found = std::find(std::begin(column_names), std::end(column_names), upper);
  if (found == std::end(column_names)) return std::nullopt;
  return static_cast<MountColumn>(found - std::begin(column_names));
}

std::string merged_options(const Mount& mount) {
  bool read_only = false;
  std::string text;
  for (const std::string_view list : {mount.options, mount.super_options}) {
    for (const std::string_view option : split_at_commas(list)) {
      read_only = read_only || option == "ro";
      if (option != "ro" && option != "rw") text += fmt::format(",{}", option);
    }
  }
  return (read_only ? "ro" : "rw") + text;
}

void print_mounts(Output& out, const State& state, const MountFormat& format) {
  if (format.layout == MountLayout::raw) return print_raw(out, state, format);
  if (format.layout == MountLayout::pairs) return print_pairs(out, state, format);
  if (format.layout == MountLayout::json) return print_json(out, state, format);
  std::vector<Column> columns;
  for (const MountColumn column : format.columns) columns.push_back({std::string(name_of(column))});
  Table table(std::move(columns));
  const auto add = [&](const Mount& mount, const std::string& lead) {
    for (const MountColumn column : format.columns) {
      const std::string text = cell_text(mount, column, format);
      table.cell(column == MountColumn::target ? lead + text : text);
    }
  };
  if (format.layout == MountLayout::tree) {
    MountTree(state.mounts, format.ascii).walk(add);
  } else {
    for (const Mount& mount : state.mounts) add(mount, "");
  }
  table.print(out, format.table);
}

}  // namespace vmsight

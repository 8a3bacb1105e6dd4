#include "probe/user_sites.h"

#include <fmt/format.h>
#include <algorithm>
#include <map>

#include "kernel/guest_text.h"
#include "probe/elf_symbols.h"
#include "probe/kernel_sites.h"
#include "state/file_objects.h"
#include "state/maple_tree.h"
#include "state/paths.h"
#include "state/tasks.h"

namespace vmsight {
namespace {

constexpr std::size_t max_areas = 1u << 20;  // of all processes
constexpr std::size_t max_processes = 1u << 22;
constexpr std::uint64_t vm_exec = 4;  // include/linux/mm.h

struct Area {
  std::uint64_t start = 0, end = 0, file_offset = 0;
  GuestVirt inode;
};
struct MappingProcess {
  std::int32_t tgid = 0;
  GuestVirt mm;
  GuestPhys root;
  std::vector<Area> code;
};

/// Processes of the guest and the code that they map.
class Programs {
 public:
  static Result<Programs> resolve(Kernel& kernel) {
    Programs programs;
    Members members(kernel);
    VMSIGHT_TRY(programs.tasks_, Tasks::resolve(kernel));
    VMSIGHT_TRY(programs.files_, FileObjects::resolve(kernel));
    VMSIGHT_TRY(programs.paths_, Paths::resolve(kernel));
    programs.at_ = {
        .pgd = members.offset("mm_struct", "pgd"),
        .tree = members.find("mm_struct", "mm_mt"),
        .list = members.find("mm_struct", "mmap"),
        .vm_start = members.offset("vm_area_struct", "vm_start"),
        .vm_end = members.offset("vm_area_struct", "vm_end"),
        .vm_next = members.find("vm_area_struct", "vm_next"),
        .vm_flags = members.offset("vm_area_struct", {"vm_flags", "flags"}),
        .vm_pgoff = members.offset("vm_area_struct", "vm_pgoff"),
        .vm_file = members.offset("vm_area_struct", "vm_file"),
        .child_reaper = members.offset("pid_namespace", "child_reaper"),
        .fs_root = members.offset("fs_struct", "root"),
    };
    programs.init_pid_ns_ = members.symbol("init_pid_ns");
    if (programs.at_.tree != absent) {
      VMSIGHT_TRY(programs.tree_, MapleTree::resolve(kernel));
    }
    VMSIGHT_TRY_VOID(members.check());
    return programs;
  }

  void read(Reader& reader, std::optional<std::int32_t> pid) {
    paths_.begin(reader, arena_, false);
    reader.clear_fault();
    const GuestVirt init = reader.pointer(init_pid_ns_ + at_.child_reaper);
    paths_.set_root(paths_.read(reader.pointer(init + tasks_.at().fs) + at_.fs_root));
    reader.clear_fault();
    std::vector<TaskIdentity> found;
    tasks_.walk(reader, max_processes, found);
    if (!reader.ok()) {  // the list moved under our eyes
      reader.refetch();
      found.clear();
      tasks_.walk_forward(reader, max_processes, found);
    }
    reader.clear_fault();
    for (const TaskIdentity& task : found) {
      if (!pid || task.pid == *pid) read_process(reader, task);
    }
  }

  const std::vector<MappingProcess>& processes() const { return processes_; }

  /// Files that processes execute, by path as they see it. More than one: of several mounts.
  std::vector<GuestVirt> inodes(const std::string& path) const {
    std::vector<GuestVirt> found;
    for (const auto& [inode, name] : names_) {
      if (name == path || name == "/usr" + path) found.push_back(inode);
    }
    return found;
  }
  std::string path_of(GuestVirt inode) const { return names_.at(inode); }
  /// "libc.so.6 is ...": files of the same name elsewhere.
  std::string like(const std::string& path) const {
    const std::string name = path.substr(path.rfind('/') + 1);
    NearestNames nearest(path);
    for (const auto& [inode, known] : names_) {
      if (known.ends_with("/" + name)) return fmt::format("did you mean {}?", escape_bytes(known));
      nearest.offer(known);
    }
    return nearest.hint();
  }

 private:
  void read_process(Reader& reader, const TaskIdentity& task) {
    reader.clear_fault();
    const GuestVirt mm = reader.pointer(task.task + tasks_.at().mm);
    if (mm.raw() == 0) return;
    const auto root = reader.space().translate(reader.memory(), reader.pointer(mm + at_.pgd));
    MappingProcess process{.tgid = task.pid, .mm = mm, .root = {}, .code = {}};
    if (tree_) {
      tree_->walk(reader, mm + at_.tree, [&](const MapleTree::Entry& entry) {
        return read_area(reader, entry.pointer, process);
      });
    } else if (at_.list != absent && at_.vm_next != absent) {
      GuestVirt area = reader.pointer(mm + at_.list);
      while (area.raw() != 0 && reader.ok() && read_area(reader, area, process)) {
        area = reader.pointer(area + at_.vm_next);
      }
    }
    reader.clear_fault();
    if (!root) return;
    process.root = root->page();
    processes_.push_back(std::move(process));
  }

  bool read_area(Reader& reader, GuestVirt area, MappingProcess& process) {
    if (++areas_ > max_areas) return false;
    const GuestVirt file = reader.pointer(area + at_.vm_file);
    const bool is_code = (reader.u64(area + at_.vm_flags) & vm_exec) != 0;
    if (!reader.ok()) return false;
    if (file.raw() == 0 || !is_code) return true;
    const FileObjects::Mapped shown = files_.mapped(reader, file);
    const Area code{.start = reader.u64(area + at_.vm_start),
                    .end = reader.u64(area + at_.vm_end),
                    .file_offset = reader.u64(area + at_.vm_pgoff) << page_shift,
                    // What is mapped is the cache of this inode, whatever file was opened.
                    .inode = files_.inode_of(reader, file)};
    if (!names_.contains(code.inode) && reader.ok()) {
      const std::string_view path = paths_.path(paths_.read(shown.path));
      if (reader.ok()) names_.emplace(code.inode, std::string(path));
    }
    if (reader.ok() && code.start < code.end) process.code.push_back(code);
    return reader.ok();
  }

  Tasks tasks_;
  FileObjects files_;
  Paths paths_;
  std::optional<MapleTree> tree_;
  struct Offsets {
    Offset pgd, tree, list;
    Offset vm_start, vm_end, vm_next, vm_flags, vm_pgoff, vm_file;
    Offset child_reaper, fs_root;
  } at_{};
  GuestVirt init_pid_ns_;
  Arena arena_;
  std::vector<MappingProcess> processes_;
  std::map<GuestVirt, std::string> names_;
  std::size_t areas_ = 0;
};

Error not_in_memory(const Site& site) {
  return {.code = ErrorCode::unsupported,
          .message = fmt::format("site '{}': the file's symbols are not in the guest's memory",
                                 escape_bytes(to_string(site))),
          .hint = "give a copy of the program on this host: --symbols FILE"};
}

/// nullptr if none of the host's files is the build that the guest has.
Result<std::unique_ptr<FileBytes>> same_build(FileBytes& in_guest,
                                              std::span<const std::string> files) {
  const auto theirs = elf_head(in_guest);
  for (const std::string& name : files) {
    VMSIGHT_TRY(auto file, open_host_file(name));
    const auto ours = elf_head(*file);
    if (!theirs || !ours || *theirs == *ours) return file;
  }
  return std::unique_ptr<FileBytes>();
}

Result<std::vector<ElfFunction>> functions_of(const Site& site, FileBytes& in_guest,
                                              std::span<const std::string> symbols_files) {
  VMSIGHT_TRY(const auto on_host, same_build(in_guest, symbols_files));
  FileBytes& file = on_host ? *on_host : in_guest;
  if (site.address) return std::vector<ElfFunction>{{.name = {}, .file_offset = *site.address}};
  auto answer = find_elf_functions(file, site.symbol, site.is_pattern());
  const bool found = answer && !answer->functions.empty();
  if (!found && !on_host && !symbols_files.empty()) {
    return Error{
        .code = ErrorCode::usage,
        .message = fmt::format("{} is another build than the guest's {}",
                               escape_bytes(symbols_files.front()), escape_bytes(site.path)),
        .hint = "give --symbols FILE once for each program"};
  }
  if (!answer) {
    Error error = std::move(answer).error();
    error.message = fmt::format("site '{}': {}", escape_bytes(to_string(site)), error.message);
    return error;
  }
  if (!answer->functions.empty()) return std::move(answer->functions);
  if (!answer->whole) return not_in_memory(site);
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("site '{}': the file has no such function",
                                      escape_bytes(to_string(site))),
               .hint = "if it is stripped, give one with symbols: --symbols FILE"};
}

std::vector<UserPlace> places_of(const Programs& programs, GuestVirt inode, std::uint64_t offset) {
  std::vector<UserPlace> places;
  for (const MappingProcess& process : programs.processes()) {
    for (const Area& area : process.code) {
      if (area.inode != inode || offset < area.file_offset) continue;
      const std::uint64_t within = offset - area.file_offset;
      if (within >= area.end - area.start) continue;
      places.push_back({.tgid = process.tgid,
                        .mm = process.mm,
                        .root = process.root,
                        .address = GuestVirt(area.start + within)});
    }
  }
  return places;
}

Result<std::vector<ProbeSite>> find_raw_address(const Programs& programs, const Site& site,
                                                const UserSiteOptions& options) {
  if (!options.pid) {
    return Error{.code = ErrorCode::usage,
                 .message = fmt::format("site '{}': whose address is it?", to_string(site)),
                 .hint = "give its process: --pid PID"};
  }
  if (programs.processes().empty()) {
    return Error{.code = ErrorCode::not_found,
                 .message = fmt::format("no process of the guest has PID {}", *options.pid)};
  }
  const MappingProcess& process = programs.processes().front();
  ProbeSite found{.user = true, .at_return = site.at_return, .address = GuestVirt(*site.address)};
  found.any_process = false;
  found.places.push_back(
      {.tgid = process.tgid, .mm = process.mm, .root = process.root, .address = found.address});
  return std::vector{std::move(found)};
}

}  // namespace

Result<std::vector<ProbeSite>> find_user_sites(Kernel& kernel, Reader& reader, const Site& site,
                                               const UserSiteOptions& options) {
  VMSIGHT_TRY(Programs programs, Programs::resolve(kernel));
  VMSIGHT_TRY(const PageCache cache, PageCache::resolve(kernel));
  programs.read(reader, options.pid);
  if (site.path.empty()) return find_raw_address(programs, site, options);
  const std::vector<GuestVirt> inodes = programs.inodes(site.path);
  if (inodes.empty()) {
    return Error{
        .code = ErrorCode::not_found,
        .message = fmt::format("site '{}': no process {}runs code of this file",
                               escape_bytes(to_string(site)), options.pid ? "with this PID " : ""),
        .hint = programs.like(site.path)};
  }
  std::vector<ProbeSite> sites;
  for (const GuestVirt inode : inodes) {
    CachedFile file(cache, reader, inode);
    VMSIGHT_TRY(const auto functions, functions_of(site, file, options.symbols_files));
    const auto identity = cache.identity(reader, inode);
    if (!identity) continue;
    for (const ElfFunction& function : functions) {
      ProbeSite found{.user = true,
                      .at_return = site.at_return,
                      .address = {},
                      .function = function.name,
                      .module = programs.path_of(inode),
                      .offset = site.offset,
                      .size = function.size,
                      .places = places_of(programs, inode, function.file_offset + site.offset),
                      .inode = inode,
                      .file = *identity,
                      .file_offset = function.file_offset + site.offset,
                      .any_process = !options.pid};
      if (!found.places.empty()) sites.push_back(std::move(found));
    }
  }
  if (sites.size() > max_pattern_sites) {
    return Error{
        .code = ErrorCode::usage,
        .message = fmt::format("site '{}': {} functions match, at most {} can be probed",
                               escape_bytes(to_string(site)), sites.size(), max_pattern_sites),
        .hint = "write a narrower pattern"};
  }
  if (!sites.empty()) return sites;
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("site '{}': no process maps that part of the file",
                                      escape_bytes(to_string(site)))};
}

Result<void> find_places_again(Kernel& kernel, Reader& reader, std::span<ProbeSite* const> sites) {
  VMSIGHT_TRY(Programs programs, Programs::resolve(kernel));
  VMSIGHT_TRY(const PageCache cache, PageCache::resolve(kernel));
  programs.read(reader, std::nullopt);
  for (ProbeSite* site : sites) {
    if (!site->any_process) continue;
    site->places.clear();
    site->replaced = false;
    // An inode that was freed may be that of another file by now, and the file have another inode.
    for (const GuestVirt inode : programs.inodes(site->module)) {
      const auto identity = cache.identity(reader, inode);
      if (identity != site->file) {
        site->replaced = site->replaced || identity;
        continue;
      }
      site->inode = inode;
      site->places = places_of(programs, inode, site->file_offset);
    }
  }
  return {};
}

}  // namespace vmsight

#include "state/files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <bit>

namespace vmsight {

namespace {

constexpr std::uint32_t max_table = 1u << 26;  // far beyond any sysctl fs.nr_open in use

}  // namespace

Result<FilesReader> FilesReader::resolve(Kernel& kernel, const FileObjects& objects) {
  Members members(kernel);
  FilesReader files;
  files.objects_ = objects;
  VMSIGHT_TRY(files.locks_, FileLocks::resolve(kernel));
  VMSIGHT_TRY(files.targets_, FileTargets::resolve(kernel));
  files.at_ = {
      .fdt = members.offset("files_struct", "fdt"),
      .max_fds = members.offset("fdtable", "max_fds"),
      .fd = members.offset("fdtable", "fd"),
      .open_fds = members.offset("fdtable", "open_fds"),
      .close_on_exec = members.offset("fdtable", "close_on_exec"),
  };
  VMSIGHT_TRY_VOID(members.check());
  return files;
}

void FilesReader::read(ProcessContext& process, std::int32_t pid, std::int32_t tid,
                       GuestVirt files) const {
  Reader& reader = process.reader();
  const GuestVirt fdt =
      process.proofs.expect(reader, files + at_.fdt, reader.pointer(files + at_.fdt));
  const auto size = reader.u32(fdt + at_.max_fds);
  const GuestVirt open = reader.pointer(fdt + at_.open_fds);
  const GuestVirt close_on_exec = reader.pointer(fdt + at_.close_on_exec);
  const Table table{pid, tid, reader.pointer(fdt + at_.fd)};
  if (size > max_table) reader.set_fault(fdt);

  for (std::uint32_t first = 0; first < size && reader.ok(); first += 64) {
    if (first % (1U << 16) == 0 && process.out_of_time()) return reader.set_fault(fdt);
    std::uint64_t bits = reader.u64(open + first / 8);
    if (bits == 0) continue;
    if (process.out_of_time()) return reader.set_fault(fdt);
    const std::uint64_t closing = reader.u64(close_on_exec + first / 8);
    prove_slots(process, table, first, bits);
    for (; bits != 0; bits &= bits - 1) {
      const unsigned bit = std::countr_zero(bits);
      if (first + bit >= size || is_full(process.state().open_files, process.state().arena)) return;
      read_slot(process, table, first + bit, ((closing >> bit) & 1) != 0);
      if (!reader.ok()) return;
    }
  }
}

/// All slots of a word of the bit map before their files: they lie side by side.
void FilesReader::prove_slots(ProcessContext& process, const Table& table, std::uint32_t first,
                              std::uint64_t bits) const {
  if (!process.proofs.live()) return;
  Reader& reader = process.reader();
  for (; bits != 0; bits &= bits - 1) {
    const GuestVirt slot = table.slots + 8 * (std::uint64_t{first} + std::countr_zero(bits));
    process.proofs.expect(reader, slot, reader.u64(slot));
  }
}

void FilesReader::read_slot(ProcessContext& process, const Table& table, std::uint32_t fd,
                            bool close_on_exec) const {
  Reader& reader = process.reader();
  const FileObjects::Offsets& at = objects_.at();
  const GuestVirt slot = table.slots + 8 * std::uint64_t{fd};
  const GuestVirt file = reader.pointer(slot);
  if (file.raw() == 0) return;  // the number is taken, the file not yet opened
  const GuestVirt inode = objects_.inode_of(reader, file);
  // Since 6.12 a freed struct file may at once be another one: the same slot proves little.
  process.proofs.expect(reader, file + at.f_inode, inode);
  const PathRef path = process.paths.read(objects_.path_of(file));
  const FileObjects::Inode facts = objects_.read_inode(reader, inode);
  const auto flags = reader.u32(file + at.f_flags) & ~std::uint32_t{O_CLOEXEC};

  OpenFile record{
      .pid = table.pid,
      .fd = static_cast<std::int32_t>(fd),
      .type = process.paths.is_anonymous(path.dentry) ? "ANON" : facts.type(),
      .path = process.paths.path(path),
      .pos = reader.u64(file + at.f_pos),
      .flags = flags | (close_on_exec ? O_CLOEXEC : 0),
      .inode = facts.number,
      .device = facts.device,
      .size = facts.size,
      .tid = table.tid,
      .rdev = facts.rdev,
      .links = facts.links,
  };
  if (facts.locks.raw() != 0) record.lock = locks_.letter(reader, facts.locks, table.pid);
  if (record.type == "ANON") targets_.read(process, file, inode, objects_, record);
  if (!reader.ok()) return;
  process.state().open_files.push_back(record);
  if ((facts.mode & S_IFMT) == S_IFSOCK) {
    process.context.socket_files.push_back(
        {table.pid, table.tid, record.fd, reader.pointer(file + at.private_data), facts.number});
  }
}

}  // namespace vmsight

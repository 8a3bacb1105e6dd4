#include "view/ram_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <memory>

namespace vmsight {

const RamBlock* block_of(const Vm& vm, const RamRange& range) {
  for (const RamBlock& block : vm.blocks()) {
    if (range.host >= block.host && range.host - block.host < block.size &&
        range.size <= block.size - (range.host - block.host)) {
      return &block;
    }
  }
  return nullptr;
}

namespace {

bool is_backing(const struct stat& st, const RamBlock& block) {
  return S_ISREG(st.st_mode) && st.st_ino == block.inode && st.st_dev == block.device;
}

/// Opens `path` if it is the file behind the block.
UniqueFd open_if_backing(int directory, const char* path, const RamBlock& block) {
  struct stat st {};
  // Looked at before it is opened: opening a device or a FIFO of QEMU's could have effects.
  if (::fstatat(directory, path, &st, 0) != 0 || !is_backing(st, block)) return {};
  UniqueFd fd(::openat(directory, path, O_RDONLY | O_CLOEXEC));
  if (!fd || ::fstat(fd.get(), &st) != 0 || !is_backing(st, block)) return {};
  return fd;
}

}  // namespace

Result<UniqueFd> open_backing(const Vm& vm, const RamBlock& block) {
  const std::string process = fmt::format("/proc/{}", vm.info().pid);
  const std::string path = process + "/fd";
  const Directory directory = list_directory(path);
  if (!directory) return os_error(errno, "list " + path);
  while (const dirent* entry = ::readdir(directory.get())) {
    if (UniqueFd fd = open_if_backing(::dirfd(directory.get()), entry->d_name, block)) return fd;
  }
  // QEMU may have closed it; the mapping itself leads to it too, but only for root.
  const std::string mapping = fmt::format("{}/map_files/{:x}-{:x}", process, block.host.raw(),
                                          block.host.raw() + block.size);
  if (UniqueFd fd = open_if_backing(AT_FDCWD, mapping.c_str(), block)) return fd;
  return Error{.code = ErrorCode::not_found,
               .message = fmt::format("open the file behind RAM block {}: QEMU holds no "
                                      "descriptor of {} that we may open",
                                      block.name, block.path)};
}

namespace {

Error not_shared(const RamRange& range, const RamBlock* block) {
  if (block == nullptr) {
    return Error{.code = ErrorCode::unsupported,
                 .message = fmt::format("map {}: its RAM block is not known", range.start)};
  }
  return Error{.code = ErrorCode::unsupported,
               .message = fmt::format("map RAM block {}: it is {}, not a shared file", block->name,
                                      to_string(block->backing)),
               .hint = "start QEMU with -object memory-backend-memfd,share=on to map its RAM"};
}

}  // namespace

Result<FileRuns> open_ram_files(const Vm& vm, std::optional<Error>* missing) {
  FileRuns files;
  std::map<const RamBlock*, int> opened;
  for (const RamRange& range : vm.ram().ranges()) {
    const RamBlock* block = block_of(vm, range);
    std::optional<Error> why;
    if (block == nullptr || block->backing != Backing::shared_file) {
      why = not_shared(range, block);
    } else if (!opened.contains(block)) {
      auto fd = open_backing(vm, *block);
      if (fd) {
        opened[block] = files.own(*std::move(fd));
      } else {
        why = fd.error();
      }
    }
    if (why) {
      if (missing != nullptr && !*missing) *missing = std::move(why);
      continue;
    }
    files.add({.start = range.start,
               .size = range.size,
               .file_size = range.size,
               .offset = block->file_offset + (range.host - block->host),
               .fd = opened[block]});
  }
  return files;
}

}  // namespace vmsight

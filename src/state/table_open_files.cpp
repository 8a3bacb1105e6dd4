#include <fmt/format.h>

#include "state/records.h"

namespace vmsight {
namespace {

void put_open_flags(const OpenFile& file, ValueSink& sink) {
  char text[24];
  const auto end = fmt::format_to(text, "0{:o}", file.flags);
  sink.text({text, static_cast<std::size_t>(end - text)});
}

constexpr Field<OpenFile> file_fields[] = {
    telling<&OpenFile::pid>("pid", "", "process that has it open"),
    telling<&OpenFile::fd>("fd", "", "descriptor"),
    field<&OpenFile::type>("type", "", "REG, DIR, CHR, BLK, FIFO, SOCK, ANON, LNK"),
    telling<&OpenFile::path>("path", "", "as the link /proc/PID/fd/N"),
    field<&OpenFile::pos>("pos", "bytes", "position"),
    told<OpenFile>(field<&OpenFile::flags>("flags", "", "O_*, octal as in fdinfo"), put_open_flags),
    telling<&OpenFile::inode>("inode", "", "number of the file"),
    told<OpenFile>(field<&OpenFile::device>("device", "", "of its file system, major:minor"),
                   [](const OpenFile& f, ValueSink& sink) { put_device(f.device, sink); }),
    field<&OpenFile::size>("size", "bytes", "of the file"),
    telling<&OpenFile::tid>("tid", "", "first thread that uses the descriptor table"),
    told<OpenFile>(
        field<&OpenFile::rdev>("rdev", "", "the device that a CHR or BLK file stands for"),
        [](const OpenFile& f, ValueSink& sink) {
          f.rdev == 0 ? sink.null() : put_device(f.rdev, sink);
        }),
    field<&OpenFile::links>("links", "", "hard links"),
    told<OpenFile>(field<&OpenFile::lock>("lock", "", "R, W: on the whole file; r, w: on a part"),
                   [](const OpenFile& f, ValueSink& sink) {
                     f.lock == 0 ? sink.null() : put_value(f.lock, sink);
                   }),
    field<&OpenFile::targets>(
        "targets", "", "what an epoll watches, the PID of a pidfd, the number of an eventfd"),
};
constexpr Kind<OpenFile> file_table{.part = part_open_files,
                                    .key = "open_files",
                                    .name = "file",
                                    .added = "opened",
                                    .removed = "closed",
                                    .meaning = "open files, each descriptor table once",
                                    .records = &State::open_files,
                                    .fields = file_fields};

}  // namespace

const Kind<OpenFile>& kind(const OpenFile*) { return file_table; }

}  // namespace vmsight

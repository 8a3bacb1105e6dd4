#include "probe/elf_symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <algorithm>
#include <cstring>
#include <memory>

#include "base/os.h"

namespace vmsight {
namespace {

constexpr std::size_t max_segments = 64, max_sections = 4096, max_dynamic = 512;
constexpr std::uint64_t max_table = 64u << 20;  // bytes of a symbol or string table
constexpr std::size_t max_name = 1024;
constexpr std::size_t max_chain = 1u << 16;  // of the hash table
constexpr std::size_t max_functions = 1u << 16;

template <typename T>
bool load(FileBytes& file, std::uint64_t at, T& into) {
  return file.read(at, std::as_writable_bytes(std::span(&into, 1)));
}

std::uint32_t gnu_hash(std::string_view name) {
  std::uint32_t hash = 5381;
  for (const char c : name) hash = hash * 33 + static_cast<unsigned char>(c);
  return hash;
}

class ElfReader {
 public:
  explicit ElfReader(FileBytes& file) : file_(file) {}

  Result<void> open() {
    if (!load(file_, 0, header_)) {
      absent_ = true;
      return {};
    }
    const bool is_elf = std::memcmp(header_.e_ident, ELFMAG, SELFMAG) == 0 &&
                        header_.e_ident[EI_CLASS] == ELFCLASS64 && header_.e_machine == EM_X86_64 &&
                        header_.e_phentsize == sizeof(Elf64_Phdr);
    if (!is_elf) {
      return Error{.code = ErrorCode::bad_data, .message = "it is no ELF file for x86-64"};
    }
    segments_.resize(std::min<std::size_t>(header_.e_phnum, max_segments));
    if (!file_.read(header_.e_phoff, std::as_writable_bytes(std::span(segments_)))) {
      segments_.clear();
      absent_ = true;
    }
    return {};
  }

  ElfAnswer find(const std::string& name, bool is_pattern) {
    name_ = &name;
    is_pattern_ = is_pattern;
    read_dynamic();
    bool complete = false;
    if (!is_pattern && hash_ != 0) complete = look_up();
    if (answer_.functions.empty()) complete = scan_sections() || complete;
    answer_.whole = complete && !absent_;
    return std::move(answer_);
  }

 private:
  /// Where a virtual address of the program lies in its file.
  std::optional<std::uint64_t> offset_of(std::uint64_t address) const {
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type == PT_LOAD && address >= segment.p_vaddr &&
          address - segment.p_vaddr < segment.p_filesz) {
        return address - segment.p_vaddr + segment.p_offset;
      }
    }
    return std::nullopt;
  }

  void read_dynamic() {
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type != PT_DYNAMIC) continue;
      std::vector<Elf64_Dyn> entries(
          std::min<std::size_t>(segment.p_filesz / sizeof(Elf64_Dyn), max_dynamic));
      if (!file_.read(segment.p_offset, std::as_writable_bytes(std::span(entries)))) return;
      for (const Elf64_Dyn& entry : entries) {
        const std::uint64_t at = offset_of(entry.d_un.d_ptr).value_or(0);
        if (entry.d_tag == DT_SYMTAB) symbols_ = at;
        if (entry.d_tag == DT_STRTAB) strings_ = at;
        if (entry.d_tag == DT_GNU_HASH) hash_ = at;
      }
    }
    if (symbols_ == 0 || strings_ == 0) hash_ = 0;
  }

  /// As the loader does. False if a page that it needs is not there.
  bool look_up() {
    struct {
      std::uint32_t buckets, first, bloom_words, bloom_shift;
    } table{};
    if (!load(file_, hash_, table) || table.buckets == 0) return false;
    const std::uint32_t hash = gnu_hash(*name_);
    const std::uint64_t buckets = hash_ + sizeof table + std::uint64_t{table.bloom_words} * 8;
    const std::uint64_t chain = buckets + std::uint64_t{table.buckets} * 4;
    std::uint32_t index = 0;
    if (!load(file_, buckets + std::uint64_t{hash % table.buckets} * 4, index)) return false;
    if (index < table.first) return true;  // an empty bucket: no such function
    for (std::size_t i = 0; i < max_chain; ++i, ++index) {
      std::uint32_t known = 0;
      if (!load(file_, chain + std::uint64_t{index - table.first} * 4, known)) return false;
      if ((known | 1) == (hash | 1)) {
        Elf64_Sym symbol;
        if (!load(file_, symbols_ + std::uint64_t{index} * sizeof symbol, symbol)) return false;
        const auto text = name_at(strings_ + symbol.st_name);
        if (!text) return false;
        consider(*text, symbol);
      }
      if ((known & 1) != 0) return true;
    }
    return true;
  }

  std::optional<std::string> name_at(std::uint64_t at) {
    std::string name;
    std::array<char, 64> piece;
    while (name.size() < max_name) {
      std::size_t size = std::min<std::size_t>(piece.size(), page_size - (at & (page_size - 1)));
      size = std::min<std::uint64_t>(size, at < file_.size() ? file_.size() - at : 0);
      if (size == 0 || !file_.read(at, std::as_writable_bytes(std::span(piece).first(size))))
        return std::nullopt;
      const std::size_t length = ::strnlen(piece.data(), size);
      name.append(piece.data(), length);
      if (length < size) return name;
      at += size;
    }
    return name;
  }

  bool scan_sections() {
    std::vector<Elf64_Shdr> sections(std::min<std::size_t>(header_.e_shnum, max_sections));
    if (sections.empty() || header_.e_shentsize != sizeof(Elf64_Shdr) ||
        !file_.read(header_.e_shoff, std::as_writable_bytes(std::span(sections)))) {
      return false;
    }
    bool whole = true, any = false;
    for (const Elf64_Shdr& section : sections) {
      if (section.sh_type != SHT_SYMTAB && section.sh_type != SHT_DYNSYM) continue;
      if (section.sh_link >= sections.size()) continue;
      any = true;
      whole = scan(section, sections[section.sh_link]) && whole;
    }
    return whole && any;
  }

  bool scan(const Elf64_Shdr& table, const Elf64_Shdr& strings) {
    if (table.sh_size > max_table || strings.sh_size > max_table || strings.sh_size == 0)
      return false;
    // Sizes are the file's word: no more is allocated than it has bytes.
    if (table.sh_size > file_.size() || strings.sh_size > file_.size()) return false;
    std::vector<Elf64_Sym> symbols(table.sh_size / sizeof(Elf64_Sym));
    std::vector<char> text(strings.sh_size);
    if (!file_.read(table.sh_offset, std::as_writable_bytes(std::span(symbols))) ||
        !file_.read(strings.sh_offset, std::as_writable_bytes(std::span(text)))) {
      return false;
    }
    text.back() = '\0';
    for (const Elf64_Sym& symbol : symbols) {
      if (symbol.st_name < text.size()) consider(text.data() + symbol.st_name, symbol);
    }
    return true;
  }

  void consider(const std::string& name, const Elf64_Sym& symbol) {
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF) return;
    const bool wanted =
        is_pattern_ ? ::fnmatch(name_->c_str(), name.c_str(), 0) == 0 : name == *name_;
    const auto offset = wanted ? offset_of(symbol.st_value) : std::nullopt;
    if (!offset || answer_.functions.size() >= max_functions) return;
    const auto same = [&](const ElfFunction& known) { return known.file_offset == *offset; };
    if (std::any_of(answer_.functions.begin(), answer_.functions.end(), same)) return;
    answer_.functions.push_back({.name = name, .file_offset = *offset, .size = symbol.st_size});
  }

  FileBytes& file_;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_;
  std::uint64_t symbols_ = 0, strings_ = 0, hash_ = 0;  // where in the file; 0: none
  bool absent_ = false;
  const std::string* name_ = nullptr;
  bool is_pattern_ = false;
  ElfAnswer answer_;
};

class HostFile final : public FileBytes {
 public:
  HostFile(UniqueFd fd, std::uint64_t size) : fd_(std::move(fd)), size_(size) {}
  std::uint64_t size() const override { return size_; }
  bool read(std::uint64_t offset, std::span<std::byte> into) override {
    return offset <= size_ && into.size() <= size_ - offset &&
           ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset)) ==
               static_cast<ssize_t>(into.size());
  }

 private:
  UniqueFd fd_;
  std::uint64_t size_;
};

}  // namespace

Result<ElfAnswer> find_elf_functions(FileBytes& file, const std::string& name, bool is_pattern) {
  ElfReader reader(file);
  VMSIGHT_TRY_VOID(reader.open());
  return reader.find(name, is_pattern);
}

Result<std::vector<std::byte>> elf_head(FileBytes& file) {
  Elf64_Ehdr header;
  if (!load(file, 0, header) || header.e_phnum > max_segments) {
    return Error{.code = ErrorCode::not_found, .message = "the file's header is not there"};
  }
  std::vector<std::byte> head(sizeof header + header.e_phnum * sizeof(Elf64_Phdr));
  if (!file.read(0, head)) {
    return Error{.code = ErrorCode::not_found, .message = "the file's header is not there"};
  }
  return head;
}

Result<std::unique_ptr<FileBytes>> open_host_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return os_error(errno, "open " + path);
  if (!S_ISREG(info.st_mode)) {
    return Error{.code = ErrorCode::usage, .message = "open " + path + ": it is no file"};
  }
  return std::unique_ptr<FileBytes>(
      std::make_unique<HostFile>(std::move(fd), static_cast<std::uint64_t>(info.st_size)));
}

}  // namespace vmsight

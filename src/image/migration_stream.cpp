#include "image/migration_stream.h"

#include <algorithm>
#include <array>
#include <optional>

namespace vmsight {
namespace {

constexpr std::uint32_t file_magic = 0x5145564d, file_version = 3;
constexpr std::uint32_t ram_version = 4;
constexpr unsigned max_blocks = 4096;

// Of a section: include/migration/vmstate.h and migration/savevm.c of QEMU.
enum Section : std::uint8_t {
  end_of_file = 0,
  start = 1,
  part = 2,
  end = 3,
  full = 4,
  subsection = 5,
  description = 6,
  configuration = 7,
  command = 8,
  footer = 0x7e,
};

// Low bits of a word of the ram section: migration/ram.c.
enum Flags : std::uint64_t {
  zero = 0x02,
  mem_size = 0x04,
  whole_page = 0x08,
  end_of_section = 0x10,
  same_block = 0x20,
  multifd_flush = 0x200,
};
constexpr std::uint64_t flag_mask = page_size - 1;

Error malformed(std::string_view what) {
  return {.code = ErrorCode::bad_data, .message = fmt::format("read migration file: {}", what)};
}

class Parser {
 public:
  Parser(const ImageBytes& file, std::span<const WantedBlock> wanted)
      : file_(file), wanted_(wanted), found_(wanted.size()) {}

  /// Reads no further than the list of RAM blocks.
  Result<std::vector<WantedBlock>> list() {
    only_list_ = true;
    VMSIGHT_TRY_VOID(parse());
    std::vector<WantedBlock> listed;
    for (const Block& block : blocks_) listed.push_back({block.name, block.size});
    return listed;
  }

  Result<std::vector<StreamBlock>> parse() {
    VMSIGHT_TRY(const std::uint32_t magic, number<std::uint32_t>());
    VMSIGHT_TRY(const std::uint32_t version, number<std::uint32_t>());
    if (magic != file_magic || version != file_version)
      return malformed("not one, or not of version 3");
    while (!done_) VMSIGHT_TRY_VOID(section());
    return std::move(found_);
  }

 private:
  struct Block {
    std::string name;
    std::uint64_t size = 0;
    StreamBlock* into = nullptr;  // nullptr if it is not wanted
  };

  /// The next bytes, at most as many as the window has; valid until the next call.
  Result<std::span<const std::byte>> peek(std::size_t length) {
    if (file_.size() - at_ < length) return malformed("it ends early");
    if (at_ < window_at_ || at_ - window_at_ + length > window_size_) {
      window_at_ = at_;
      window_size_ = std::min<std::uint64_t>(window_.size(), file_.size() - at_);
      VMSIGHT_TRY_VOID(file_.read(at_, std::span(window_).first(window_size_)));
    }
    return std::span<const std::byte>(window_).subspan(at_ - window_at_, length);
  }

  template <typename T>
  Result<T> number() {
    VMSIGHT_TRY(const auto bytes, peek(sizeof(T)));
    T value = 0;
    for (const std::byte byte : bytes) {
      value = static_cast<T>(value << 8 | std::to_integer<T>(byte));
    }
    at_ += sizeof(T);
    return value;
  }

  Result<std::string> text(std::uint8_t length) {
    VMSIGHT_TRY(const auto bytes, peek(length));
    std::string value(reinterpret_cast<const char*>(bytes.data()), length);
    at_ += length;
    return value;
  }

  Result<std::string> short_text() {
    VMSIGHT_TRY(const std::uint8_t length, number<std::uint8_t>());
    return text(length);
  }

  Result<void> skip(std::uint64_t length) {
    if (file_.size() - at_ < length) return malformed("it ends early");
    at_ += length;
    return {};
  }

  Result<void> section() {
    VMSIGHT_TRY(const std::uint8_t type, number<std::uint8_t>());
    switch (type) {
      case configuration:
        return read_configuration();
      case start:
      case full:
        return begin_section();
      case part:
      case Section::end:
        return go_on_with_section();
      case footer:
        return skip(sizeof(std::uint32_t));
      case command:
        return skip_command();
      case end_of_file:
      case description:
        done_ = true;
        return finish();
      default:
        return malformed(fmt::format("a section of type {:#x}", type));
    }
  }

  Result<void> read_configuration() {
    VMSIGHT_TRY(const std::uint32_t length, number<std::uint32_t>());
    VMSIGHT_TRY_VOID(skip(length));  // the machine's name
    while (true) {
      const auto next = peek(1);
      if (!next || next->front() != std::byte{subsection}) break;
      ++at_;
      VMSIGHT_TRY(const std::string name, short_text());
      VMSIGHT_TRY_VOID(skip(sizeof(std::uint32_t)));  // version
      if (name != "configuration/capabilities") {
        return Error{.code = ErrorCode::unsupported,
                     .message = "read migration file: it has a " + name.substr(0, 60)};
      }
      VMSIGHT_TRY_VOID(read_capabilities());
    }
    return {};
  }

  Result<void> read_capabilities() {
    VMSIGHT_TRY(const std::uint32_t count, number<std::uint32_t>());
    for (std::uint32_t i = 0; i < count; ++i) {
      VMSIGHT_TRY(const std::string name, short_text());
      mapped_ = mapped_ || name == "mapped-ram";
    }
    return {};
  }

  Result<void> skip_command() {
    VMSIGHT_TRY_VOID(skip(sizeof(std::uint16_t)));
    VMSIGHT_TRY(const std::uint16_t length, number<std::uint16_t>());
    return skip(length);
  }

  Result<void> begin_section() {
    VMSIGHT_TRY(const std::uint32_t id, number<std::uint32_t>());
    VMSIGHT_TRY(const std::string name, short_text());
    VMSIGHT_TRY_VOID(skip(sizeof(std::uint32_t)));  // instance
    VMSIGHT_TRY(const std::uint32_t version, number<std::uint32_t>());
    if (name != "ram") {
      // Other sections say nothing of their length, but they all come after the RAM.
      done_ = true;
      return finish();
    }
    if (version != ram_version) return malformed(fmt::format("RAM of version {}", version));
    ram_id_ = id;
    return ram_words();
  }

  Result<void> go_on_with_section() {
    VMSIGHT_TRY(const std::uint32_t id, number<std::uint32_t>());
    if (id != ram_id_) return malformed("a part of an unknown section");
    return ram_words();
  }

  Result<void> finish() {
    if (blocks_.empty()) return malformed("no RAM in it");
    return {};
  }

  Result<void> ram_words() {
    while (true) {
      VMSIGHT_TRY(const std::uint64_t word, number<std::uint64_t>());
      const std::uint64_t flags = word & flag_mask, offset = word & ~flag_mask;
      switch (flags & ~std::uint64_t{same_block}) {
        case end_of_section:
          return {};
        case multifd_flush:
          break;
        case mem_size:
          VMSIGHT_TRY_VOID(block_list(offset));
          if (!only_list_) break;
          done_ = true;
          return {};
        case zero:
          VMSIGHT_TRY_VOID(zero_page(flags, offset));
          break;
        case whole_page:
          VMSIGHT_TRY_VOID(page(flags, offset));
          break;
        default:
          return Error{.code = ErrorCode::unsupported,
                       .message = fmt::format("read migration file: RAM flags {:#x}", flags)};
      }
    }
  }

  /// Name and length of each block, until the total is reached.
  Result<void> block_list(std::uint64_t total) {
    if (!blocks_.empty()) return malformed("two lists of RAM blocks");
    while (total > 0) {
      if (blocks_.size() >= max_blocks) return malformed("too many RAM blocks");
      VMSIGHT_TRY(std::string name, short_text());
      VMSIGHT_TRY(const std::uint64_t size, number<std::uint64_t>());
      if (size == 0 || size > total || size % page_size != 0) return malformed("RAM block sizes");
      total -= size;
      VMSIGHT_TRY_VOID(add_block(std::move(name), size));
    }
    return {};
  }

  Result<void> add_block(std::string name, std::uint64_t size) {
    Block block{.name = std::move(name), .size = size};
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (!is_called(block.name, wanted_[i].name) || found_[i].found) continue;
      if (size < wanted_[i].size) return malformed("RAM block " + block.name + " is too small");
      block.into = &found_[i];
      block.into->found = true;
      if (!mapped_) VMSIGHT_TRY_VOID(make_room(*block.into, wanted_[i].size >> page_shift));
      break;
    }
    if (mapped_) VMSIGHT_TRY_VOID(mapped_header(block));
    blocks_.push_back(std::move(block));
    return {};
  }

  /// A page has a word and a byte at least: a small file cannot make us keep a large table.
  Result<void> make_room(StreamBlock& block, std::uint64_t pages) const {
    constexpr std::uint64_t least = 9, slack = 1024;
    if (pages > file_.size() / least + slack) return malformed("it is too short for its RAM");
    block.pages.resize(pages);
    return {};
  }

  /// Machine types before 4.0 put the object's whole path.
  static bool is_called(std::string_view name, std::string_view wanted) {
    constexpr std::string_view prefix = "/objects/";
    return name == wanted || (name.starts_with(prefix) && name.substr(prefix.size()) == wanted);
  }

  /// version, page size, where the bitmap is, where the pages are. The bitmap is not read: with
  /// background-snapshot QEMU leaves it empty, and holes of the file are zeros anyway.
  Result<void> mapped_header(Block& block) {
    VMSIGHT_TRY(const std::uint32_t version, number<std::uint32_t>());
    VMSIGHT_TRY(const std::uint64_t size_of_page, number<std::uint64_t>());
    VMSIGHT_TRY_VOID(skip(sizeof(std::uint64_t)));
    VMSIGHT_TRY(const std::uint64_t pages_at, number<std::uint64_t>());
    if (version != 1 || size_of_page != page_size) return malformed("an unknown mapped-ram header");
    if (pages_at < at_ || pages_at > ~std::uint64_t{0} - block.size) {
      return malformed("mapped RAM out of place");
    }
    if (block.into != nullptr) {
      block.into->mapped = true;
      block.into->pages_at = pages_at;
    }
    // Blocks of zeros at the very end need not be in the file.
    at_ = std::min<std::uint64_t>(pages_at + block.size, file_.size());
    return {};
  }

  /// The block that a page belongs to, and that the page is in it.
  Result<Block*> block_of(std::uint64_t flags, std::uint64_t offset) {
    if ((flags & same_block) == 0) {
      VMSIGHT_TRY(const std::string name, short_text());
      const auto block = std::find_if(blocks_.begin(), blocks_.end(),
                                      [&](const Block& b) { return b.name == name; });
      if (block == blocks_.end()) return malformed("a page of an unknown RAM block");
      current_ = static_cast<std::size_t>(block - blocks_.begin());
    }
    if (current_ >= blocks_.size() || offset >= blocks_[current_].size) {
      return malformed("a page outside its RAM block");
    }
    return &blocks_[current_];
  }

  static void put(Block& block, std::uint64_t offset, std::uint64_t position) {
    if (block.into == nullptr) return;
    const std::uint64_t number = offset >> page_shift;
    if (number < block.into->pages.size()) block.into->pages[number] = position;
  }

  Result<void> zero_page(std::uint64_t flags, std::uint64_t offset) {
    VMSIGHT_TRY(Block * block, block_of(flags, offset));
    VMSIGHT_TRY(const std::uint8_t fill, number<std::uint8_t>());
    if (fill != 0) return malformed("a page filled with another byte than zero");
    put(*block, offset, 0);
    return {};
  }

  Result<void> page(std::uint64_t flags, std::uint64_t offset) {
    VMSIGHT_TRY(Block * block, block_of(flags, offset));
    put(*block, offset, at_);
    return skip(page_size);
  }

  const ImageBytes& file_;
  // Words are far apart where pages are between them, and close together where those are zeros.
  std::array<std::byte, 512> window_{};
  std::uint64_t window_at_ = 0, window_size_ = 0;
  std::span<const WantedBlock> wanted_;
  std::vector<StreamBlock> found_;
  std::vector<Block> blocks_;
  std::size_t at_ = 0, current_ = max_blocks;
  std::optional<std::uint32_t> ram_id_;
  bool mapped_ = false, done_ = false, only_list_ = false;
};

}  // namespace

Result<std::vector<StreamBlock>> parse_migration_stream(const ImageBytes& file,
                                                        std::span<const WantedBlock> wanted) {
  return Parser(file, wanted).parse();
}

Result<std::vector<StreamBlock>> parse_migration_stream(std::span<const std::byte> file,
                                                        std::span<const WantedBlock> wanted) {
  return parse_migration_stream(*bytes_in_memory(file), wanted);
}

Result<std::vector<WantedBlock>> blocks_of_migration_stream(const ImageBytes& file) {
  return Parser(file, {}).list();
}

}  // namespace vmsight

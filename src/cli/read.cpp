// vmsight read VM ADDR [LEN]: guest memory.
#include <array>
#include <functional>
#include <vector>

#include "cli/address_argument.h"
#include "cli/attach.h"
#include "render/hexdump.h"
#include "state/user_space.h"
#include "vmsight/reader.h"

namespace vmsight {
namespace {

class Read : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("ADDR", address_, "0xADDRESS, SYMBOL or SYMBOL+0xOFFSET")
        ->group("Arguments")
        ->required();
    app.add_option(
           "LEN", length_,
           "bytes: 256, 0x100, 64K ... (default 256); more than 16M of a guest that would be "
           "halted for it are read from a snapshot")
        ->group("Arguments");
    app.add_flag("--phys", physical_, "ADDR is guest-physical")->group("Address");
    app.add_option("-p,--pid", pid_, "ADDR is in the user memory of this process")
        ->group("Address")
        ->type_name("PID");
    app.add_flag("--raw", raw_, "the bytes themselves, not a dump")->group(format_group);
  }

  Result<void> run(Session& session) override {
    VMSIGHT_TRY(const std::uint64_t length, parse_size(length_));
    if (physical_ && pid_) return usage_error("read: --phys and --pid exclude each other");
    if (session.common.json) return usage_error("read: there is no --json", "use --raw for bytes");
    session.common.wish.copy = length > max_copied;
    if (physical_) return read_physical(session, length);
    return with_guest(session.common, [&](Guest& guest) -> Result<void> {
      AddressSpace space = guest.kernel->space();
      if (pid_) {
        VMSIGHT_TRY(space, user_space_of(*guest.kernel, *guest.memory, *pid_));
      }
      VMSIGHT_TRY(const GuestVirt from, parse_virtual(*guest.kernel, address_));
      Reader reader(*guest.memory, space);
      return show(session.out, guest, from.raw(), length, "gva",
                  [&](std::uint64_t at, std::span<std::byte> into) {
                    return reader.copy(GuestVirt(at), into);
                  });
    });
  }

 private:
  /// Needs no kernel.
  Result<void> read_physical(Session& session, std::uint64_t length) {
    const auto from = parse_unsigned(address_);
    if (!from) return usage_error("read: '" + address_ + "' is not a guest-physical address");
    VMSIGHT_TRY(Guest guest, open_named_memory(session.common));
    VMSIGHT_TRY_VOID(enter_sandbox_for(guest, session.common));
    return show(session.out, guest, *from, length, "gpa",
                [&](std::uint64_t at, std::span<std::byte> into) {
                  return copy_phys(*guest.memory, GuestPhys(at), into);
                });
  }

  using Copy = std::function<std::size_t(std::uint64_t at, std::span<std::byte> into)>;

  /// A halted guest is copied from first, and shown when it runs again. Much is never read from a
  /// halted guest, but piece by piece from a copy.
  Result<void> show(Output& out, Guest& guest, std::uint64_t from, std::uint64_t length,
                    const char* space, const Copy& copy) const {
    if (length > max_copied) {
      return in_one_view(*guest.memory, [&] { return print(out, from, length, space, copy); });
    }
    std::vector<std::byte> bytes(length);
    VMSIGHT_TRY_VOID(in_one_view(*guest.memory, [&]() -> Result<void> {
      bytes.resize(copy(from, bytes));
      return {};
    }));
    return print(out, from, length, space,
                 [&](std::uint64_t at, std::span<std::byte> into) -> std::size_t {
                   const auto rest =
                       std::span(bytes).subspan(std::min<std::size_t>(at - from, bytes.size()));
                   const std::size_t size = std::min(rest.size(), into.size());
                   std::copy_n(rest.begin(), size, into.begin());
                   return size;
                 });
  }

  /// Piece by piece, up to the first byte that cannot be read.
  Result<void> print(Output& out, std::uint64_t from, std::uint64_t length, const char* space,
                     const Copy& copy) const {
    std::array<std::byte, page_size> buffer;
    HexDump dump(out, from);
    for (std::uint64_t done = 0; done < length && !out.failed();) {
      const auto piece = std::span(buffer).first(std::min<std::uint64_t>(page_size, length - done));
      const std::size_t got = copy(from + done, piece);
      if (raw_)
        out.write({reinterpret_cast<const char*>(piece.data()), got});
      else
        dump.add(piece.first(got));
      done += got;
      if (got == piece.size()) continue;
      if (!raw_ && done > 0) dump.finish();
      return Error{
          .code = ErrorCode::fault,
          .message = fmt::format("read {}:{:#x}: not mapped or not RAM", space, from + done),
          .hint =
              "addresses are the kernel's; --pid PID: of a process; --phys: "
              "guest-physical, as `vmsight info VM` shows them",
          .address = from + done};
    }
    if (!raw_) dump.finish();
    return {};
  }

  static constexpr std::uint64_t max_copied = 16u << 20;

  std::string address_, length_ = "256";
  bool physical_ = false, raw_ = false;
  std::optional<std::int32_t> pid_;
};

}  // namespace

extern const VerbInfo read_verb{
    .name = "read",
    .group = "Memory, symbols and types",
    .arguments = "VM ADDR [LEN] [options]",
    .summary = "Guest memory as a hex dump, or raw",
    .examples =
        "  vmsight read web1 linux_banner 128\n"
        "  vmsight read web1 --phys 0x100000 1M --raw > low-memory.bin\n",
    .refuses = "--json",
    .make = make_verb<Read>,
};

}  // namespace vmsight

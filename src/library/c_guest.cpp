// vmsight.h: finding VMs, attaching, memory, symbols and types.
#include "library/c_guest.h"

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "kernel/find_symbol.h"
#include "kernel/type_expression.h"
#include "kernel/type_print.h"
#include "library/c_errors.h"
#include "render/json.h"
#include "state/user_space.h"
#include "vmsight/reader.h"
#include "vmsight/view.h"

using namespace vmsight;

namespace {

AttachOptions options_of(const vmsight_attach_options& from) {
  AttachOptions to;
  if (from.technique != nullptr) to.technique = from.technique;
  if (from.kernel != nullptr) to.kernel = from.kernel;
  to.cache_directory =
      from.cache_directory != nullptr ? from.cache_directory : default_cache_directory();
  to.wish.consistent = from.consistent != 0;
  to.wish.no_pause = from.no_pause != 0;
  to.proves_states = !to.wish.no_pause;  // what is read otherwise must be of one moment, too
  to.wish.no_injection = from.no_injection != 0;
  if (from.max_halt_ms != 0) to.wish.max_halt = std::chrono::milliseconds(from.max_halt_ms);
  to.sandbox = from.sandbox != 0;
  to.image.absent_is_zero = from.absent_is_zero != 0;
  if (from.progress != nullptr) {
    to.progress = [call = from.progress, context = from.context](std::string_view what) {
      call(std::string(what).c_str(), context);
    };
  }
  return to;
}

Result<vmsight_guest*> attach_to(const char* vm, const vmsight_attach_options* options) {
  VMSIGHT_TRY_VOID(c::needed(vm, "vm"));
  auto made = std::make_unique<vmsight_guest>();
  VMSIGHT_TRY(const auto taken, c::take(options));
  made->options = options_of(taken);
  VMSIGHT_TRY(made->guest, attach(vm, made->options));
  if (!made->options.cache_directory.empty())
    static_cast<void>(made->guest.kernel->save_cache());  // for the next one
  made->technique = made->guest.memory->technique();
  made->options.progress = nullptr;  // its context need not live longer
  return made.release();
}

/// In the view that was begun, or in one of its own.
Result<void> in_view(vmsight_guest& guest, const std::function<Result<void>()>& use) {
  return guest.view ? use() : in_one_view(*guest.guest.memory, use);
}

Result<std::int64_t> read_virtual(vmsight_guest& guest, vmsight_space space, std::int32_t pid,
                                  GuestVirt from, std::span<std::byte> into) {
  Guest& of = guest.guest;
  AddressSpace addresses = of.kernel->space();
  if (space == VMSIGHT_PROCESS) {
    VMSIGHT_TRY(addresses, user_space_of(*of.kernel, *of.memory, pid));
  }
  Reader reader(*of.memory, addresses);
  return static_cast<std::int64_t>(reader.copy(from, into));
}

Result<std::int64_t> read(vmsight_guest& guest, vmsight_space space, std::int32_t pid,
                          std::uint64_t address, std::span<std::byte> into) {
  std::int64_t done = 0;
  auto read = in_view(guest, [&]() -> Result<void> {
    if (space == VMSIGHT_PHYSICAL) {
      done = static_cast<std::int64_t>(copy_phys(*guest.guest.memory, GuestPhys(address), into));
      return guest.guest.memory->health();
    }
    VMSIGHT_TRY(done, read_virtual(guest, space, pid, GuestVirt(address), into));
    return guest.guest.memory->health();
  });
  if (!read) return guest.guest.explain(std::move(read).error());
  return done;
}

Error not_in_kernel(std::string_view what, std::string_view name) {
  return {.code = ErrorCode::not_found,
          .message = fmt::format("no {} '{}' in the guest's kernel", what, name)};
}

Result<int> done(const Result<void>& result) {
  if (!result) return result.error();
  return 0;
}

}  // namespace

void vmsight_free(void* text) { std::free(text); }

int vmsight_survive_lost_memory(vmsight_error* error) {
  return c::guarded(error, -1, [] { return done(survive_lost_memory()); });
}

int vmsight_list(void (*each)(const vmsight_vm*, void*), void* context, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY(const VmList list, list_vms());
    for (const VmInfo& info : list.vms) {
      const std::string accelerator(to_string(info.accelerator));
      const vmsight_vm vm{.size = sizeof vm,
                          .name = info.name.c_str(),
                          .uuid = info.uuid.c_str(),
                          .accelerator = accelerator.c_str(),
                          .machine = info.machine.c_str(),
                          .pid = info.pid,
                          .vcpus = info.vcpus,
                          .memory_bytes = info.memory_bytes};
      if (each != nullptr) each(&vm, context);
    }
    return static_cast<int>(list.vms.size());
  });
}

vmsight_guest* vmsight_attach(const char* vm, const vmsight_attach_options* options,
                              vmsight_error* error) {
  return c::guarded(error, static_cast<vmsight_guest*>(nullptr),
                    [&] { return attach_to(vm, options); });
}

void vmsight_detach(vmsight_guest* guest) {
  if (guest == nullptr) return;
  guest->view.reset();
  guest->reader.reset();
  delete guest;
}

int vmsight_info(vmsight_guest* guest, vmsight_guest_info* info, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    const Guest& of = guest->guest;
    return c::give(info, {.size = 0,
                          .name = of.name.c_str(),
                          .technique = guest->technique.c_str(),
                          .banner = of.kernel->banner().c_str(),
                          .build_id = of.kernel->build_id().c_str(),
                          .pid = of.vm ? of.vm->info().pid : 0,
                          .memory_bytes = of.ram().total_bytes()});
  });
}

int vmsight_find_kernel_again(vmsight_guest* guest, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    guest->view.reset();
    guest->reader.reset();
    return done(find_kernel_of(guest->guest, guest->options));
  });
}

std::int64_t vmsight_read(vmsight_guest* guest, vmsight_space space, std::int32_t pid,
                          std::uint64_t address, void* into, std::size_t bytes,
                          vmsight_error* error) {
  return c::guarded(error, std::int64_t{-1}, [&]() -> Result<std::int64_t> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    if (bytes != 0) VMSIGHT_TRY_VOID(c::needed(into, "into"));
    if (space != VMSIGHT_KERNEL && space != VMSIGHT_PHYSICAL && space != VMSIGHT_PROCESS)
      return c::wrong("read: there is no such space of addresses");
    return read(*guest, space, pid, address, {static_cast<std::byte*>(into), bytes});
  });
}

int vmsight_begin_view(vmsight_guest* guest, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    if (guest->view) return Error{.code = ErrorCode::usage, .message = "a view has begun already"};
    VMSIGHT_TRY(View view, View::begin(*guest->guest.memory));
    guest->view.emplace(std::move(view));
    return 0;
  });
}

int vmsight_end_view(vmsight_guest* guest, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    if (!guest->view) return Error{.code = ErrorCode::usage, .message = "no view has begun"};
    const auto ended = guest->view->end();
    guest->view.reset();
    return done(ended);
  });
}

int vmsight_symbol(vmsight_guest* guest, const char* name, std::uint64_t* address,
                   vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(name, "name"));
    VMSIGHT_TRY_VOID(c::needed(address, "address"));
    VMSIGHT_TRY(const GuestVirt found, find_symbol(*guest->guest.kernel, name));
    *address = found.raw();
    return 0;
  });
}

int vmsight_symbol_at(vmsight_guest* guest, std::uint64_t address, vmsight_place* place,
                      vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    const auto found = guest->guest.kernel->locate(GuestVirt(address));
    if (!found) return not_in_kernel("symbol at", fmt::format("{:#x}", address));
    guest->name = found->name;
    guest->module = found->module;
    return c::give(place, {.size = 0,
                           .name = guest->name.c_str(),
                           .module = guest->module.c_str(),
                           .offset = found->offset});
  });
}

int vmsight_member_of(vmsight_guest* guest, const char* type, const char* path,
                      vmsight_member* member, vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(type, "type"));
    VMSIGHT_TRY_VOID(c::needed(path, "path"));
    const auto found = guest->guest.kernel->member(type, path);
    if (!found) return not_in_kernel("member", fmt::format("{}.{}", type, path));
    return c::give(member, {.size = 0,
                            .offset = found->offset,
                            .bytes = found->size,
                            .count = found->count,
                            .bit_offset = found->bit_offset,
                            .bit_size = found->bit_size});
  });
}

std::int64_t vmsight_size_of(vmsight_guest* guest, const char* type, vmsight_error* error) {
  return c::guarded(error, std::int64_t{-1}, [&]() -> Result<std::int64_t> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(type, "type"));
    const auto size = guest->guest.kernel->type_size(type);
    if (!size) return not_in_kernel("type", type);
    return static_cast<std::int64_t>(*size);
  });
}

int vmsight_enumerator(vmsight_guest* guest, const char* name, std::int64_t* value,
                       vmsight_error* error) {
  return c::guarded(error, -1, [&]() -> Result<int> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(name, "name"));
    VMSIGHT_TRY_VOID(c::needed(value, "value"));
    const auto found = guest->guest.kernel->enumerator(name);
    if (!found) return not_in_kernel("enumerator", name);
    *value = *found;
    return 0;
  });
}

char* vmsight_type_json(vmsight_guest* guest, const char* type, vmsight_error* error) {
  return c::guarded(error, static_cast<char*>(nullptr), [&]() -> Result<char*> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(type, "type"));
    VMSIGHT_TRY(const Btf* btf, types_of_expression(*guest->guest.kernel, type));
    VMSIGHT_TRY(const Json json, type_to_json(*btf, without_module(type)));
    return c::text(dump(json));
  });
}

char* vmsight_print_json(vmsight_guest* guest, const char* expression, vmsight_error* error) {
  return c::guarded(error, static_cast<char*>(nullptr), [&]() -> Result<char*> {
    VMSIGHT_TRY_VOID(c::needed(guest, "guest"));
    VMSIGHT_TRY_VOID(c::needed(expression, "expression"));
    Guest& of = guest->guest;
    Reader reader(*of.memory, of.kernel->space());
    PrintRequest request;
    request.expression = expression;
    std::optional<Printed> printed;
    VMSIGHT_TRY_VOID(in_view(*guest, [&]() -> Result<void> {
      VMSIGHT_TRY(printed, evaluate(*of.kernel, reader, request));
      return {};
    }));
    return c::text(dump(to_json(*printed)));
  });
}

// A BTF blob of the guest: parsed, asked everything, printed, and values read by its types.
//
// Input: a byte (odd: split BTF on a small base), then the blob.
#include <nlohmann/json.hpp>

#include "kernel/type_print.h"
#include "support/btf_builder.h"
#include "support/fuzz_input.h"
#include "support/typed_kernel.h"

namespace {

using namespace vmsight;
using test::BtfBuilder;
using test::TypedKernel;

constexpr TypeId max_types = 16;  // of one input, to print and read

struct Base {
  Base() {
    BtfBuilder b;
    const TypeId integer = b.integer("int", 4, 1);
    b.structure("base", 8, {{"x", integer, 0}, {"y", b.pointer(integer), 0}});
    b.enumeration("e", {{"E", 1}}, false);
    auto parsed = Btf::parse(b.blob());
    VMSIGHT_CHECK(parsed.has_value());
    btf = *std::move(parsed);
  }
  std::unique_ptr<Btf> btf;
};

void ask(const Btf& btf, TypeId id) {
  const BtfType type = btf.type(id);
  static_cast<void>(btf.size_of(id));
  static_cast<void>(btf.resolve(id));
  static_cast<void>(btf.member(id, "x"));
  static_cast<void>(btf.member(id, "x[1].y"));
  for (std::uint32_t i = 0; i < type.count && i < 4; ++i) {
    if (type.is_composite()) static_cast<void>(btf.member(id, btf.member_at(type, i).name));
    if (type.is_enum()) static_cast<void>(btf.enumerator(btf.enumerator_at(type, i).name));
  }
  if (type.name.empty()) return;
  static_cast<void>(btf.find(type.name, type.kind));
  static_cast<void>(print_type(btf, type.name));
  if (auto json = type_to_json(btf, type.name)) static_cast<void>(json->dump());
}

void print_values(std::unique_ptr<Btf> btf) {
  static test::SyntheticGuest guest({.ram = {{GuestPhys(0), 16u << 20}},
                                     .image_phys = GuestPhys(2u << 20),
                                     .image_size = 2u << 20});
  const TypeId end = std::min(btf->end_id(), btf->first_id() + max_types);
  const TypeId first = btf->first_id();
  std::vector<std::string> names;
  for (TypeId id = first; id < end; ++id) names.emplace_back(btf->type(id).name);
  TypedKernel kernel(guest.space(), std::move(btf));
  Reader reader(guest.memory(), kernel.space());
  for (const std::string& name : names) {
    PrintRequest request{.expression = name, .address = guest.image(4096), .depth = 8};
    auto printed = evaluate(kernel, reader, request);
    if (!printed) continue;
    static_cast<void>(to_text(*printed));
    static_cast<void>(to_json(*printed).dump());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Base base;
  test::FuzzInput input(data, size);
  const bool split = (input.take<std::uint8_t>() & 1) != 0;
  const auto bytes = input.take_rest();
  auto btf = Btf::parse({bytes.begin(), bytes.end()}, split ? base.btf.get() : nullptr);
  if (!btf) return 0;
  for (TypeId id = 0; id < (*btf)->end_id() && id < max_types; ++id) ask(**btf, id);
  print_values(*std::move(btf));
  return 0;
}

#include "probe/arguments.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <algorithm>
#include <cstring>

#include "kernel/architecture.h"
#include "kernel/guest_text.h"
#include "kernel/type_print.h"
#include "probe/expression.h"
#include "probe/system_calls.h"

namespace vmsight {
namespace {

using Shape = ArgumentPlan::Shape;
using What = ProbeFetch::What;

constexpr std::size_t max_arguments = 16;
constexpr std::size_t max_enumerators = 4096;

/// Pointers to these say more with a name beside them: members on the way to a string.
struct Label {
  std::string_view type;
  std::array<std::string_view, 2> pointers;  // "TYPE.member" to follow; "" for none
  std::string_view text;                     // a pointer to a string
};
constexpr Label labels[] = {
    {"filename", {}, "filename.name"},
    {"qstr", {}, "qstr.name"},
    {"dentry", {}, "dentry.d_name.name"},
    {"file", {"file.f_path.dentry"}, "dentry.d_name.name"},
    {"path", {"path.dentry"}, "dentry.d_name.name"},
    {"linux_binprm", {}, "linux_binprm.filename"},
};
constexpr std::pair<std::string_view, std::string_view> inline_labels[] = {
    {"task_struct", "comm"},
    {"net_device", "name"},
    {"module", "name"},
};

/// Numbers behind pointers to these that are worth an argument of their own, behind the real ones.
struct Inner {
  std::string_view type, member;
  FlagKind flags;
};
constexpr Inner inner_numbers[] = {
    {"open_how", "flags", FlagKind::open_flags},
    {"ksignal", "sig", FlagKind::signal},
    {"kernel_clone_args", "flags", FlagKind::clone_flags},
};

/// Results of system calls that are addresses.
constexpr std::string_view address_calls[] = {"brk", "mmap", "mremap", "shmat"};

/// Where the calling convention puts arguments, one after the other.
class Places {
 public:
  explicit Places(const Architecture& architecture)
      : architecture_(architecture), stack_(architecture.first_stack_argument) {}

  /// The next 8 bytes of class INTEGER, or `size` bytes of memory.
  ProbeFetch next() {
    if (!has_registers(1)) return on_stack(8);
    return {.base = architecture_.argument_registers[used_++]};
  }
  bool has_registers(std::size_t count) const {
    return used_ + count <= architecture_.argument_registers.size();
  }
  ProbeFetch on_stack(std::uint64_t size) {
    ProbeFetch fetch{.base = architecture_.stack_register, .step_count = 1, .steps = {stack_}};
    stack_ += static_cast<std::int32_t>((size + 7) / 8 * 8);
    return fetch;
  }

 private:
  const Architecture& architecture_;
  std::size_t used_ = 0;
  std::int32_t stack_;  // of the next argument there
};

class Planner {
 public:
  Planner(Kernel& kernel, const Btf& btf, FunctionPlan& plan)
      : kernel_(kernel), architecture_(kernel.space().architecture()), btf_(btf), plan_(plan) {}

  void plan(const BtfType& prototype) {
    plan_.btf = &btf_;
    Places places(architecture_);
    for (std::uint32_t i = 0; i < prototype.count && i < max_arguments; ++i) {
      const BtfParameter parameter = btf_.parameter_at(prototype, i);
      if (parameter.type == 0) break;  // "..."
      add(parameter, places);
    }
    const std::size_t count = plan_.arguments.size();
    for (std::size_t i = 0; i < count; ++i) add_inner(i);
    add_result(prototype.target);
  }

  /// By the type alone; fetches are not made yet.
  ArgumentPlan shape_of(TypeId id) const {
    ArgumentPlan argument{
        .name = {}, .type = type_name(btf_, id), .type_id = id, .label = {}, .problem = {}};
    const BtfType type = btf_.resolve(id);
    argument.bits =
        static_cast<std::uint8_t>(std::min<std::uint64_t>(btf_.size_of(id).value_or(8), 8) * 8);
    if (argument.bits == 0) argument.bits = 64;
    if (type.kind == BtfKind::pointer) {
      const bool text = is_const_char(type.target);
      argument.shape = text ? Shape::text : Shape::pointer;
      const BtfType target = btf_.resolve(type.target);
      if (target.is_composite()) argument.pointee = target.id;
      if (target.is_composite() && target.count > 0 && !target.name.empty()) {
        argument.structure = type_name(btf_, target.id);
      }
    } else if (type.is_enum()) {
      argument.shape = Shape::enumerator;
      argument.is_signed = type.flag;
    } else if (type.kind == BtfKind::integer) {
      const BtfInteger integer = btf_.integer(type);
      argument.is_signed = integer.is_signed;
      argument.shape = integer.is_bool ? Shape::boolean : Shape::number;
      if (argument.type == "umode_t") argument.shape = Shape::octal;
      if (type.size > 8) argument = opaque(std::move(argument), "a number of 16 bytes");
    } else {
      argument = opaque(std::move(argument), "passed by value");
    }
    return argument;
  }

 private:
  static ArgumentPlan opaque(ArgumentPlan argument, std::string why) {
    argument.shape = Shape::opaque;
    argument.problem = std::move(why);
    return argument;
  }

  void add(const BtfParameter& parameter, Places& places) {
    ArgumentPlan argument = shape_of(parameter.type);
    argument.name = parameter.name.empty() ? fmt::format("arg{}", plan_.arguments.size())
                                           : escape_bytes(parameter.name);
    argument.flags = function_flags(plan_.name, argument.name, argument.type);
    ProbeFetch fetch = place(parameter.type, places, argument);
    if (argument.shape == Shape::number && argument.name.find("flags") != std::string::npos) {
      argument.shape = Shape::hexadecimal;
    }
    if (argument.shape == Shape::text) fetch.what = What::string, fetch.size = max_argument_text;
    argument.value = plan_.fetches.size();
    plan_.fetches.push_back(fetch);
    if (argument.pointee != 0) add_label(argument, fetch);
    plan_.arguments.push_back(std::move(argument));
  }

  /// SysV psABI, 3.2.3: up to 16 bytes of integers go in registers, all or none; what is larger
  /// stands on the stack.
  ProbeFetch place(TypeId id, Places& places, ArgumentPlan& argument) const {
    const std::uint64_t size = btf_.size_of(id).value_or(8);
    if (size <= 8) {
      if (btf_.resolve(id).is_composite()) {
        argument.shape = Shape::hexadecimal;  // its bytes
        argument.problem = {};
      }
      return places.next();
    }
    argument.problem = fmt::format("{} bytes passed by value", size);
    if (size > 16 || !places.has_registers(2)) return places.on_stack(size);
    const ProbeFetch first = places.next();
    static_cast<void>(places.next());
    return first;
  }

  void add_result(TypeId id) {
    if (btf_.resolve(id).kind == BtfKind::void_type) return;
    ArgumentPlan result = shape_of(id);
    result.name = "retval";
    ProbeFetch fetch{.base = architecture_.result_register};
    if (result.shape == Shape::text) fetch.what = What::string, fetch.size = max_argument_text;
    plan_.fetches_return.push_back(fetch);
    plan_.result = std::move(result);
  }

  bool is_const_char(TypeId id) const {
    bool is_const = false;
    for (unsigned i = 0; i < 8; ++i) {
      const BtfType type = btf_.type(id);
      if (type.kind == BtfKind::const_type) is_const = true;
      if (type.kind == BtfKind::integer) return is_const && type.size == 1 && type.name == "char";
      if (type.kind != BtfKind::const_type && type.kind != BtfKind::typedef_name &&
          type.kind != BtfKind::type_tag && type.kind != BtfKind::volatile_type) {
        return false;
      }
      id = type.target;
    }
    return false;
  }

  std::optional<std::int32_t> offset_of(std::string_view path) const {
    const std::size_t dot = path.find('.');
    const auto member = kernel_.member(path.substr(0, dot), path.substr(dot + 1));
    if (!member) return std::nullopt;
    return static_cast<std::int32_t>(member->offset);
  }

  void add_label(ArgumentPlan& argument, ProbeFetch fetch) {
    const std::string_view type = btf_.type(argument.pointee).name;
    if (fetch.step_count != 0) return;  // one on the stack has no room for more steps
    fetch.what = What::string;
    fetch.size = max_argument_text;
    for (const Label& label : labels) {
      if (label.type != type) continue;
      for (const std::string_view pointer : label.pointers) {
        if (pointer.empty()) continue;
        const auto offset = offset_of(pointer);
        if (!offset) return;
        fetch.steps[fetch.step_count++] = *offset;
      }
      const auto offset = offset_of(label.text);
      if (!offset) return;
      fetch.steps[fetch.step_count++] = *offset;
      return keep_label(argument, fetch);
    }
    for (const auto& [name, member] : inline_labels) {
      if (name != type) continue;
      const auto place = kernel_.member(name, member);
      if (!place) return;
      fetch.offset = static_cast<std::int32_t>(place->offset);
      fetch.size =
          static_cast<std::uint16_t>(std::min<std::uint32_t>(place->size, max_argument_text));
      return keep_label(argument, fetch);
    }
  }

  void add_inner(std::size_t index) {
    const ArgumentPlan outer = plan_.arguments[index];
    const std::string_view type = outer.pointee == 0 ? "" : btf_.type(outer.pointee).name;
    for (const Inner& inner : inner_numbers) {
      const auto member =
          inner.type == type ? kernel_.member(inner.type, inner.member) : std::nullopt;
      ProbeFetch fetch = plan_.fetches[outer.value];
      if (!member || fetch.step_count != 0 || plan_.arguments.size() >= max_arguments) continue;
      fetch.steps[fetch.step_count++] = static_cast<std::int32_t>(member->offset);
      const auto bits = static_cast<std::uint8_t>(std::min<std::uint32_t>(member->size, 8) * 8);
      plan_.arguments.push_back({.name = fmt::format("{}.{}", outer.name, inner.member),
                                 .type = bits == 64 ? "u64" : "int",
                                 .shape = Shape::number,
                                 .bits = bits,
                                 .is_signed = bits != 64,
                                 .value = plan_.fetches.size(),
                                 .label = {},
                                 .problem = {},
                                 .flags = inner.flags});
      plan_.fetches.push_back(fetch);
    }
  }

  void keep_label(ArgumentPlan& argument, const ProbeFetch& fetch) {
    argument.label = plan_.fetches.size();
    plan_.fetches.push_back(fetch);
  }

  Kernel& kernel_;
  const Architecture& architecture_;
  const Btf& btf_;
  FunctionPlan& plan_;
};

void plan_registers(const Architecture& architecture, FunctionPlan& plan, std::uint8_t texts = 0) {
  for (std::size_t i = 0; i < architecture.argument_registers.size(); ++i) {
    const bool is_text = (texts >> i & 1) != 0;
    plan.arguments.push_back({.name = fmt::format("arg{}", i),
                              .type = {},
                              .shape = is_text ? Shape::text : Shape::hexadecimal,
                              .value = plan.fetches.size(),
                              .label = {},
                              .problem = {}});
    ProbeFetch fetch{.base = architecture.argument_registers[i]};
    if (is_text) fetch.what = ProbeFetch::What::string, fetch.size = max_argument_text;
    plan.fetches.push_back(fetch);
  }
  plan.fetches_return.push_back({.base = architecture.result_register});
  plan.result = ArgumentPlan{.name = "retval", .type = {}, .label = {}, .problem = {}};
}

/// The kernel's system calls tell their arguments by text.
ArgumentPlan shape_of_text(const Planner* planner, const Btf* btf, const std::string& type) {
  ArgumentPlan argument{.name = {}, .type = type, .label = {}, .problem = {}};
  if (type.find('*') != type.npos) {
    const bool text = type.starts_with("const char") && type.find('*') == type.rfind('*');
    argument.shape = text ? Shape::text : Shape::pointer;
    return argument;
  }
  if (planner != nullptr) {
    if (const auto id = btf->find_type(type); id && !btf->resolve(*id).is_composite()) {
      ArgumentPlan found = planner->shape_of(*id);
      found.type = type;
      if (type == "umode_t") found.shape = Shape::octal;
      return found;
    }
  }
  argument.shape = Shape::number;
  argument.is_signed = type.find("unsigned") == type.npos;
  argument.bits = type.find("long") == type.npos && type.find("int") != type.npos ? 32 : 64;
  return argument;
}

/// The kernel declares many of them as unsigned int; programs pass an int, and -1 often.
bool is_descriptor(std::string_view call, const ArgumentPlan& argument) {
  constexpr std::string_view names[] = {"fd", "fildes", "oldfd", "newfd"};
  return argument.shape == Shape::number && argument.type.starts_with("unsigned") &&
         call != "close_range" &&  // its bounds are unsigned: ~0U is the last of all
         std::find(std::begin(names), std::end(names), argument.name) != std::end(names);
}

/// Behind the pointer of a successful execve() is another program's memory when it returns.
bool leaves_memory(std::string_view call) { return call == "execve" || call == "execveat"; }

void add_user_value(ArgumentPlan& argument, ProbeFetch fetch, FunctionPlan& plan) {
  if (argument.shape == Shape::text && !leaves_memory(plan.name)) {
    fetch.from_entry = true;
    argument.again = plan.fetches_return.size();
    plan.fetches_return.push_back(fetch);
  }
  if (argument.user == nullptr) return;
  if (argument.user->kind == UserValue::task_name) {  // given by one option, filled by another
    const ProbeFetch name = user_fetches(UserValue::task_name, fetch).front();
    argument.pointed = {plan.fetches.size(), plan.fetches_return.size()};
    plan.fetches.push_back(name);
    plan.fetches_return.push_back(name);
    plan.fetches_return.back().from_entry = true;
    return;
  }
  auto& into = is_filled(argument.user->kind) ? plan.fetches_return : plan.fetches;
  for (const ProbeFetch& one : user_fetches(argument.user->kind, fetch)) {
    argument.pointed.push_back(into.size());
    into.push_back(one);
  }
}

bool plan_system_call(Kernel& kernel, Reader& reader, const Btf* btf, FunctionPlan& plan) {
  auto call = read_system_call(kernel, reader, plan.name);
  if (!call) return false;
  plan.name = call->name;
  plan.abi = call->abi;
  plan.system_call = call->number;
  plan.flag_rules = flag_rules(plan.name);
  const Architecture& architecture = kernel.space().architecture();
  const std::uint8_t registers = architecture.argument_registers[0];      // points to the caller's
  plan.fetches_return.push_back({.base = architecture.result_register});  // the result is the first
  plan.btf = btf;
  std::optional<Planner> planner;
  if (btf != nullptr) planner.emplace(kernel, *btf, plan);
  for (std::size_t i = 0; i < call->arguments.size(); ++i) {
    SystemCall::Argument& told = call->arguments[i];
    ArgumentPlan argument = shape_of_text(planner ? &*planner : nullptr, btf, told.type);
    argument.name = std::move(told.name);
    if (plan.abi == "i386") argument.bits = std::min<std::uint8_t>(argument.bits, 32);
    if (is_descriptor(plan.name, argument)) argument.is_signed = true, argument.bits = 32;
    if (argument.shape == Shape::number && argument.name.find("flags") != std::string::npos) {
      argument.shape = Shape::hexadecimal;
    }
    ProbeFetch fetch{.base = registers, .step_count = 1, .steps = {told.offset}};
    argument.user = user_rule(plan.name, i);
    if (!plan.abi.empty() && argument.user != nullptr && argument.user->kind == UserValue::strings)
      argument.user = nullptr;  // pointers of half the size
    if (argument.user != nullptr && argument.user->kind != UserValue::task_name)
      argument.shape = Shape::pointer;
    if (argument.shape == Shape::text) fetch.what = What::string, fetch.size = max_argument_text;
    argument.value = plan.fetches.size();
    plan.fetches.push_back(fetch);
    add_user_value(argument, fetch, plan);
    plan.arguments.push_back(std::move(argument));
  }
  if (call->number_offset) {
    plan.number = plan.fetches.size();
    plan.fetches.push_back({.base = registers, .step_count = 1, .steps = {*call->number_offset}});
  }
  const bool address = std::find(std::begin(address_calls), std::end(address_calls), plan.name) !=
                       std::end(address_calls);
  plan.result = ArgumentPlan{.name = "retval",
                             .type = "long",
                             .shape = address ? Shape::hexadecimal : Shape::number,
                             .is_signed = true,
                             .label = {},
                             .problem = {}};
  if (plan.name == "umask") plan.result->flags = FlagKind::octal;
  return true;
}

const Btf* types_for(Kernel& kernel, const ProbeSite& site) {
  auto types = site.module.empty() ? kernel.btf() : kernel.btf_of(site.module);
  return types ? *types : nullptr;
}

std::uint64_t extend(const ArgumentPlan& plan, std::uint64_t value) {
  const unsigned unused = 64u - std::clamp<unsigned>(plan.bits, 1, 64);
  if (plan.is_signed) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << unused) >> unused);
  }
  return value << unused >> unused;
}

std::string enumerator_of(const Btf& btf, const ArgumentPlan& plan, std::uint64_t value) {
  const BtfType type = btf.resolve(plan.type_id);
  for (std::uint32_t i = 0; i < type.count && i < max_enumerators; ++i) {
    const BtfEnumerator named = btf.enumerator_at(type, i);
    if (extend(plan, static_cast<std::uint64_t>(named.value)) == value)
      return escape_bytes(named.name);
  }
  return "";
}

ProbeValue decode(const Btf* btf, const ArgumentPlan& plan, const std::vector<Fetched>& fetched) {
  ProbeValue value{.plan = &plan, .text = {}, .names = {}};
  if (plan.expression) {
    const auto number = plan.expression->evaluate(fetched);
    value.known = value.has_number = number.has_value();
    value.number = number.value_or(0);
    if (value.known && plan.shape == Shape::enumerator && btf != nullptr)
      value.names = enumerator_of(*btf, plan, value.number);
    return value;
  }
  if (plan.value >= fetched.size()) return value;
  const Fetched& from = fetched[plan.value];
  value.known = from.ok;
  value.has_number = from.ok || from.has_value;
  value.number = extend(plan, from.value);
  if (plan.shape == Shape::text && from.ok && from.value != 0) {
    value.text = from.bytes;
    value.cut = from.cut;
  }
  if (plan.label && *plan.label < fetched.size()) {
    const Fetched& label = fetched[*plan.label];
    if (label.ok && label.value != 0) value.text = label.bytes, value.cut = label.cut;
  }
  if (plan.shape == Shape::enumerator && btf != nullptr) {
    value.names = enumerator_of(*btf, plan, value.number);
  }
  if (value.known && plan.flags != FlagKind::none)
    value.names = flag_names(plan.flags, value.number, plan.bits);
  return value;
}

/// Of a system call's arguments some decide what others are.
void apply(std::span<const FlagRule> rules, std::vector<ProbeValue>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (const FlagRule& rule : rules) {
      if (rule.argument != i || !values[i].known) continue;
      if (rule.holds != nullptr) {
        if (rule.other >= values.size() || !values[rule.other].known) continue;
        const ProbeValue& other = values[rule.other];
        const bool is_int = other.plan->bits == 32;
        if (!rule.holds(is_int ? other.number & 0xffffffff : other.number)) continue;
      }
      values[i].unused = rule.kind == FlagKind::unused;
      if (!values[i].text)
        values[i].names = flag_names(rule.kind, values[i].number, values[i].plan->bits);
      break;
    }
  }
}

/// Of prctl(): its first argument says whether a name is given, or asked for.
std::string task_name_text(const ArgumentPlan& plan, const std::vector<ProbeValue>& values,
                           const Hit& hit) {
  const std::uint64_t option = values.front().known ? values.front().number : 0;
  if (option != PR_SET_NAME && option != PR_GET_NAME) return "";
  const bool given = option == PR_SET_NAME;
  const std::vector<Fetched>& from = given ? hit.fetched : hit.fetched_return;
  const std::size_t index = plan.pointed[given ? 0 : 1];
  if (index >= from.size() || !from[index].ok || from[index].value == 0) return "";
  return quote_bytes(from[index].bytes) + (from[index].cut ? "..." : "");
}

std::string pointed_text(const ArgumentPlan& plan, const std::vector<ProbeValue>& values,
                         const Hit& hit) {
  const bool filled = is_filled(plan.user->kind);
  const std::vector<Fetched>& from = filled ? hit.fetched_return : hit.fetched;
  std::vector<const Fetched*> fetched;
  for (const std::size_t index : plan.pointed) {
    if (index >= from.size()) return "";
    fetched.push_back(&from[index]);
  }
  if (!filled) {
    const bool known = plan.user->length < values.size();
    return user_text(plan.user->kind, fetched, known ? values[plan.user->length].number : 0);
  }
  const auto result = static_cast<std::int64_t>(from.empty() || !from[0].ok ? 0 : from[0].value);
  return result < 0 ? "" : user_text(plan.user->kind, fetched, static_cast<std::uint64_t>(result));
}

/// What could not be read at a system call's entry may be there at its return.
void look_again(std::vector<ProbeValue>& values, const Hit& hit) {
  for (ProbeValue& value : values) {
    const ArgumentPlan& plan = *value.plan;
    if (plan.user != nullptr && plan.user->kind == UserValue::task_name) {
      if (std::string name = task_name_text(plan, values, hit); !name.empty())
        value.names = std::move(name);
    } else if (plan.user != nullptr) {
      value.names = pointed_text(plan, values, hit);
    }
    if (value.known || !plan.again || *plan.again >= hit.fetched_return.size()) continue;
    const Fetched& later = hit.fetched_return[*plan.again];
    if (!later.ok || later.value == 0) continue;
    value.known = value.has_number = true;
    value.text = later.bytes;
    value.cut = later.cut;
  }
}

std::string number_text(const ProbeValue& value) {
  if (!value.names.empty()) return value.names;
  const auto as_signed = static_cast<std::int64_t>(value.number);
  switch (value.plan->shape) {
    case Shape::octal:
      return fmt::format("{:#o}", value.number);
    case Shape::boolean:
      return value.number > 1 ? fmt::to_string(value.number) : value.number != 0 ? "true" : "false";
    case Shape::enumerator:
    case Shape::number:
      return value.plan->is_signed ? fmt::to_string(as_signed) : fmt::to_string(value.number);
    case Shape::pointer:
    case Shape::text:
      if (value.number == 0) return "NULL";
      [[fallthrough]];
    default:
      return fmt::format("{:#x}", value.number);
  }
}

}  // namespace

FunctionPlan plan_function(Kernel& kernel, Reader& reader, const ProbeSite& site,
                           std::uint8_t texts) {
  FunctionPlan plan;
  plan.name = site.function;
  if (site.user) {
    plan_registers(kernel.space().architecture(), plan, texts);
    plan.problem = "types of user programs are not known";
    return plan;
  }
  if (site.offset != 0) {
    plan.problem = "arguments are where the convention says only at a function's beginning";
    return plan;
  }
  const Btf* btf = types_for(kernel, site);
  if (plan_system_call(kernel, reader, btf, plan)) return plan;
  const auto function = btf == nullptr ? std::nullopt : btf->find(site.function, BtfKind::function);
  const BtfType prototype = function ? btf->type(btf->type(*function).target) : BtfType{};
  if (prototype.kind == BtfKind::function_proto) {
    Planner(kernel, *btf, plan).plan(prototype);
    return plan;
  }
  plan_registers(kernel.space().architecture(), plan);
  plan.problem = site.function.find('.') != site.function.npos
                     ? "the compiler has changed this copy of the function"
                     : "the guest's BTF does not have this function";
  return plan;
}

FilterNames filter_names(const FunctionPlan& plan, bool at_return) {
  return [&plan, at_return](std::string_view name) -> std::optional<FilterName> {
    using Field = FilterTerm::Field;
    if (at_return && name == "duration") return FilterName{.term = {.field = Field::duration}};
    if (at_return && name == "retval" && plan.result) {
      return FilterName{.term = {.field = Field::fetch_return,
                                 .bits = plan.result->bits,
                                 .is_signed = plan.result->is_signed},
                        .is_typed = !plan.result->type.empty()};
    }
    for (std::size_t i = 0; i < plan.arguments.size(); ++i) {
      const ArgumentPlan& argument = plan.arguments[i];
      if (argument.shape == Shape::opaque || argument.expression) continue;
      const auto index = static_cast<std::uint16_t>(argument.value);
      FilterName numeric{.term = {.field = Field::fetch,
                                  .index = index,
                                  .bits = argument.bits,
                                  .is_signed = argument.is_signed},
                         .is_typed = !argument.type.empty()};
      const bool is_called_so = name == argument.name && argument.type.empty() &&
                                argument.shape == ArgumentPlan::Shape::text;
      if (name == fmt::format("arg{}", i) && !is_called_so) return numeric;
      if (name != argument.name) continue;
      if (argument.shape == Shape::text) {
        FilterName text{.term = {.field = Field::fetch, .index = index}, .is_text = true};
        if (at_return && argument.again)
          text.term.again = static_cast<std::uint16_t>(*argument.again);
        return text;
      }
      if (argument.label) {
        const auto label = static_cast<std::uint16_t>(*argument.label);
        return FilterName{.term = {.field = Field::fetch, .index = label}, .is_text = true};
      }
      return numeric;
    }
    return std::nullopt;
  };
}

std::vector<ProbeValue> decode_arguments(const FunctionPlan& plan, const Hit& hit) {
  std::vector<ProbeValue> values;
  values.reserve(plan.arguments.size());
  for (const ArgumentPlan& argument : plan.arguments) {
    values.push_back(decode(plan.btf, argument, hit.fetched));
  }
  apply(plan.flag_rules, values);
  look_again(values, hit);
  return values;
}

std::optional<ProbeValue> decode_result(const FunctionPlan& plan, const Hit& hit) {
  if (!hit.at_return || !plan.result) return std::nullopt;
  return decode(plan.btf, *plan.result, hit.fetched_return);
}

std::string small_negative(const ProbeValue& value) {
  constexpr std::int64_t least = -4095;  // as of errors
  if (!value.known || !value.plan->type.empty() || value.text) return "";
  auto number = static_cast<std::int64_t>(value.number);
  if (value.number >> 32 == 0) number = static_cast<std::int32_t>(value.number);
  return number < 0 && number >= least ? fmt::to_string(number) : "";
}

std::string error_name(std::uint64_t result) {
  const auto number = static_cast<std::int64_t>(result);
  if (number < -4095 || number >= 0) return "";
  // Programs never see these; include/linux/errno.h.
  switch (-number) {
    case 512:
      return "ERESTARTSYS";
    case 513:
      return "ERESTARTNOINTR";
    case 514:
      return "ERESTARTNOHAND";
    case 516:
      return "ERESTART_RESTARTBLOCK";
    default:
      break;
  }
  const char* name = ::strerrorname_np(static_cast<int>(-number));
  return name == nullptr ? "" : name;
}

std::string to_text(const ProbeValue& value, bool is_result) {
  const ArgumentPlan& plan = *value.plan;
  if (plan.shape == Shape::opaque) return fmt::format("? ({})", plan.problem);
  if (plan.shape == Shape::text) {
    if (value.text) return quote_bytes(*value.text) + (value.cut ? "..." : "");
    if (value.known && value.number == 0) return "NULL";
    // A string that is not there still has an address.
    return value.has_number ? fmt::format("{:#x} (not present)", value.number) : "? (not present)";
  }
  if (!value.known) return "? (not present)";
  const std::string error =
      is_result && (plan.is_signed || plan.shape == Shape::pointer) ? error_name(value.number) : "";
  if (!error.empty() && plan.shape != Shape::pointer) {
    return fmt::format("{} ({})", static_cast<std::int64_t>(value.number), error);
  }
  std::string text = number_text(value);
  if (const std::string negative = small_negative(value); !negative.empty())
    text += fmt::format(" ({})", negative);
  if (value.text) text += " " + quote_bytes(*value.text) + (value.cut ? "..." : "");
  return error.empty() ? text : fmt::format("{} ({})", text, error);
}

}  // namespace vmsight

// Walking one stack by ORC rules. The stack is copied once, from the saved stack pointer to its
// end; everything that is followed must lie in that copy, and the stack pointer may only grow:
// so a forged stack ends the walk and cannot lead it elsewhere.
#include <fmt/format.h>
#include <cstring>

#include "kernel/x86_64/orc.h"

namespace vmsight {
namespace {

constexpr std::size_t max_frames = 256;

class Walk {
 public:
  Walk(Reader& reader, OrcTables& tables)
      : reader_(reader), tables_(tables), layout_(tables.layout()) {}

  /// False if the task has no stack to unwind; `result.stopped` says why.
  bool load(GuestVirt task);
  bool load(GuestVirt task, const StackStart& start);
  void run() {
    while (result.stopped.empty() && !result.complete) step();
  }

  KernelStack result;

 private:
  using Base = OrcRule::Base;
  using Kind = OrcRule::Kind;

  void step();
  bool emit_frame();
  OrcRule rule_here();
  std::optional<std::uint64_t> frame_address(const OrcRule& rule) const;
  std::optional<std::uint64_t> interrupted_register(const Member& member) const;
  bool enter_caller(const OrcRule& rule, std::uint64_t cfa);
  bool enter_regs(const OrcRule& rule, std::uint64_t cfa);
  bool restore_bp(const OrcRule& rule, std::uint64_t cfa);
  void note_user(std::uint64_t regs);
  void stop(std::string_view why) { result.stopped = why; }
  bool fail(std::string_view why) {
    stop(why);
    return false;
  }

  /// A word of the stack.
  std::optional<std::uint64_t> word(std::uint64_t address) const {
    const std::uint64_t offset = address - start_.raw();
    if (address < start_.raw() || offset > bytes_.size() || bytes_.size() - offset < 8) {
      return std::nullopt;
    }
    std::uint64_t value;
    std::memcpy(&value, bytes_.data() + offset, 8);
    return value;
  }
  std::optional<std::uint64_t> word(std::uint64_t base, const Member& member) const {
    return word(base + member.offset);
  }

  Reader& reader_;
  OrcTables& tables_;
  const StackLayout& layout_;
  GuestVirt start_;               // of bytes_
  std::vector<std::byte> bytes_;  // from the saved sp to the end of the stack
  std::uint64_t ip_ = 0, sp_ = 0, bp_ = 0;
  std::uint64_t ip_at_ = 0;   // where ip_ was found
  bool interrupted_ = false;  // ip_ is an interrupted instruction, not a return address
  bool reliable_ = true;
  std::optional<std::uint64_t> regs_;  // full pt_regs of the frame, if an interrupt saved them
};

bool Walk::load(GuestVirt task) {
  const GuestVirt stack = reader_.pointer(task + layout_.stack.offset);
  start_ = reader_.pointer(task + layout_.saved_sp.offset);
  const bool running = reader_.value(task, layout_.on_cpu) != 0;
  if (!reader_.ok()) return false;
  const GuestVirt end = stack + layout_.stack_size;
  if (running) return fail("the task runs on a CPU");
  if (stack.raw() == 0) return fail("the task has no stack any more");
  if (start_ < stack || start_ >= end || end - start_ < layout_.frame_size) {
    return fail("the saved stack pointer is outside the task's stack");
  }
  bytes_.resize(end - start_);
  bytes_.resize(reader_.copy(start_, bytes_));
  reader_.clear_fault();
  ip_at_ = start_.raw() + layout_.frame_return.offset;
  const auto ip = word(ip_at_);
  const auto bp = word(start_.raw(), layout_.frame_bp);
  if (!ip || !bp) return fail("the stack is not readable");
  ip_ = *ip;
  bp_ = *bp;
  sp_ = start_.raw() + layout_.frame_size;
  interrupted_ = ip_ == layout_.fork_start.raw() || ip_ == layout_.fork_start_asm.raw();
  return true;
}

bool Walk::load(GuestVirt task, const StackStart& start) {
  const GuestVirt stack = reader_.pointer(task + layout_.stack.offset);
  if (!reader_.ok()) return false;
  start_ = GuestVirt(start.sp);
  GuestVirt end = stack + layout_.stack_size;
  // On an interrupt's stack: as far as one of that size, which are aligned, can reach.
  if (start_ < stack || start_ >= end) {
    end = GuestVirt((start.sp | (layout_.stack_size - 1)) + 1);
  }
  if (start_ >= end || end - start_ > layout_.stack_size)
    return fail("the stack pointer is nowhere");
  bytes_.resize(end - start_);
  bytes_.resize(reader_.copy(start_, bytes_));
  reader_.clear_fault();
  ip_ = start.ip;
  sp_ = start.sp;
  bp_ = start.bp;
  ip_at_ = start.sp;
  interrupted_ = true;
  return true;
}

void Walk::step() {
  if (!emit_frame()) return;
  const OrcRule rule = rule_here();
  if (rule.kind == Kind::end_of_stack) {
    result.complete = true;
    return;
  }
  if (rule.kind == Kind::undefined) return stop("code without an unwind rule");
  const std::optional<std::uint64_t> cfa = frame_address(rule);
  if (!cfa) return stop("the frame's address is not known");
  const std::uint64_t sp_before = sp_;
  const bool entered = rule.kind == Kind::call ? enter_caller(rule, *cfa) : enter_regs(rule, *cfa);
  if (!entered) return stop("the next frame is outside the stack");
  if (!result.complete && sp_ <= sp_before) stop("the stack pointer does not grow");
}

/// Records the current address if it can be code at all.
bool Walk::emit_frame() {
  const GuestVirt pc(ip_);
  if (!tables_.is_text(pc)) {
    // JIT-compiled BPF, trampolines: executable, but in no table.
    const auto walk = reader_.space().walk(reader_.memory(), pc);
    if (!walk || !walk->executable || walk->user) {
      return fail("a return address that is not code");
    }
  }
  if (result.frames.size() >= max_frames) return fail("too many frames");
  result.frames.push_back({pc, GuestVirt(ip_at_), reliable_});
  return true;
}

OrcRule Walk::rule_here() {
  // A call that does not return may be a function's last instruction: its return address is
  // the next function's. So the rule is that of the call.
  if (const auto rule = tables_.find(reader_, GuestVirt(interrupted_ ? ip_ : ip_ - 1)))
    return *rule;
  // As the kernel does: assume that code without ORC uses a frame pointer.
  reliable_ = false;
  return {Kind::call, Base::bp, Base::previous_sp, 16, -16, false};
}

std::optional<std::uint64_t> Walk::interrupted_register(const Member& member) const {
  return regs_ ? word(*regs_, member) : std::nullopt;
}

std::optional<std::uint64_t> Walk::frame_address(const OrcRule& rule) const {
  const auto offset = static_cast<std::uint64_t>(std::int64_t{rule.sp_offset});
  switch (rule.sp_base) {
    case Base::sp:
      return sp_ + offset;
    case Base::bp:
      return bp_ + offset;
    case Base::bp_indirect:
      return word(bp_ + offset);
    case Base::ax:
      return interrupted_register(layout_.ax);
    case Base::dx:
      return interrupted_register(layout_.dx);
    case Base::di:
      return interrupted_register(layout_.di);
    case Base::r10:
      return interrupted_register(layout_.r10);
    case Base::r13:
      return interrupted_register(layout_.r13);
    // sp_indirect: only where the kernel changes to an IRQ stack; no task sleeps there.
    default:
      return std::nullopt;
  }
}

bool Walk::enter_caller(const OrcRule& rule, std::uint64_t cfa) {
  const auto ip = word(cfa - 8);
  if (!ip || !restore_bp(rule, cfa)) return false;
  ip_ = *ip;
  ip_at_ = cfa - 8;
  sp_ = cfa;
  regs_.reset();
  interrupted_ = rule.interrupted;
  return true;
}

/// The frame holds pt_regs, or only the part that the CPU itself pushes (ip to ss).
bool Walk::enter_regs(const OrcRule& rule, std::uint64_t cfa) {
  const bool full = rule.kind == Kind::regs;
  const std::uint64_t regs = full ? cfa : cfa - layout_.ip.offset;
  const auto ip = word(regs, layout_.ip);
  const auto sp = word(regs, layout_.sp);
  const auto cs = word(regs, layout_.cs);
  if (!ip || !sp || !cs) return false;
  if ((*cs & 3) != 0) {
    if (full) note_user(regs);
    result.complete = true;
    return true;
  }
  if (full) {
    regs_ = regs;
  } else {
    regs_.reset();
  }
  if (!restore_bp(rule, cfa)) return false;
  ip_ = *ip;
  ip_at_ = regs + layout_.ip.offset;
  sp_ = *sp;
  interrupted_ = rule.interrupted;
  return true;
}

bool Walk::restore_bp(const OrcRule& rule, std::uint64_t cfa) {
  const auto offset = static_cast<std::uint64_t>(std::int64_t{rule.bp_offset});
  std::optional<std::uint64_t> bp;
  switch (rule.bp_base) {
    case Base::undefined:
      // Unchanged by the code, unless an interrupt saved it.
      bp = rule.kind == Kind::regs ? interrupted_register(layout_.bp) : bp_;
      break;
    case Base::previous_sp:
      bp = word(cfa + offset);
      break;
    case Base::bp:
      bp = word(bp_ + offset);
      break;
    default:
      return false;
  }
  if (bp) bp_ = *bp;
  return bp.has_value();
}

void Walk::note_user(std::uint64_t regs) {
  result.user_ip = word(regs, layout_.ip);
  result.user_sp = word(regs, layout_.sp);
  // Interrupts and exceptions leave a negative number here.
  const auto number = word(regs, layout_.orig_ax);
  if (number && static_cast<std::int64_t>(*number) >= 0) result.system_call = number;
}

}  // namespace

template <typename... Start>
static Result<KernelStack> walk_stack(Reader& reader, OrcTables& tables, GuestVirt task,
                                      const Start&... start) {
  reader.clear_fault();
  Walk walk(reader, tables);
  const bool loaded = walk.load(task, start...);
  if (!reader.ok()) {
    Error error{ErrorCode::fault, fmt::format("read the task at {}: not mapped", task)};
    error.address = reader.fault()->raw();
    return error;
  }
  if (loaded) walk.run();
  return std::move(walk.result);
}

Result<KernelStack> OrcTables::unwind(Reader& reader, GuestVirt task) {
  return walk_stack(reader, *this, task);
}

Result<KernelStack> OrcTables::unwind(Reader& reader, GuestVirt task, const StackStart& start) {
  return walk_stack(reader, *this, task, start);
}

}  // namespace vmsight

#include "state/task_names.h"

#include <array>

namespace vmsight {

namespace {
constexpr std::size_t comm_size = 16;   // TASK_COMM_LEN
constexpr std::size_t shown_size = 64;  // what proc_task_name() has room for, with its NUL
constexpr std::size_t desc_size = 32;   // WORKER_DESC_LEN
}  // namespace

/// A name as the kernel's scnprintf builds it: cut at 63 bytes.
class TaskNames::Buffer {
 public:
  template <typename... Args>
  void print(std::string_view format, const Args&... args) {
    const auto result =
        fmt::format_to_n(text_.data() + size_, room(), fmt::runtime(format), args...);
    size_ += std::min(room(), result.size);
  }
  void string(Reader& reader, GuestVirt from, std::size_t limit) {
    std::array<char, shown_size> text;
    print("{}", reader.c_string(from, std::span(text).first(std::min(limit, text.size()))));
  }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {text_.data(), size_}; }

 private:
  std::size_t room() const { return shown_size - 1 - size_; }
  std::array<char, shown_size> text_;
  std::size_t size_ = 0;
};

Result<TaskNames> TaskNames::resolve(Kernel& kernel) {
  Members members(kernel);
  TaskNames names;
  names.at_ = {
      .comm = members.offset("task_struct", "comm"),
      // Until 5.16 the kernel kept it in a member that threads of its own do not use.
      .kthread = members.offset("task_struct", {"worker_private", "set_child_tid"}),
      .full_name = members.find("kthread", "full_name"),
      .data = members.find("kthread", "data"),
      .pool = members.find("worker", "pool"),
      .desc = members.find("worker", "desc"),
      .current_work = members.find("worker", "current_work"),
      .id = members.find("worker", "id"),
      .rescue_wq = members.find("worker", "rescue_wq"),
      .pool_cpu = members.find("worker_pool", "cpu"),
      .pool_id = members.find("worker_pool", "id"),
      .pool_attrs = members.find("worker_pool", "attrs"),
      .attrs_nice = members.find("workqueue_attrs", "nice"),
      .wq_name = members.find("workqueue_struct", "name"),
  };
  const Offsets& at = names.at_;
  names.has_workers_ =
      at.data != absent && at.pool != absent && at.desc != absent && at.current_work != absent;
  names.whole_worker_ids_ =
      names.has_workers_ && at.id != absent && at.rescue_wq != absent && at.pool_cpu != absent &&
      at.pool_id != absent && at.pool_attrs != absent && at.attrs_nice != absent &&
      at.wq_name != absent && members.find_symbol("format_worker_id").raw() != 0;
  VMSIGHT_TRY_VOID(members.check());
  return names;
}

std::string_view TaskNames::read(Reader& reader, Arena& arena, GuestVirt task,
                                 std::uint32_t flags) const {
  Buffer name;
  if ((flags & pf_wq_worker) != 0 && has_workers_) {
    append_worker(reader, name, task);
  } else if ((flags & pf_kthread) != 0 && at_.full_name != absent) {
    const GuestVirt kthread = reader.pointer(task + at_.kthread);
    const GuestVirt full =
        kthread.raw() != 0 ? reader.pointer(kthread + at_.full_name) : GuestVirt(0);
    if (full.raw() != 0) name.string(reader, full, shown_size - 1);
  }
  if (name.empty()) name.string(reader, task + at_.comm, comm_size);
  return reader.ok() ? arena.copy(name.view()) : std::string_view{};
}

/// As wq_worker_comm() of kernel/workqueue.c does.
void TaskNames::append_worker(Reader& reader, Buffer& name, GuestVirt task) const {
  const GuestVirt kthread = reader.pointer(task + at_.kthread);
  if (kthread.raw() == 0) return;
  const GuestVirt worker = reader.pointer(kthread + at_.data);
  const GuestVirt pool = reader.pointer(worker + at_.pool);
  if (whole_worker_ids_) {
    append_worker_id(reader, name, worker, pool);
  } else {
    name.string(reader, task + at_.comm, comm_size);
  }
  if (pool.raw() == 0 || reader.u8(worker + at_.desc) == 0) return;
  // What it works on, or ('-') worked on last.
  name.print("{}", reader.u64(worker + at_.current_work) != 0 ? '+' : '-');
  name.string(reader, worker + at_.desc, desc_size);
}

void TaskNames::append_worker_id(Reader& reader, Buffer& name, GuestVirt worker,
                                 GuestVirt pool) const {
  const auto number = [&](GuestVirt at) { return static_cast<std::int32_t>(reader.u32(at)); };
  const GuestVirt rescued = reader.pointer(worker + at_.rescue_wq);
  if (rescued.raw() != 0) {
    name.print("kworker/R-");
    name.string(reader, rescued + at_.wq_name, desc_size);
  } else if (pool.raw() == 0) {
    name.print("kworker/dying");
  } else if (const int cpu = number(pool + at_.pool_cpu); cpu >= 0) {
    const GuestVirt attrs = reader.pointer(pool + at_.pool_attrs);
    name.print("kworker/{}:{}{}", cpu, number(worker + at_.id),
               number(attrs + at_.attrs_nice) < 0 ? "H" : "");
  } else {
    name.print("kworker/u{}:{}", number(pool + at_.pool_id), number(worker + at_.id));
  }
}

}  // namespace vmsight

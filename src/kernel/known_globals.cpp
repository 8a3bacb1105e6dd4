// Types of global variables that people look at. BTF describes per-CPU variables only (and none
// before pahole knew them), so the rest is written down here; a kernel may lack any of them.
#include <algorithm>
#include <array>

#include "kernel/type_print.h"

namespace vmsight {
namespace {

using Global = KnownGlobal;

constexpr Global plain(std::string_view symbol, std::string_view type) { return {symbol, type}; }
constexpr Global pointer(std::string_view symbol, std::string_view type) {
  return {symbol, type, true};
}
constexpr Global per_cpu(std::string_view symbol, std::string_view type, bool is_pointer = false) {
  return {symbol, type, is_pointer, true};
}

constexpr Global array(std::string_view symbol, std::string_view type, std::uint32_t count) {
  return {symbol, type, false, false, count};
}

constexpr std::array globals = {
    // tasks
    plain("init_task", "struct task_struct"),
    plain("init_mm", "struct mm_struct"),
    plain("init_cred", "struct cred"),
    plain("init_files", "struct files_struct"),
    plain("init_fs", "struct fs_struct"),
    plain("init_signals", "struct signal_struct"),
    plain("init_sighand", "struct sighand_struct"),
    plain("root_task_group", "struct task_group"),
    plain("nr_threads", "int"),
    plain("max_threads", "int"),
    plain("total_forks", "long unsigned int"),
    plain("pid_max", "int"),
    // namespaces
    plain("init_nsproxy", "struct nsproxy"),
    plain("init_pid_ns", "struct pid_namespace"),
    plain("init_uts_ns", "struct uts_namespace"),
    plain("init_user_ns", "struct user_namespace"),
    plain("init_ipc_ns", "struct ipc_namespace"),
    plain("init_cgroup_ns", "struct cgroup_namespace"),
    plain("init_time_ns", "struct time_namespace"),
    plain("init_net", "struct net"),
    plain("net_namespace_list", "struct list_head"),
    // network
    plain("tcp_hashinfo", "struct inet_hashinfo"),
    plain("udp_table", "struct udp_table"),
    plain("tcp_prot", "struct proto"),
    plain("udp_prot", "struct proto"),
    // files
    plain("super_blocks", "struct list_head"),
    pointer("file_systems", "struct file_system_type"),
    // modules
    plain("modules", "struct list_head"),
    // memory
    plain("page_offset_base", "long unsigned int"),
    plain("vmalloc_base", "long unsigned int"),
    plain("vmemmap_base", "long unsigned int"),
    plain("phys_base", "long unsigned int"),
    plain("max_pfn", "long unsigned int"),
    plain("slab_caches", "struct list_head"),
    plain("high_memory", "long unsigned int"),
    // time
    plain("jiffies_64", "u64"),
    plain("jiffies", "long unsigned int"),
    // machine
    plain("boot_cpu_data", "struct cpuinfo_x86"),
    plain("nr_cpu_ids", "unsigned int"),
    plain("system_state", "enum system_states"),
    pointer("saved_command_line", "char"),
    pointer("prb", "struct printk_ringbuffer"),
    plain("cgrp_dfl_root", "struct cgroup_root"),
    plain("panic_timeout", "int"),
    array("idt_table", "gate_desc", 256),
    array("linux_banner", "char", 512),
    array("linux_proc_banner", "char", 512),
    array("boot_command_line", "char", 2048),
    array("core_pattern", "char", 128),
    array("modprobe_path", "char", 256),
    // one for each CPU
    per_cpu("runqueues", "struct rq"),
    per_cpu("current_task", "struct task_struct", true),
    per_cpu("pcpu_hot", "struct pcpu_hot"),
    per_cpu("cpu_info", "struct cpuinfo_x86"),
    per_cpu("cpu_number", "int"),
    per_cpu("cpu_tlbstate", "struct tlb_state"),
    per_cpu("cpu_tss_rw", "struct tss_struct"),
    per_cpu("kstat", "struct kernel_stat"),
    per_cpu("kernel_cpustat", "struct kernel_cpustat"),
    per_cpu("softnet_data", "struct softnet_data"),
    per_cpu("tick_cpu_sched", "struct tick_sched"),
};

}  // namespace

const KnownGlobal* find_known_global(std::string_view symbol) {
  const auto* found = std::find_if(globals.begin(), globals.end(),
                                   [&](const Global& global) { return global.symbol == symbol; });
  return found == globals.end() ? nullptr : found;
}

}  // namespace vmsight

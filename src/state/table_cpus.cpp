#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<CpuCache> cache_fields[] = {
    field<&CpuCache::level>("level", "", "1 is nearest to the CPU"),
    field<&CpuCache::type>("type", "", "Data, Instruction, Unified"),
    field<&CpuCache::size_bytes>("size_bytes", "bytes", "size"),
    field<&CpuCache::ways>("ways", "", "of associativity"),
    field<&CpuCache::sets>("sets", "", "number of sets"),
    field<&CpuCache::line_bytes>("line_bytes", "bytes", "size of a line"),
    field<&CpuCache::cpus>("cpus", "", "those that share it"),
};

constexpr Field<CpuInfo> cpu_fields[] = {
    telling<&CpuInfo::cpu>("cpu", "", "number"),
    field<&CpuInfo::vendor>("vendor", "", "vendor_id of /proc/cpuinfo"),
    field<&CpuInfo::model_name>("model_name", "", "model name of /proc/cpuinfo"),
    field<&CpuInfo::mhz>("mhz", "MHz", "frequency"),
    field<&CpuInfo::cache_kib>("cache_kib", "KiB", "cache size of /proc/cpuinfo"),
    changing<&CpuInfo::online>("online", "", "whether it runs"),
    field<&CpuInfo::family>("family", "", "cpu family"),
    field<&CpuInfo::model>("model", "", "model"),
    field<&CpuInfo::stepping>("stepping", "", "stepping"),
    field<&CpuInfo::socket>("socket", "", "physical package"),
    field<&CpuInfo::core>("core", "", "core in the package"),
    field<&CpuInfo::node>("node", "", "NUMA node"),
    field<&CpuInfo::bogomips>("bogomips", "", "bogomips of /proc/cpuinfo"),
    field<&CpuInfo::physical_bits>("physical_bits", "bits", "of physical addresses"),
    field<&CpuInfo::virtual_bits>("virtual_bits", "bits", "of virtual addresses"),
    field<&CpuInfo::flags>("flags", "", "of /proc/cpuinfo, in its order"),
    field<&CpuInfo::bugs>("bugs", "", "of /proc/cpuinfo, in its order"),
    field<&CpuInfo::caches>("caches", "", "its caches"),
};
constexpr Kind<CpuInfo> cpu_table{.part = part_cpus,
                                  .key = "cpus",
                                  .name = "cpu",
                                  .added = "added",
                                  .removed = "removed",
                                  .meaning = "CPUs that the kernel set up",
                                  .records = &State::cpus,
                                  .fields = cpu_fields};

}  // namespace

const Kind<CpuInfo>& kind(const CpuInfo*) { return cpu_table; }
std::span<const Field<CpuCache>> fields_of(const CpuCache&) { return cache_fields; }

}  // namespace vmsight

#include "state/records.h"

namespace vmsight {
namespace {

std::string_view perms_of(const MemoryMap& map) { return {map.perms, 4}; }
int by_perms(const MemoryMap& a, const MemoryMap& b) { return perms_of(a).compare(perms_of(b)); }
void put_map_perms(const MemoryMap& map, ValueSink& sink) { sink.text(perms_of(map)); }

constexpr Field<MemoryMap> only_if(Field<MemoryMap> field, bool (*has)(const MemoryMap&)) {
  field.has = has;
  return field;
}

constexpr Field<MemoryMap> map_fields[] = {
    telling<&MemoryMap::pid>("pid", "", "process"),
    told<MemoryMap>(telling<&MemoryMap::start>("start", "address", "first byte"),
                    [](const MemoryMap& m, ValueSink& sink) { put_hexadecimal(m.start, sink); }),
    told<MemoryMap>(telling<&MemoryMap::end>("end", "address", "behind the last byte"),
                    [](const MemoryMap& m, ValueSink& sink) { put_hexadecimal(m.end, sink); }),
    {.name = "perms",
     .unit = "",
     .meaning = "as /proc/PID/maps has them",
     .put = put_map_perms,
     .order = by_perms,
     .type = ValueType::text},
    field<&MemoryMap::offset>("offset", "bytes", "in the file"),
    telling<&MemoryMap::path>("path", "", "of the file, or [heap], [stack] ..."),
    field<&MemoryMap::inode>("inode", "", "number of the file"),
    told<MemoryMap>(field<&MemoryMap::device>("device", "", "of its file system, major:minor"),
                    [](const MemoryMap& m, ValueSink& sink) { put_device(m.device, sink); }),
    field<&MemoryMap::type>("type", "", "of the file"),
    field<&MemoryMap::size>("size", "bytes", "of the file"),
    field<&MemoryMap::links>("links", "", "hard links"),
    only_if(field<&MemoryMap::rss_bytes>("rss_bytes", "bytes", "in RAM, where it is asked for"),
            [](const MemoryMap& m) { return m.rss_bytes.has_value(); }),
    only_if(
        field<&MemoryMap::dirty_bytes>("dirty_bytes", "bytes", "written, where it is asked for"),
        [](const MemoryMap& m) { return m.dirty_bytes.has_value(); }),
};
constexpr Kind<MemoryMap> map_table{.part = part_memory_maps,
                                    .key = "memory_maps",
                                    .name = "map",
                                    .added = "mapped",
                                    .removed = "unmapped",
                                    .meaning = "memory maps of processes",
                                    .records = &State::memory_maps,
                                    .fields = map_fields};

}  // namespace

const Kind<MemoryMap>& kind(const MemoryMap*) { return map_table; }

}  // namespace vmsight

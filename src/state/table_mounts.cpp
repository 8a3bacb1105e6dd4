#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<Mount> mount_fields[] = {
    changing<&Mount::source>("source", "", "what is mounted, as /proc/PID/mountinfo names it"),
    changing<&Mount::target>("target", "", "where"),
    field<&Mount::fstype>("fstype", "", "type of the file system"),
    changing<&Mount::options>("options", "", "of the mount"),
    telling<&Mount::mntns>("mntns", "", "mount namespace"),
    telling<&Mount::id>("id", "", "number of the mount"),
    field<&Mount::parent>("parent", "", "id of the mount that it is on"),
    told<Mount>(field<&Mount::device>("device", "", "of the file system, major:minor"),
                [](const Mount& m, ValueSink& sink) { put_device(m.device, sink); }),
    field<&Mount::root>("root", "", "what of the file system is mounted"),
    changing<&Mount::super_options>("super_options", "", "of the file system"),
    changing<&Mount::propagation>("propagation", "", "shared, private, slave, unbindable"),
    field<&Mount::peer_group>("peer_group", "", "number behind `shared:`, else 0"),
    field<&Mount::master_group>("master_group", "", "number behind `master:`, else 0"),
    field<&Mount::propagate_from>("propagate_from", "", "number behind `propagate_from:`, else 0"),
};
constexpr Kind<Mount> mount_table{.part = part_mounts,
                                  .key = "mounts",
                                  .name = "mount",
                                  .added = "mounted",
                                  .removed = "unmounted",
                                  .meaning = "mounts of all mount namespaces",
                                  .records = &State::mounts,
                                  .fields = mount_fields};

}  // namespace

const Kind<Mount>& kind(const Mount*) { return mount_table; }

}  // namespace vmsight

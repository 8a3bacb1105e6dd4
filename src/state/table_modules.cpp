#include "state/records.h"

namespace vmsight {
namespace {

constexpr Field<Module> module_fields[] = {
    telling<&Module::name>("name", "", "of the module"),
    changing<&Module::state>("state", "", "Live, Loading, Unloading"),
    field<&Module::size>("size", "bytes", "of its code and data"),
    field<&Module::refcount>("refcount", "", "how often it is in use"),
    field<&Module::used_by>("used_by", "", "names of modules that use it"),
    telling<&Module::base>("base", "address", "where it lies"),
};
constexpr Kind<Module> module_table{.part = part_modules,
                                    .key = "modules",
                                    .name = "module",
                                    .added = "loaded",
                                    .removed = "unloaded",
                                    .meaning = "loaded kernel modules",
                                    .records = &State::modules,
                                    .fields = module_fields};

}  // namespace

const Kind<Module>& kind(const Module*) { return module_table; }

}  // namespace vmsight

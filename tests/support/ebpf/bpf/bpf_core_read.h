// As bpf_helpers.h beside it. The structures of the host's kernel are as kvm_types.h writes them.
#pragma once

#define bpf_core_field_exists(field) 0
#define bpf_core_enum_value_exists(type, value) 1
#define bpf_core_enum_value(type, value) 18

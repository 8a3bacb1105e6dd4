// As bpf_helpers.h beside it.
#pragma once

#define BPF_PROG(name, ...) name(__VA_ARGS__)

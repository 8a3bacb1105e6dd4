// A variable of a VM's kernel, read in one view: by default how many jiffies its clock has counted.
//
//   c++ -std=c++20 variable.cpp $(pkg-config --cflags --libs vmsight) -o variable
//   sudo ./variable web1 nr_threads
#include <cstdio>

#include <vmsight/guest.h>
#include <vmsight/reader.h>

int main(int count, char** words) {
  if (count < 2) return std::fputs("usage: variable VM [SYMBOL]\n", stderr), 2;
  const char* name = count > 2 ? words[2] : "jiffies_64";
  // Maps memory, which is fastest; without the handler that this sets, system calls read it.
  static_cast<void>(vmsight::survive_lost_memory());
  const auto guest = vmsight::attach(words[1]);
  if (!guest) return std::fprintf(stderr, "variable: %s\n", guest.error().message.c_str()), 1;
  const auto address = guest->kernel->symbol(name);
  if (!address) return std::fprintf(stderr, "variable: no symbol %s\n", name), 1;
  auto view = vmsight::View::begin(*guest->memory);  // may halt the guest, as its technique does
  if (!view) return std::fprintf(stderr, "variable: %s\n", view.error().message.c_str()), 1;
  vmsight::Reader reader(*guest->memory, guest->kernel->space());
  const auto value = reader.u64(*address);
  const auto ended = view->end();  // it runs on; what was read may be shown if this succeeds
  if (!ended) return std::fprintf(stderr, "variable: %s\n", ended.error().message.c_str()), 1;
  if (!reader.ok()) return std::fprintf(stderr, "variable: %s is not readable\n", name), 1;
  std::printf("%s at %#llx: %llu\n", name, static_cast<unsigned long long>(address->raw()),
              static_cast<unsigned long long>(value));
}

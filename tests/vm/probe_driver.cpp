// probe_driver count VM SITE...      arms, says "armed", counts until a line comes, and tells what it counted
// probe_driver cycles VM N SITE...   arms and disarms N times
//
// For probe_kvm.py: what would take a vmsight each, by the library.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "vmsight/probe.h"
#include "vmsight/view.h"

using namespace vmsight;

namespace {

constexpr std::chrono::milliseconds moment{20};

struct Setup {
  std::unique_ptr<Vm> vm;
  std::unique_ptr<GuestMemory> memory;
  std::unique_ptr<Kernel> kernel;
  std::unique_ptr<Prober> prober;
};

Result<void> open(const std::string& name, Setup& setup) {
  VMSIGHT_TRY(const VmInfo info, find_vm(name));
  VMSIGHT_TRY(setup.vm, open_vm(info));
  VMSIGHT_TRY(setup.memory, open_view(*setup.vm, "live-map"));
  VMSIGHT_TRY(setup.kernel, find_kernel(*setup.memory, {}));
  VMSIGHT_TRY(setup.prober, Prober::open({*setup.vm, *setup.kernel, *setup.memory, "kvm"}));
  return {};
}

std::vector<ProbeRequest> requests_for(const std::vector<std::string>& sites, bool counts_only) {
  std::vector<ProbeRequest> requests;
  const char* symbols = std::getenv("PROBE_SYMBOLS");  // of user programs
  for (const std::string& site : sites) {
    requests.push_back({.site = site,
                        .filter = counts_only ? "comm == getppid" : "",
                        .symbols_files = symbols != nullptr ? std::vector<std::string>{symbols}
                                                            : std::vector<std::string>{},
                        .counts_only = counts_only});
  }
  return requests;
}

Result<void> count(Prober& prober, const std::vector<std::string>& sites) {
  VMSIGHT_TRY(const auto ids, prober.add(requests_for(sites, true), {}));
  std::cout << "armed" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  VMSIGHT_TRY(const auto probes, prober.list());
  for (const ProbeInfo& probe : probes) {
    const std::string kind = probe.site.at_return ? "kretprobe" : "kprobe";
    std::cout << kind << "_hits " << probe.counts.hits - probe.counts.filtered << "\n"
              << kind << "_lost " << probe.counts.lost << "\n"
              << kind << "_missed_returns " << probe.counts.missed_returns << "\n";
  }
  std::cout << "foreign " << prober.foreign() << "\n";
  return prober.remove(ids);
}

Result<void> cycle(Prober& prober, unsigned cycles, const std::vector<std::string>& sites) {
  std::uint64_t hits = 0, lost = 0;
  for (unsigned i = 0; i < cycles; ++i) {
    VMSIGHT_TRY(const auto ids, prober.add(requests_for(sites, false), [](const ProbeEvent&) {}));
    VMSIGHT_TRY(const std::size_t told, prober.poll(moment));
    static_cast<void>(told);
    VMSIGHT_TRY(const auto probes, prober.list());
    for (const ProbeInfo& probe : probes) {
      hits += probe.counts.hits;
      lost += probe.counts.lost;
    }
    VMSIGHT_TRY_VOID(prober.remove(ids));
  }
  std::cout << "cycles " << cycles << "\nhits " << hits << "\nlost " << lost << "\n";
  return {};
}

Result<void> run(const std::vector<std::string>& words) {
  Setup setup;
  VMSIGHT_TRY_VOID(open(words[1], setup));
  if (words[0] == "count") return count(*setup.prober, {words.begin() + 2, words.end()});
  return cycle(*setup.prober, static_cast<unsigned>(std::stoul(words[2])),
               {words.begin() + 3, words.end()});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || !vmsight::survive_lost_memory()) return 2;
  const auto done = run({argv + 1, argv + argc});
  if (done) return 0;
  std::cerr << done.error().message << "\nhint: " << done.error().hint << "\n";
  return 1;
}

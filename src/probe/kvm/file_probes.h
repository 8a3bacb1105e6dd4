// The probes of engine kvm in user programs: which are where, and following their pages.
//
//   plan -> publish -> (patches written) -> commit, or take_back        arming
//   leave -> (patches reverted) -> remove                               disarming
//   follow                                                              every half a second
//
// A file's page is shared by all processes that map it. It may not be there yet when the probe is
// added, and it may be dropped and come back: then it is patched as soon as that is seen. Calls
// until then are not told; how often that happened is counted.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "probe/engine.h"
#include "probe/kvm/arm.h"
#include "probe/kvm/file_place.h"
#include "probe/kvm/program.h"
#include "vmsight/kernel.h"

namespace vmsight {

class FileProbes {
 public:
  /// All must outlive it; `memory` is used by nobody else. unsupported, with the reason, if user programs of
  /// this VM cannot be probed.
  static Result<std::unique_ptr<FileProbes>> open(const Vm& vm, Kernel& kernel, GuestMemory& memory,
                                                  Armory& armory, kvm::Program& program);

  /// Adds a probe to the plan. unsupported for what cannot be probed, with the reason.
  Result<void> plan(const ProbeOrder& order, std::uint32_t index);
  /// The program knows them before the guest can come there.
  Result<void> publish();
  /// What has to be written.
  std::vector<CodePatch> patches() const;
  /// Whether the pages are still where the plan found them; bad_data if not.
  Result<void> check();
  void take_back();
  void commit();

  /// What has to be reverted so that these probes are gone; then they are removed.
  std::vector<CodePatch> leave(std::span<const ProbeId> ids) const;
  Result<void> remove(std::span<const ProbeId> ids);

  /// The guest has read the inode anew.
  void set_inode(ProbeId id, GuestVirt inode);
  /// Looks where the pages are now. vm_gone if the guest was reset.
  Result<void> follow();

  struct Whereabouts {
    bool absent = false;        // the guest does not have the page in memory
    std::uint64_t reloads = 0;  // how often it came, and was patched only then
  };
  Whereabouts whereabouts(ProbeId id) const;

 private:
  struct Member {
    ProbeId id;
    std::uint32_t index;
    bool bare;
  };
  struct Site {
    std::string name;
    FilePlace place;
    std::vector<Member> members;
    std::optional<CodePatch> patch;  // where it is armed, or about to be
    std::uint64_t reloads = 0;
  };
  using Key = std::pair<FileIdentity, std::uint64_t>;  // and the offset
  struct Arrival {
    Site* site;
    bool there;  // its bytes came along
  };

  FileProbes(GuestMemory& memory, Kernel& kernel, Armory& armory, kvm::Program& program,
             FilePlaces places, std::string trap);
  Result<void> look_anew();
  Result<Site> make_site(const ProbeSite& wanted);
  CodePatch patch_for(const FilePlaces::Look& look) const;
  Result<void> publish(const Site& site);
  Result<void> check(std::span<Site* const> sites);
  void look_at(Site& site, std::vector<Arrival>& arrivals);
  Result<void> arm(const std::vector<Arrival>& arrivals);

  Kernel& kernel_;
  GuestMemory& memory_;
  Reader reader_;
  Armory& armory_;
  kvm::Program& program_;
  FilePlaces places_;
  std::string trap_;
  std::map<Key, Site> sites_;
  std::map<Key, Site> planned_;  // as they will be
  std::uint64_t followed_ns_ = 0;
};

}  // namespace vmsight

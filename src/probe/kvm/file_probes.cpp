#include "probe/kvm/file_probes.h"

#include <fmt/format.h>
#include <algorithm>

#include "base/clock.h"
#include "kernel/guest_text.h"
#include "probe/kvm/hypercall.h"

namespace vmsight {
namespace {

using State = FilePlaces::State;

constexpr std::uint64_t follow_interval_ns = 500'000'000;

bool is_one_of(ProbeId id, std::span<const ProbeId> ids) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

FileProbes::FileProbes(GuestMemory& memory, Kernel& kernel, Armory& armory, kvm::Program& program,
                       FilePlaces places, std::string trap)
    : kernel_(kernel),
      memory_(memory),
      reader_(memory, kernel.space()),
      armory_(armory),
      program_(program),
      places_(std::move(places)),
      trap_(std::move(trap)),
      followed_ns_(monotonic_ns()) {}

Result<std::unique_ptr<FileProbes>> FileProbes::open(const Vm& vm, Kernel& kernel,
                                                     GuestMemory& memory, Armory& armory,
                                                     kvm::Program& program) {
  VMSIGHT_TRY_VOID(check_hypercalls(vm.info().arguments));
  VMSIGHT_TRY_VOID(check_hypercalls(kernel, memory));
  VMSIGHT_TRY(std::string trap, user_trap());
  VMSIGHT_TRY(FilePlaces places, FilePlaces::resolve(vm.ram(), kernel));
  VMSIGHT_TRY_VOID(program.watch_hypercalls());
  return std::unique_ptr<FileProbes>(
      new FileProbes(memory, kernel, armory, program, std::move(places), std::move(trap)));
}

Result<void> FileProbes::look_anew() {
  VMSIGHT_TRY_VOID(memory_.refresh());
  reader_.flush();
  return {};
}

Result<void> FileProbes::plan(const ProbeOrder& order, std::uint32_t index) {
  const ProbeSite& wanted = order.site;
  if (wanted.at_return)
    return refuse_site(wanted, "engine kvm does not see functions of user programs return");
  if (wanted.inode.raw() == 0)
    return refuse_site(wanted, "engine kvm probes files, not addresses of a process");
  const Key key{wanted.file, wanted.file_offset};
  auto planned = planned_.find(key);
  if (planned == planned_.end()) {
    const auto known = sites_.find(key);
    if (known == sites_.end()) {
      VMSIGHT_TRY(Site site, make_site(wanted));
      planned = planned_.emplace(key, std::move(site)).first;
    } else {
      planned = planned_.emplace(key, known->second).first;
    }
  }
  auto& members = planned->second.members;
  if (members.size() == kvm::max_probes_of_site) {
    return refuse_site(wanted, fmt::format("{} probes are there already", members.size()));
  }
  const bool bare = order.counts_only && order.filter.steps.empty() && wanted.any_process;
  members.push_back({.id = order.id, .index = index, .bare = bare});
  return {};
}

Result<FileProbes::Site> FileProbes::make_site(const ProbeSite& wanted) {
  if ((wanted.file_offset & (page_size - 1)) + user_trap_size > page_size) {
    return refuse_site(wanted, "its first instruction crosses a page");
  }
  VMSIGHT_TRY_VOID(look_anew());
  Site site{.name = to_string(wanted),
            .place = {.inode = wanted.inode,
                      .file = wanted.file,
                      .offset = wanted.file_offset,
                      .behind = {}},
            .members = {},
            .patch = {}};
  const FilePlaces::Look look = places_.look(reader_, site.place, trap_);
  switch (look.state) {
    case State::missing:
      return site;  // armed when it comes
    case State::original:
      site.patch = patch_for(look);
      return site;
    case State::armed:
      return refuse_site(
          wanted, "another probe is there already",
          "end the other vmsight; `vmsight doctor --recover` removes what a killed one left");
    case State::other:
    case State::replaced:
      break;
  }
  return refuse_site(wanted,
                     "it does not begin with endbr64, which engine kvm needs (programs built with "
                     "-fcf-protection have it)");
}

CodePatch FileProbes::patch_for(const FilePlaces::Look& look) const {
  // Processes have it at addresses of their own; no vCPU can stand within one instruction.
  return {.instruction = {},
          .address = {},
          .at = look.at,
          .host = look.host,
          .before = std::string(endbr64),
          .after = trap_};
}

Result<void> FileProbes::publish() {
  for (const auto& [key, site] : planned_) VMSIGHT_TRY_VOID(publish(site));
  return {};
}

Result<void> FileProbes::publish(const Site& site) {
  if (!site.patch) return {};
  kvm::trap trap{};
  trap.kind = kvm::trap_in_place;
  trap.bare =
      std::all_of(site.members.begin(), site.members.end(), [](const Member& m) { return m.bare; });
  for (const Member& member : site.members) trap.probes[trap.count++] = member.index;
  return program_.set_file_trap(site.patch->host.raw(), trap);
}

std::vector<CodePatch> FileProbes::patches() const {
  std::vector<CodePatch> all;
  for (const auto& [key, site] : planned_) {
    if (site.patch && !sites_.contains(key)) all.push_back(*site.patch);
  }
  return all;
}

Result<void> FileProbes::check() {
  std::vector<Site*> sites;
  for (auto& [key, site] : planned_) {
    if (site.patch && !sites_.contains(key)) sites.push_back(&site);
  }
  return check(sites);
}

/// The guest stands: what is true now stays so until it runs on.
Result<void> FileProbes::check(std::span<Site* const> sites) {
  if (sites.empty()) return {};
  VMSIGHT_TRY_VOID(look_anew());
  for (Site* site : sites) {
    const FilePlaces::Look look = places_.look(reader_, site->place, trap_);
    if (look.state == State::original && look.host == site->patch->host) continue;
    return Error{.code = ErrorCode::bad_data,
                 .message = fmt::format("probe {}: the guest has just moved its page",
                                        escape_bytes(site->name)),
                 .hint = "try again"};
  }
  return {};
}

void FileProbes::take_back() {
  for (const auto& [key, site] : planned_) {
    const auto before = sites_.find(key);
    if (before != sites_.end())
      static_cast<void>(publish(before->second));
    else if (site.patch)
      program_.remove_file_trap(site.patch->host.raw());
  }
  planned_.clear();
}

void FileProbes::commit() {
  for (auto& [key, site] : planned_) sites_[key] = std::move(site);
  planned_.clear();
}

std::vector<CodePatch> FileProbes::leave(std::span<const ProbeId> ids) const {
  std::vector<CodePatch> all;
  for (const auto& [key, site] : sites_) {
    const bool empty = std::all_of(site.members.begin(), site.members.end(),
                                   [&](const Member& member) { return is_one_of(member.id, ids); });
    if (empty && site.patch) all.push_back(*site.patch);
  }
  return all;
}

Result<void> FileProbes::remove(std::span<const ProbeId> ids) {
  Result<void> done;
  for (auto at = sites_.begin(); at != sites_.end();) {
    Site& site = at->second;
    const auto removed = std::erase_if(
        site.members, [&](const Member& member) { return is_one_of(member.id, ids); });
    if (site.members.empty()) {
      if (site.patch) program_.remove_file_trap(site.patch->host.raw());
      at = sites_.erase(at);
      continue;
    }
    if (removed != 0) {
      if (auto published = publish(site); !published) done = std::move(published);
    }
    ++at;
  }
  return done;
}

Result<void> FileProbes::follow() {
  const std::uint64_t now = monotonic_ns();
  if (sites_.empty() || now - followed_ns_ < follow_interval_ns) return {};
  followed_ns_ = now;
  VMSIGHT_TRY_VOID(look_anew());
  VMSIGHT_TRY_VOID(
      kernel_.check_running());  // after a reset the guest's kernel is another one, somewhere else
  std::vector<Arrival> arrivals;
  for (auto& [key, site] : sites_) look_at(site, arrivals);
  if (arrivals.empty()) return {};
  auto armed = arm(arrivals);
  // The guest has moved a page meanwhile, or somebody else has paused or patched it: next time.
  if (!armed && armed.error().code != ErrorCode::vm_gone) return {};
  return armed;
}

/// What is no longer where it was armed is nobody's: the page's frame may be anything by now, and is
/// left alone.
void FileProbes::look_at(Site& site, std::vector<Arrival>& arrivals) {
  const FilePlaces::Look look = places_.look(reader_, site.place, trap_);
  const bool in_place = site.patch && look.state == State::armed && look.host == site.patch->host;
  if (in_place) return;
  if (site.patch) {
    program_.remove_file_trap(site.patch->host.raw());
    armory_.forget(std::span(&*site.patch, 1));
    site.patch.reset();
  }
  // A page that the guest only moved, or had swapped out, still has the trap.
  if (look.state != State::original && look.state != State::armed) return;
  site.patch = patch_for(look);
  arrivals.push_back({.site = &site, .there = look.state == State::armed});
}

Result<void> FileProbes::arm(const std::vector<Arrival>& arrivals) {
  std::vector<CodePatch> fresh, there;
  std::vector<Site*> sites;
  Result<void> done;
  for (const Arrival& arrival : arrivals) {
    (arrival.there ? there : fresh).push_back(*arrival.site->patch);
    if (!arrival.there) sites.push_back(arrival.site);
    if (done) done = publish(*arrival.site);
  }
  if (done)
    done = armory_.arm({}, {.fresh = fresh, .there = there, .check = [&] { return check(sites); }});
  for (const Arrival& arrival : arrivals) {
    if (done) {
      ++arrival.site->reloads;
      continue;
    }
    program_.remove_file_trap(arrival.site->patch->host.raw());
    arrival.site->patch.reset();
  }
  return done;
}

void FileProbes::set_inode(ProbeId id, GuestVirt inode) {
  for (auto& [key, site] : sites_) {
    const auto is_it = [&](const Member& member) { return member.id == id; };
    if (std::any_of(site.members.begin(), site.members.end(), is_it)) site.place.inode = inode;
  }
}

FileProbes::Whereabouts FileProbes::whereabouts(ProbeId id) const {
  for (const auto& [key, site] : sites_) {
    for (const Member& member : site.members) {
      if (member.id == id) return {.absent = !site.patch, .reloads = site.reloads};
    }
  }
  return {};
}

}  // namespace vmsight

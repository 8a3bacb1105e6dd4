#include "detect/integrity/integrity.h"

#include <algorithm>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "detect/integrity/checks.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

constexpr unsigned looks_needed = 3;

using Chosen = std::vector<const IntegrityCheck*>;

Result<Chosen> choose(std::span<const std::string> names) {
  Chosen chosen;
  for (const std::string& name : names) {
    const auto is_it = [&](const IntegrityCheck& check) { return check.info.name == name; };
    const auto table = integrity_check_table();
    if (std::ranges::none_of(table, is_it)) {
      return Error{.code = ErrorCode::not_found, .message = "no check is called " + name};
    }
  }
  for (const IntegrityCheck& check : integrity_check_table()) {
    if (names.empty() || std::ranges::find(names, check.info.name) != names.end())
      chosen.push_back(&check);
  }
  return chosen;
}

class LinuxIntegrityChecker final : public IntegrityChecker {
 public:
  LinuxIntegrityChecker(Kernel& kernel, GuestMemory& memory, IntegrityOptions options)
      : kernel_(kernel),
        memory_(memory),
        reader_(memory, kernel.space()),
        options_(std::move(options)) {}

  Result<Findings> run(std::span<const std::string> names, const State* state) override {
    VMSIGHT_TRY(const Chosen chosen, choose(names));
    State own;
    if (const unsigned needed = parts(names); state == nullptr && needed != 0) {
      if (const auto read = read_state(needed, own); read)
        state = &own;
      else if (read.error().code == ErrorCode::vm_gone || read.error().code == ErrorCode::os)
        return read.error();
    }
    Findings all;
    std::vector<std::vector<Finding>> found(chosen.size());
    all.reports.resize(chosen.size());
    std::vector<std::size_t> doubtful;
    for (std::size_t i = 0; i < chosen.size(); ++i) doubtful.push_back(i);
    // The first look of all; then those that found something are looked at again.
    for (unsigned look = 0; look < looks_needed && !doubtful.empty(); ++look) {
      if (look > 0) std::this_thread::sleep_for(options_.pause);
      VMSIGHT_TRY_VOID(look_once(chosen, doubtful, state, look == 0, found, all.reports));
      if (!memory_.is_live()) break;
      std::erase_if(doubtful, [&](std::size_t i) {
        return std::ranges::all_of(
            found[i], [](const Finding& finding) { return finding.sureness == Sureness::hint; });
      });
    }
    for (auto& findings : found) {
      for (Finding& finding : findings) all.findings.push_back(std::move(finding));
    }
    return all;
  }

 private:
  Result<void> read_state(unsigned needed, State& into) {
    if (!states_) {
      VMSIGHT_TRY(states_, StateReader::create(kernel_, memory_));
    }
    return states_->read({.parts = needed}, into);
  }

  Result<void> look_once(const Chosen& chosen, const std::vector<std::size_t>& which,
                         const State* state, bool first, std::vector<std::vector<Finding>>& found,
                         std::vector<CheckReport>& reports) {
    return in_one_view(memory_, [&]() -> Result<void> {
      reader_.flush();
      VMSIGHT_TRY_VOID(kernel_.check_running());
      const auto places = KernelPlaces::read(kernel_, reader_);
      for (const std::size_t i : which) {
        const IntegrityCheck& check = *chosen[i];
        CheckReport report{.check = check.info.name};
        Look look{.kernel = kernel_,
                  .reader = reader_,
                  .places = places ? *places : no_places_,
                  .options = options_,
                  .state = state,
                  .check = check.info.name};
        const auto done = places ? run_one(check, look) : Result<void>(places.error());
        report.done = done.has_value();
        report.note = done ? std::move(look.note) : done.error().message;
        report.looked_at = look.looked_at;
        if (!done) look.findings.clear();
        if (!first) keep_common(found[i], look.findings);
        if (first) found[i] = std::move(look.findings);
        // What could not be confirmed was not checked.
        if (first || !report.done) reports[i] = std::move(report);
      }
      return memory_.health();
    });
  }

  Result<void> run_one(const IntegrityCheck& check, Look& look) {
    if (check.parts != 0 && look.state == nullptr) {
      return Error{ErrorCode::unsupported, "the state of this kernel cannot be read"};
    }
    reader_.begin_object();
    auto done = check.run(look);
    reader_.clear_fault();
    return done;
  }

  /// Keeps what the later look saw too, as it was then.
  static void keep_common(std::vector<Finding>& before, const std::vector<Finding>& now) {
    std::set<std::string_view> seen;
    for (const Finding& finding : now) seen.insert(finding.object);
    std::erase_if(before, [&](const Finding& finding) {
      return finding.sureness != Sureness::hint && !seen.contains(finding.object);
    });
  }

  Kernel& kernel_;
  GuestMemory& memory_;
  Reader reader_;
  IntegrityOptions options_;
  KernelPlaces no_places_;
  std::unique_ptr<StateReader> states_;
};

}  // namespace

std::string_view to_string(Sureness sureness) {
  switch (sureness) {
    case Sureness::certain:
      return "certain";
    case Sureness::likely:
      return "likely";
    case Sureness::hint:
      break;
  }
  return "hint";
}

unsigned IntegrityChecker::parts(std::span<const std::string> names) {
  unsigned parts = 0;
  for (const IntegrityCheck& check : integrity_check_table()) {
    if (names.empty() || std::ranges::find(names, check.info.name) != names.end())
      parts |= check.parts;
  }
  return parts;
}

Result<std::unique_ptr<IntegrityChecker>> IntegrityChecker::create(Kernel& kernel,
                                                                   GuestMemory& memory,
                                                                   IntegrityOptions options) {
  return std::unique_ptr<IntegrityChecker>(
      std::make_unique<LinuxIntegrityChecker>(kernel, memory, std::move(options)));
}

}  // namespace vmsight

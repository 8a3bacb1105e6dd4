#include "detect/integrity/integrity.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "detect/integrity/integrity_check.h"
#include "vmsight/view.h"

namespace vmsight {
namespace {

constexpr unsigned torn_rounds =
    3;  // looks that met what was changing, beside those that must agree

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
    VMSIGHT_TRY_VOID(check_started());
    State own;
    if (const unsigned needed = parts(names); state == nullptr && needed != 0) {
      if (const auto read = read_state(needed, own); read)
        state = &own;
      else if (ends_reading(read.error()))
        return read.error();
    }
    std::vector<Course> courses;
    for (const IntegrityCheck* check : chosen) courses.push_back({.check = check});
    bool live = memory_.is_live();
    const unsigned rounds = rounds_for(chosen);
    for (unsigned round = 0; round < rounds; ++round) {
      if (round > 0) std::this_thread::sleep_for(options_.pause);
      VMSIGHT_TRY_VOID(look_once(courses, state));
      live = memory_.is_live();
      if (!live || std::ranges::none_of(courses, &Course::is_open)) break;
    }
    Findings all;
    for (Course& course : courses) {
      if (live && course.report.done && course.is_open()) {
        course.report.done = false;
        course.report.note = "what was found could not be confirmed: the guest changes too fast";
      }
      if (course.report.done) std::ranges::move(course.findings, std::back_inserter(all.findings));
      all.reports.push_back(std::move(course.report));
    }
    return all;
  }

 private:
  /// Until it runs programs a kernel writes its own code, and protects nothing.
  Result<void> check_started() {
    const auto at = kernel_.symbol("system_state");
    const auto running = kernel_.enumerator("SYSTEM_RUNNING");
    if (!at || !running) return {};
    std::optional<std::uint32_t> now;
    VMSIGHT_TRY_VOID(in_one_view(memory_, [&]() -> Result<void> {
      Reader reader(memory_, kernel_.space());
      const std::uint32_t state = reader.u32(*at);
      if (reader.ok()) now = state;
      return {};
    }));
    if (!now || std::cmp_greater_equal(*now, *running)) return {};
    return Error{.code = ErrorCode::unsupported,
                 .message = "check: the guest's kernel is still starting, and protects nothing yet",
                 .hint = "try again when its first program runs"};
  }

  static unsigned rounds_for(const Chosen& chosen) {
    unsigned looks = 0;
    for (const IntegrityCheck* check : chosen) looks = std::max(looks, check->looks);
    return looks + torn_rounds;
  }

  Result<void> read_state(unsigned needed, State& into) {
    if (!states_) {
      VMSIGHT_TRY(states_, StateReader::create(kernel_, memory_));
    }
    return states_->read({.parts = needed}, into);
  }

  /// What became of a check so far.
  struct Course {
    const IntegrityCheck* check;
    unsigned looks = 0;  // that succeeded
    bool torn = false;   // the last one met what may have been changing
    std::vector<Finding> findings{};
    CheckReport report{};

    /// Whether another look would say more.
    bool is_open() const {
      const bool doubtful = std::ranges::any_of(
          findings, [](const Finding& finding) { return finding.sureness != Sureness::hint; });
      return torn || looks == 0 || (doubtful && looks < check->looks);
    }
  };

  Result<void> look_once(std::vector<Course>& courses, const State* state) {
    return in_one_view(memory_, [&]() -> Result<void> {
      reader_.flush();
      VMSIGHT_TRY_VOID(kernel_.check_running());
      const auto places = KernelPlaces::read(kernel_, reader_);
      const auto own_traps = options_.own_traps ? options_.own_traps() : std::vector<OwnTrap>();
      const bool begins_changing = changes_.under_way(KernelChanges::code);
      for (Course& course : courses) {
        if (course.looks != 0 && !course.is_open()) continue;
        Look look{.kernel = kernel_,
                  .reader = reader_,
                  .places = places ? *places : no_places_,
                  .options = options_,
                  .state = state,
                  .own_traps = own_traps,
                  .memory = remembered_,
                  .check = course.check->info.name};
        auto done = places ? run_one(*course.check, look) : Result<void>(places.error());
        const unsigned during = course.check->doubtful_during;
        const bool is_changing = done && !look.findings.empty() &&
                                 ((begins_changing && (during & KernelChanges::code) != 0) ||
                                  changes_.under_way(during));
        if (is_changing) done = Error{ErrorCode::bad_data, "the kernel was changing its code"};
        take(course, look, done);
        course.report.changing = is_changing;
      }
      return memory_.health();
    });
  }

  static void take(Course& course, Look& look, const Result<void>& done) {
    course.report = {.check = look.check,
                     .done = done.has_value(),
                     .note = done ? std::move(look.note) : done.error().message,
                     .looked_at = look.looked_at};
    course.torn = !done && (done.error().code == ErrorCode::fault ||
                            done.error().code == ErrorCode::bad_data);
    if (!done) {
      course.looks += course.torn ? 0 : 1;  // it will not be possible later either
    } else if (course.looks++ == 0) {
      course.findings = std::move(look.findings);
    } else {
      keep_common(course.findings, look.findings);
    }
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
  IntegrityMemory remembered_;
  std::unique_ptr<StateReader> states_;
  KernelChanges changes_{kernel_, memory_};
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

#include "study/techniques.h"

#include <algorithm>

#include "study/resume.h"

namespace vmsight {
namespace {

/// Looked at first, by the gentlest technique: the kernel is then known to the slow ones.
Result<std::vector<TechniqueRow>> rows_of(const VmInfo& info, const TechniquesOptions& options) {
  VMSIGHT_TRY(Watcher watcher, open_watcher(info, "auto", options.measure.cache_dir));
  std::vector<TechniqueRow> rows;
  for (const TechniqueStatus& status : technique_status(*watcher.guest.vm)) {
    if (!is_wanted(status.name, options.names)) continue;
    rows.push_back({.name = std::string(status.name),
                    .what = std::string(status.what),
                    .cost = std::string(status.cost),
                    .usable = status.usable,
                    .reason = status.reason,
                    .hint = status.hint});
  }
  return rows;
}

std::string name_of(const Pace& pace) {
  const std::string rate = pace.rate > 0 ? fmt::format("at {:g}/s", pace.rate) : "at maximum rate";
  return pace.cpu > 0 ? fmt::format("{} with {:g}% of a core", rate, pace.cpu) : rate;
}

std::string outcome_of(const Measurement& measured) {
  if (!measured.error.empty()) return measured.error;
  return fmt::format("{:.4g}/s, view {:.3g} ms, pause {:.3g} ms{}", measured.rate,
                     measured.view_ns.median / 1e6, measured.pause_ns.median / 1e6,
                     measured.reached ? "" : ", rate not reached");
}

Measurement one(const VmInfo& info, const TechniqueRow& row, const Pace& pace,
                const TechniquesOptions& options, Resume& resume) {
  if (const Measurement* known = resume.find(row.name, pace)) {
    options.progress(fmt::format("{} {}: known", row.name, name_of(pace)));
    return *known;
  }
  const bool is_first = row.measurements.empty();
  Measurement measured;
  if (!is_first && !row.measurements.front().error.empty()) {
    measured = {.technique = row.name,
                .wanted_rate = pace.rate,
                .cpu = pace.cpu,
                .error = row.measurements.front().error,
                .hint = row.measurements.front().hint};
  } else if (pace.rate > 0 && row.measurements.front().rate < pace.rate / 2) {
    measured = unreachable(row.measurements.front(), pace.rate);
  } else {
    measured = measure_isolated(info, row.name, pace, options.measure);
  }
  options.progress(fmt::format("{} {}: {}", row.name, name_of(pace), outcome_of(measured)));
  return measured;
}

Result<void> fill(const VmInfo& info, const TechniquesOptions& options, Resume& resume,
                  TechniqueRow& row) {
  std::vector<Pace> paces{{}};
  for (const double rate : options.rates) paces.push_back({.rate = rate});
  for (const double cpu : options.cpu) paces.push_back({.cpu = cpu});
  for (const Pace& pace : paces) {
    row.measurements.push_back(one(info, row, pace, options, resume));
    VMSIGHT_TRY_VOID(resume.keep(row.measurements.back()));
  }
  return {};
}

/// A VM that ended is no failure of the technique that noticed.
Result<void> check_there(const VmInfo& info) {
  VMSIGHT_TRY(const auto vm, open_vm(info));
  return vm->check_alive();
}

}  // namespace

std::string_view class_of(std::string_view technique) {
  return technique.substr(0, technique.find(':'));
}

bool is_wanted(std::string_view technique, const std::vector<std::string>& names) {
  return names.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return name == technique || name == class_of(technique);
         });
}

Measurement unreachable(const Measurement& at_most, double rate) {
  Measurement measured = at_most;
  measured.wanted_rate = rate;
  measured.reached = false;
  return measured;
}

Result<std::vector<TechniqueRow>> study_techniques(const VmInfo& info,
                                                   const TechniquesOptions& options) {
  VMSIGHT_TRY(auto rows, rows_of(info, options));
  if (rows.empty()) {
    return Error{
        .code = ErrorCode::usage,
        .message = "study techniques: none is called so",
        .hint = "`vmsight doctor VM --all` names them; --techniques takes names and classes"};
  }
  VMSIGHT_TRY(Resume resume, Resume::open(options.resume_file, info, options.measure));
  for (TechniqueRow& row : rows) {
    if (!row.usable) {
      options.progress(fmt::format("{}: not here: {}", row.name, row.reason));
      continue;
    }
    VMSIGHT_TRY_VOID(fill(info, options, resume, row));
    VMSIGHT_TRY_VOID(check_there(info));
  }
  return rows;
}

}  // namespace vmsight

// vmsight check VM: the integrity of a guest, once.
#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "attach/front_service.h"
#include "cli/attach.h"
#include "cli/check_service.h"
#include "cli/filters.h"
#include "detect/integrity/integrity.h"
#include "render/escape.h"
#include "render/table.h"

namespace vmsight {
namespace {

Json to_json(const Finding& finding) {
  return {{"check", finding.check},
          {"sure", to_string(finding.sureness)},
          {"what", for_json(finding.what)},
          {"object", for_json(finding.object)},
          {"sources", finding.sources},
          {"address", finding.address ? Json(json_address(finding.address->raw())) : Json(nullptr)},
          {"pid", finding.pid ? Json(*finding.pid) : Json(nullptr)}};
}

Json to_json(const Findings& all) {
  Json findings = Json::array(), done = Json::array(), skipped = Json::array();
  for (const Finding& finding : all.findings) findings.push_back(to_json(finding));
  for (const CheckReport& report : all.reports) {
    if (report.done)
      done.push_back({{"check", report.check},
                      {"looked_at", report.looked_at},
                      {"note", report.note.empty() ? Json(nullptr) : Json(for_json(report.note))}});
    else
      skipped.push_back({{"check", report.check}, {"reason", for_json(report.note)}});
  }
  return {{"findings", std::move(findings)},
          {"checks", std::move(done)},
          {"skipped", std::move(skipped)}};
}

class CheckVerb : public Verb {
 public:
  void declare(CLI::App& app) override {
    app.add_option("--only", only_, "these checks only")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',');
    app.add_option("--skip", skip_, "all checks but these")
        ->group(filter_group)
        ->type_name("NAME,...")
        ->delimiter(',');
    app.add_flag("--list", list_, "list the checks, and what they look at");
    app.add_option("--baseline", baseline_,
                   "compare the kernel's text with this file, which is made if there is none; "
                   "without it with what was seen when this build was checked first, in the cache")
        ->type_name("FILE");
    app.add_option("--for", seconds_,
                   "look again and again for so long; shows what was found in any look, also what "
                   "only a change between two looks tells (credentials)")
        ->type_name("SECONDS")
        ->check(CLI::Range(0U, 86'400U));
    app.add_flag("--strict", strict_, "hints count too: exit status 1 if there is one");
  }

  Result<void> run(Session& session) override {
    if (list_) return print_list(session), Result<void>();
    if (session.common.vm.empty())
      return usage_error("check: no VM given", "`vmsight check --list` lists the checks");
    VMSIGHT_TRY(const auto names, chosen());
    Findings findings;
    const std::string cache = session.common.use_cache ? default_cache_directory() : "";
    session.common.service = std::make_shared<CheckService>(cache, baseline_);
    VMSIGHT_TRY_VOID(with_guest(session.common, [&](Guest& guest) -> Result<void> {
      const AskService ask = [&](std::string_view what, std::string_view text) {
        return ask_service(guest, attach_options(session.common), what, text);
      };
      IntegrityOptions options{.cache_directory = cache,
                               .baseline_file = baseline_,
                               .files = std::make_shared<AskedBaselineFiles>(ask)};
      if (guest.vm) options.own_traps = [&] { return asked_traps(ask, guest.vm->info()); };
      VMSIGHT_TRY(const auto checker,
                  IntegrityChecker::create(*guest.kernel, *guest.memory, std::move(options)));
      VMSIGHT_TRY(findings, run_for(*checker, names));
      if (session.common.json)
        print_json(session.out, guest, findings);
      else
        print_text(session, findings);
      return {};
    }));
    VMSIGHT_TRY_VOID(session.out.finish());
    return verdict(findings);
  }

 private:
  Result<std::vector<std::string>> chosen() const {
    std::vector<std::string> names;
    for (const std::vector<std::string>* given : {&only_, &skip_}) {
      for (const std::string& name : *given) {
        if (std::ranges::find(integrity_checks(), name, &CheckInfo::name) ==
            integrity_checks().end())
          return usage_error(fmt::format("check: no check is called '{}'", name),
                             "`vmsight check --list` lists them");
      }
    }
    for (const CheckInfo& check : integrity_checks()) {
      const auto has = [&](const std::vector<std::string>& list) {
        return std::ranges::find(list, check.name) != list.end();
      };
      if ((only_.empty() || has(only_)) && !has(skip_)) names.emplace_back(check.name);
    }
    if (names.empty()) return usage_error("check: no check is left");
    return names;
  }

  /// What any of the looks found, once; the rest as the last one says it.
  Result<Findings> run_for(IntegrityChecker& checker, std::span<const std::string> names) const {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::seconds(seconds_);
    Findings all;
    std::set<std::pair<std::string_view, std::string>> told;
    while (true) {
      VMSIGHT_TRY(Findings now, checker.run(names, nullptr));
      for (Finding& finding : now.findings) {
        if (told.emplace(finding.check, finding.object).second && told.size() < max_told)
          all.findings.push_back(std::move(finding));
      }
      all.reports = std::move(now.reports);
      const auto left = end - Clock::now();
      if (left <= Clock::duration::zero()) return all;
      std::this_thread::sleep_for(std::min<Clock::duration>(left, std::chrono::seconds(1)));
    }
  }

  /// Exit status 1, and a line on standard error, for what is more than a hint.
  Result<void> verdict(const Findings& findings) const {
    const auto counts = [&](const Finding& finding) {
      return strict_ || finding.sureness != Sureness::hint;
    };
    const auto count = std::ranges::count_if(findings.findings, counts);
    if (count == 0) return {};
    return Error{ErrorCode::bad_data,
                 fmt::format("check: {} finding{}", count, count == 1 ? "" : "s")};
  }

  static void print_list(Session& session) {
    if (session.common.json) {
      Json list = Json::array();
      for (const CheckInfo& check : integrity_checks())
        list.push_back({{"check", check.name}, {"what", check.what}, {"family", check.family}});
      session.out.print("{}\n",
                        dump({{"schema", "vmsight.checks/1"}, {"checks", std::move(list)}}));
      return;
    }
    Table table({{"CHECK"}, {"FAMILY"}, {"WHAT"}});
    for (const CheckInfo& check : integrity_checks())
      table.row({check.name, check.family, check.what});
    table.print(session.out, {.headers = session.common.headers, .width = session.width});
  }

  static void print_json(Output& out, const Guest& guest, const Findings& findings) {
    Json document = {{"schema", "vmsight.check/1"}, {"vm", vmsight::to_json(summary_of(guest))}};
    document.update(to_json(findings));
    out.print("{}\n", dump(document));
  }

  static void print_text(Session& session, const Findings& findings) {
    Table table({{"CHECK"}, {"SURE"}, {"WHAT"}});
    for (const Finding& finding : findings.findings)
      table.row({finding.check, to_string(finding.sureness), finding.what});
    if (table.rows() != 0) table.print(session.out, {.headers = session.common.headers});
    std::size_t done = 0;
    for (const CheckReport& report : findings.reports) {
      done += report.done ? 1 : 0;
      if (report.done && report.note.empty()) continue;
      fmt::print(stderr, "vmsight: {}: {}: {}\n", report.done ? "note" : "skipped", report.check,
                 for_terminal(report.note));
    }
    if (findings.findings.empty())
      session.out.print("nothing found by {} of {} checks\n", done, findings.reports.size());
  }

  std::vector<std::string> only_, skip_;
  static constexpr std::size_t max_told = 10'000;
  std::string baseline_;
  unsigned seconds_ = 0;
  bool list_ = false, strict_ = false;
};

}  // namespace

extern const VerbInfo check_verb{
    .name = "check",
    .group = "Integrity of the guest",
    .arguments = "VM [options]",
    .summary = "Whether the guest's kernel is as it should be, and hides nothing",
    .examples =
        "  vmsight check web1\n"
        "  vmsight check web1 --only syscall-table,modules,processes --json\n"
        "  vmsight check web1 --only credentials --for 60\n"
        "  vmsight check --list\n",
    .vm = VmArgument::optional,
    .make = make_verb<CheckVerb>,
};

}  // namespace vmsight

// vmsight-study WORDS: started by `vmsight study`, never by hand; options.h has the words. It is a program
// of its own so that what measures, and makes a VM of its own for that (raw_exit.h), is in no other.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <optional>

#include "render/escape.h"
#include "render/report.h"
#include "study/allotment.h"
#include "study/document.h"
#include "study/options.h"
#include "vmsight/guest.h"

namespace vmsight {
namespace {

std::atomic<bool> stop_wanted = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // set by a signal handler

void want_stop(int) { stop_wanted = true; }

TableOptions table_options(const StudyOptions& asked) {
  return {.headers = asked.headers, .width = terminal_width(STDOUT_FILENO)};
}

Result<void> techniques(Output& out, const VmInfo& info, const StudyOptions& asked) {
  const TechniquesOptions options{
      .measure = {.seconds = asked.seconds.value_or(1),
                  .rounds = asked.rounds,
                  .cache_dir = default_cache_directory()},
      .names = asked.techniques,
      .rates = asked.rates,
      .cpu = asked.cpu,
      .resume_file = asked.resume,
      .progress = [](std::string_view what) { fmt::print(stderr, "{}\n", what); }};
  VMSIGHT_TRY(const auto rows, study_techniques(info, options));
  if (asked.json) {
    out.print("{}\n", dump(techniques_document(info, options, rows)));
  } else {
    print_techniques(out, rows, table_options(asked));
  }
  return {};
}

Result<void> probes(Output& out, const VmInfo& info, const StudyOptions& asked) {
  const ProbesOptions options{
      .call = asked.call,
      .site = asked.site,
      .engines = asked.engines,
      .calls = asked.calls,
      .slow_calls = asked.slow_calls,
      .rounds = asked.rounds,
      .seconds = asked.timeout,
      .cache_dir = default_cache_directory(),
      .progress = [](std::string_view what) { fmt::print(stderr, "{}\n", for_terminal(what)); }};
  VMSIGHT_TRY(const ProbesStudy study, study_probes(info, options));
  if (asked.json) {
    out.print("{}\n", dump(probes_document(info, options, study)));
  } else {
    print_probes(out, options, study, table_options(asked));
  }
  return {};
}

Result<void> consistency(Output& out, const VmInfo& info, const StudyOptions& asked) {
  const ConsistencyStudyOptions options{
      .views = asked.views,
      .cache_dir = default_cache_directory(),
      .progress = [](std::string_view what) { fmt::print(stderr, "{}\n", what); }};
  const std::vector<WayOutcome> ways = study_consistency(info, options);
  if (asked.json) {
    out.print("{}\n", dump(consistency_document(info, options, ways)));
  } else {
    print_consistency(out, ways, table_options(asked));
  }
  return {};
}

/// The first line says that it has begun; the last what was done.
Result<void> loop(Output& out, const VmInfo& info, const StudyOptions& asked) {
  std::signal(SIGTERM, want_stop);
  std::signal(SIGINT, want_stop);
  std::optional<CpuAllotment> allotment;  // outlives all that is started in it
  if (!asked.cpu.empty()) {
    VMSIGHT_TRY(allotment, CpuAllotment::make(asked.cpu.front()));
    VMSIGHT_TRY_VOID(allotment->enter());
  }
  VMSIGHT_TRY(Watcher watcher, open_watcher(info, asked.technique, default_cache_directory()));
  VMSIGHT_TRY_VOID(warm_up(*watcher.reader));
  out.write("{\"ready\":true}\n");
  VMSIGHT_TRY_VOID(out.finish());
  VMSIGHT_TRY(
      const LoopOutcome outcome,
      run_loop(*watcher.reader,
               {.rate = asked.rate, .seconds = asked.seconds.value_or(0), .stop = &stop_wanted}));
  out.print("{}\n", dump(loop_document(watcher.guest.memory->technique(), asked.rate, outcome)));
  return {};
}

Result<void> study(Output& out, std::span<const std::string_view> words) {
  VMSIGHT_TRY(const StudyOptions asked, study_options_of(words));
  VMSIGHT_TRY(const VmInfo info, find_vm(asked.vm));
  if (asked.study == "probes") return probes(out, info, asked);
  if (asked.study == "consistency") return consistency(out, info, asked);
  return asked.study == "loop" ? loop(out, info, asked) : techniques(out, info, asked);
}

}  // namespace
}  // namespace vmsight

int main(int count, char** arguments) {
  const std::vector<std::string_view> words(arguments + (count > 0 ? 1 : 0), arguments + count);
  vmsight::Output out(STDOUT_FILENO);
  return vmsight::run_program(out, [&] { return vmsight::study(out, words); });
}

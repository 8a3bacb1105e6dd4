#include "cli/attach.h"

#include <algorithm>

#include "cli/progress.h"
#include "render/csv.h"
#include "render/escape.h"
#include "sandbox/sandbox.h"

namespace vmsight {
namespace {

constexpr std::size_t max_warnings = 5;  // in text; JSON has all problems

}  // namespace

AttachOptions attach_options(const CommonOptions& options) {
  static const bool has_sandbox = sandbox_support().works;  // in it nobody can ask
  return {.technique = options.technique,
          .wish = options.wish,
          .proves_states = options.reads_states,
          .kernel = options.kernel,
          .all_kernels = options.all_kernels,
          .sandbox = options.sandbox && has_sandbox,
          .image = options.image,
          .cache_directory = options.use_cache ? default_cache_directory() : "",
          .progress = {},
          .found = {},
          .recovered = {},
          .service = options.service};
}

namespace {

void say_what_was_left(const Recovery& done) {
  fmt::print(stderr, "vmsight: {}: left by a killed vmsight: {}; {}\n", for_terminal(done.vm),
             for_terminal(done.what),
             done.undone ? "undone" : "not undone: " + for_terminal(done.reason));
}

}  // namespace

Result<Guest> open_named(const CommonOptions& options) {
  Progress progress;
  AttachOptions attach = attach_options(options);
  attach.recovered = say_what_was_left;
  attach.image.progress = [&](std::string_view what) { progress.say(what); };
  attach.image.said = [](std::string_view what) {
    fmt::print(stderr, "vmsight: note: {}\n", for_terminal(what));
  };
  attach.found = [&](const VmInfo& vm) {
    if (vm.passed_over.empty()) return;
    fmt::print(stderr, "vmsight: note: \"{}\" is taken to be process {}; also claimed by {}\n",
               for_terminal(options.vm), vm.pid, vm.passed_over);
  };
  VMSIGHT_TRY(Guest guest, open_guest(options.vm, attach));
  if (guest.image) print_warnings(problems_of(*guest.image));
  return guest;
}

Result<Guest> open_named_memory(const CommonOptions& options) {
  VMSIGHT_TRY(Guest guest, open_named(options));
  VMSIGHT_TRY_VOID(open_memory(guest, attach_options(options)));
  return guest;
}

Result<void> enter_sandbox_for(Guest& guest, const CommonOptions& options) {
  if (!options.sandbox) return {};
  VMSIGHT_TRY(const std::string without, enter_sandbox(guest, attach_options(options)));
  // Who names a technique has read what it needs.
  if (!without.empty() && options.technique == "auto")
    fmt::print(stderr, "vmsight: note: no sandbox: {}\n", for_terminal(without));
  return {};
}

Result<void> find_kernel_in(Guest& guest, const CommonOptions& options) {
  Progress progress;
  AttachOptions attach = attach_options(options);
  attach.progress = [&](std::string_view what) { progress.say(what); };
  return find_kernel_of(guest, attach);
}

Result<void> with_guest(const CommonOptions& options,
                        const std::function<Result<void>(Guest&)>& use) {
  VMSIGHT_TRY(Guest guest, open_named_memory(options));
  VMSIGHT_TRY_VOID(enter_sandbox_for(guest, options));
  VMSIGHT_TRY_VOID(find_kernel_in(guest, options));
  auto done = use(guest);
  if (!done) return guest.explain(std::move(done).error());
  if (options.use_cache) static_cast<void>(guest.kernel->save_cache());
  return {};
}

Result<void> read_state(Guest& guest, const StateOptions& options, State& into) {
  VMSIGHT_TRY(const auto reader, state_reader_of(guest));
  return reader->read(options, into);
}

Result<void> check_format(const CommonOptions& options) {
  if (!options.json || !options.csv) return {};
  return usage_error("JSON and --format csv exclude each other", "give one of them");
}

Result<void> show_state(Session& session, const StateVerb& verb) {
  VMSIGHT_TRY_VOID(check_format(session.common));
  session.common.reads_states = true;
  return with_guest(session.common, [&](Guest& guest) -> Result<void> {
    State state;
    VMSIGHT_TRY_VOID(read_state(guest, verb.options, state));
    if (verb.filter) VMSIGHT_TRY_VOID(verb.filter(state, guest));
    if (session.common.json) {
      const unsigned shown = verb.shown != 0 ? verb.shown : verb.options.parts;
      write_document(session.out, summary_of(guest), state, {.parts = shown});
    } else if (session.common.csv) {
      write_csv(session.out, state, verb.rows, session.common.headers);
      VMSIGHT_TRY_VOID(session.out.finish());
      print_warnings(state.problems);
    } else {
      verb.text(session.out, state, guest);
      VMSIGHT_TRY_VOID(session.out.finish());
      print_warnings(state.problems);
      if (verb.verdict) return verb.verdict(state);
    }
    return {};
  });
}

void print_warnings(const std::vector<Problem>& problems) {
  const std::size_t shown = std::min(problems.size(), max_warnings);
  for (std::size_t i = 0; i < shown; ++i) {
    fmt::print(stderr, "vmsight: warning: {}: {}\n", for_terminal(problems[i].where),
               for_terminal(problems[i].what));
  }
  if (problems.size() > shown) {
    fmt::print(stderr, "vmsight: warning: {} more problems; --json shows all\n",
               problems.size() - shown);
  }
}

}  // namespace vmsight

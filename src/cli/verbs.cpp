#include "cli/verb.h"

namespace vmsight {

extern const VerbInfo list_verb, info_verb, doctor_verb;
extern const VerbInfo ps_verb, lsof_verb, pmap_verb, ss_verb, ip_verb, findmnt_verb, stack_verb;
extern const VerbInfo lsmod_verb, dmesg_verb, lscpu_verb, uname_verb, state_verb, monitor_verb,
    snapshot_verb;
extern const VerbInfo read_verb, sym_verb, type_verb, print_verb;
extern const VerbInfo trace_verb, watch_verb, check_verb;
extern const VerbInfo study_verb;

namespace {

constexpr const VerbInfo* table[] = {
    &list_verb,  &info_verb,    &doctor_verb,                                             //
    &ps_verb,    &lsof_verb,    &pmap_verb,     &ss_verb,    &ip_verb,    &findmnt_verb,  //
    &stack_verb, &lsmod_verb,   &dmesg_verb,    &lscpu_verb, &uname_verb,                 //
    &state_verb, &monitor_verb, &snapshot_verb,                                           //
    &read_verb,  &sym_verb,     &type_verb,     &print_verb,                              //
    &trace_verb, &watch_verb,   &check_verb,                                              //
    &study_verb,
};

void declare_vm(CLI::App& app, const VerbInfo& verb, CommonOptions& common) {
  if (verb.vm == VmArgument::none) return;
  app.add_option("VM", common.vm, "name, PID, UUID, QMP socket, libvirt domain or image file")
      ->group("Arguments")
      ->required(verb.vm == VmArgument::required);
}

void declare_common(CLI::App& app, const VerbInfo& verb, CommonOptions& common) {
  const auto group = "Common options";
  common.sandbox = verb.keeps_rights.empty();
  if (verb.vm != VmArgument::none) {
    app.add_option(
           "--technique", common.technique,
           "how to read guest memory: auto (the default: the cheapest way that works), or a name "
           "such as live-map, halt-read or live-snap:fork; `vmsight doctor VM --all` lists all of "
           "them and says which work")
        ->group(group)
        ->type_name("NAME");
    app.add_flag("--consistent", common.wish.consistent,
                 "auto: a view must show one moment, proven or halted")
        ->group(group);
    app.add_flag("--no-pause", common.wish.no_pause, "auto: the guest must not be stopped")
        ->group(group);
    app.add_flag("--no-injection", common.wish.no_injection,
                 "auto: no system calls inside the QEMU process")
        ->group(group);
    app.add_option_function<double>(
           "--max-halt",
           [&](double ms) {
             common.wish.max_halt = std::chrono::milliseconds(static_cast<std::int64_t>(ms));
           },
           "the longest that one reading, or arming probes, may halt the guest, in milliseconds; "
           "then the guest runs "
           "on and vmsight fails with an error (default 1000, more for techniques that need more)")
        ->group(group)
        ->type_name("MS")
        ->check(CLI::Range(1.0, 3'600'000.0));
    app.add_option("--kernel", common.kernel,
                   "which kernel, if several were found: index or build id")
        ->group(group)
        ->type_name("WHICH");
    app.add_flag("--absent-is-zero", common.image.absent_is_zero,
                 "images: what a dump left out reads as zeros; else it is missing")
        ->group(group);
    app.add_option_function<std::string>(
           "--ranges",
           [&](const std::string& text) {
             auto ranges = parse_image_ranges(text);
             if (!ranges) throw CLI::ValidationError("--ranges", ranges.error().message);
             common.image.ranges = *std::move(ranges);
           },
           "images without a header: the ranges of RAM that follow each other in the file, as "
           "0x1000-0xa0000,0x100000-0x40000000 (ends are exclusive)")
        ->group(group)
        ->type_name("START-END,...");
    app.add_flag_callback(
           "--no-cache", [&] { common.use_cache = false; },
           "do not use what was learnt about kernels before")
        ->group(group);
    if (common.sandbox) {
      app.add_flag_callback(
             "--no-sandbox", [&] { common.sandbox = false; },
             "keep all rights while the guest's memory is interpreted")
          ->group(group);
    }
  }
  auto* json = app.add_flag("--json", common.json, "print JSON")->group(group);
  if (verb.shows_records && app.get_option_no_throw("--format") == nullptr) {
    app.add_option_function<std::string>(
           "--format",
           [&](const std::string& format) {
             common.json = format == "json";
             common.csv = format == "csv";
           },
           "text, json, or csv: a line a record, with the fields that --json has")
        ->group(group)
        ->type_name("FORMAT")
        ->check(CLI::IsMember({"text", "json", "csv"}))
        ->excludes(json);
  }
  app.add_flag_callback(
         "--no-headers", [&] { common.headers = false; }, "no line of headers")
      ->group(group);
  app.set_help_flag("-h,--help", "this text")->group(group);
}

}  // namespace

std::span<const VerbInfo* const> all_verbs() { return table; }

const VerbInfo* find_verb(std::string_view name) {
  for (const VerbInfo* verb : table) {
    if (verb->name == name) return verb;
  }
  return nullptr;
}

void declare_verb(CLI::App& app, const VerbInfo& info, Verb& verb, CommonOptions& common) {
  declare_vm(app, info, common);
  verb.declare(app);
  declare_common(app, info, common);
  // Declared all the same: the verb's own error says what to use instead.
  if (!info.refuses.empty()) app.get_option(std::string(info.refuses))->group("");
}

void declare_end(CLI::App& app, std::string_view what, std::optional<std::uint64_t>& count,
                 std::optional<double>& duration_s) {
  app.add_option("-n,--count", count, fmt::format("end after N {}", what))
      ->group("Schedule")
      ->type_name("N")
      ->check(positive());
  app.add_option("-d,--duration", duration_s, "end after this time")
      ->group("Schedule")
      ->type_name("SECONDS")
      ->check(positive());
}

}  // namespace vmsight

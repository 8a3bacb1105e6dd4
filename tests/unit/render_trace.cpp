// Events as lines and as JSON, in both styles.
#include "render/trace_text.h"

#include <gtest/gtest.h>

#include "render/strace.h"
#include "support/synthetic_guest.h"

namespace vmsight::render_trace_test {
namespace {

using namespace test;

ProbeArgument argument(std::string_view name, std::string text, std::uint64_t number,
                       std::string names = "") {
  return {.name = name,
          .type = "int",
          .known = true,
          .number = number,
          .is_signed = true,
          .text = std::move(text),
          .names = std::move(names)};
}

class TraceText : public ::testing::Test {
 protected:
  TraceText() : space_(guest_.space()), reader_(guest_.memory(), space_) {
    hit_.time_ns = 2'500'000'000;
    hit_.duration_ns = 41'000;
    hit_.at_return = true;
    hit_.task = {.task = GuestVirt(0xffff888000001000), .pid = 12, .tgid = 12, .comm = {"cat"}};
  }
  ProbeEvent event(std::string_view function) {
    return {.hit = hit_,
            .site = site_,
            .function = function,
            .arguments = arguments_,
            .result = result_ ? &*result_ : nullptr,
            .memory = reader_};
  }
  std::string strace(std::string_view function) { return strace_text(event(function)); }

  SyntheticGuest guest_;
  AddressSpace space_;
  Reader reader_;
  ProbeHit hit_;
  ProbeSite site_{.at_return = true, .function = "f"};
  std::vector<ProbeArgument> arguments_;
  std::optional<ProbeArgument> result_;
};

TEST_F(TraceText, SystemCallsLookLikeStrace) {
  arguments_ = {argument("dfd", "AT_FDCWD", static_cast<std::uint64_t>(-100), "AT_FDCWD"),
                argument("flags", "O_RDONLY", 0, "O_RDONLY"), argument("mode", "0177", 0177)};
  arguments_[2].unused = true;
  result_ = argument("retval", "-2 (ENOENT)", static_cast<std::uint64_t>(-2), "ENOENT");
  EXPECT_EQ(
      strace("openat"),
      "openat(AT_FDCWD, O_RDONLY)              = -1 ENOENT (No such file or directory) <41 us>");
  result_ = argument("retval", "3", 3);
  EXPECT_EQ(strace("openat"), "openat(AT_FDCWD, O_RDONLY)              = 3 <41 us>");
  result_ =
      argument("retval", "-512 (ERESTARTSYS)", static_cast<std::uint64_t>(-512), "ERESTARTSYS");
  EXPECT_EQ(strace("openat"),
            "openat(AT_FDCWD, O_RDONLY)              = ? ERESTARTSYS (To be restarted) <41 us>");
  result_->known = false;
  EXPECT_EQ(strace("openat"), "openat(AT_FDCWD, O_RDONLY)              = ? <41 us>");
}

TEST_F(TraceText, ExitsAndSignals) {
  hit_.at_return = false;
  arguments_ = {argument("error_code", "0", 0)};
  EXPECT_EQ(strace("exit_group"), "exit_group(0)                           = ?");
  arguments_ = {argument("code", "768", 0x300)};
  EXPECT_EQ(strace("do_exit"), "+++ exited with 3 +++");
  arguments_ = {argument("code", "139", 11 | 0x80)};
  EXPECT_EQ(strace("do_exit"), "+++ killed by SIGSEGV (core dumped) +++");
  arguments_ = {argument("code", "100", 100)};
  EXPECT_EQ(strace("do_exit"), "+++ killed by signal 100 +++");
  arguments_ = {argument("ksig.sig", "SIGCHLD", 17, "SIGCHLD")};
  EXPECT_EQ(strace("signal_setup_done"), "--- SIGCHLD ---");
  arguments_.clear();  // not known: as any function
  EXPECT_EQ(strace("do_exit"), "do_exit()                               = ?");
}

TEST_F(TraceText, NamesOfArgumentsAndTheJsonBeside) {
  arguments_ = {argument("dfd", "AT_FDCWD", static_cast<std::uint64_t>(-100), "AT_FDCWD"),
                argument("mode", "0177", 0177)};
  arguments_[1].unused = true;
  result_ = argument("retval", "-2 (ENOENT)", static_cast<std::uint64_t>(-2), "ENOENT");
  const std::string line = trace_line(event("openat"), {}, 1'000'000'000);
  EXPECT_EQ(
      line,
      "    1.500000   0 cat                  12  openat(dfd=AT_FDCWD) = -2 (ENOENT) <41 us>\n");
  const Json json = trace_json(event("openat"), {});
  EXPECT_EQ(json["arguments"]["dfd"], -100);
  EXPECT_EQ(json["arguments"]["mode"], 0177);
  EXPECT_EQ(json["names"].dump(), R"({"dfd":"AT_FDCWD","result":"ENOENT"})");
  EXPECT_EQ(json["unused"].dump(), R"(["mode"])");
  EXPECT_EQ(json["result"], -2);
}

TEST_F(TraceText, JsonTellsApartWhatTheTextDoes) {
  ProbeArgument path = argument("path", "\"/a\"...", 0x7fff0000);
  path.type = "const char *";
  path.is_pointer = path.is_text = path.cut = true;
  path.bytes = "/a";
  ProbeArgument null = path, missing = path,
                by_value = argument("pair", "? (16 bytes passed by value)", 7);
  null.name = "null", null.number = 0;
  missing.name = "missing", missing.known = false;
  for (ProbeArgument* one : {&null, &missing}) one->bytes.reset(), one->cut = false;
  by_value.known = false;
  arguments_ = {path, null, missing, by_value};
  ProbeEvent call = event("openat");
  call.abi = "i386";
  const Json json = trace_json(call, {});
  EXPECT_EQ(json["arguments"].dump(), R"({"path":"/a","null":null,"missing":null,"pair":null})");
  EXPECT_EQ(json["cut"].dump(), R"(["path"])");
  EXPECT_EQ(json["not_present"].dump(), R"(["missing"])");
  EXPECT_EQ(json["abi"], "i386");
  EXPECT_TRUE(strace_text(call).starts_with("[i386] openat(")) << strace_text(call);
  EXPECT_FALSE(trace_json(event("openat"), {}).contains("abi"));
}

TEST_F(TraceText, AMaskIsNoError) {
  arguments_ = {argument("mask", "022", 022, "022")};
  result_ = argument("retval", "027", 027, "027");
  EXPECT_EQ(strace("umask"), "umask(022)                              = 027 <41 us>");
}

TEST_F(TraceText, PerfettosFileNamesEachThreadOnce) {
  Output out;
  PerfettoFile file(out);
  file.add(event("read"));
  file.add(event("write"));
  hit_.task.comm = {"sh"};
  file.add(event("read"));
  file.end();
  const Json all = Json::parse(out.text())["traceEvents"];
  std::string kinds;
  for (const Json& one : all) kinds += one["ph"];
  EXPECT_EQ(kinds, "MMXXMMX");
  EXPECT_EQ(all[2]["ts"], 2'499'959.0);
  EXPECT_EQ(all[2]["dur"], 41.0);
  EXPECT_EQ(all[5]["args"]["name"], "sh");
}

TEST(TraceCounts, OfManyProbesOnlyThoseThatWereHit) {
  std::vector<ProbeInfo> probes(30);
  for (std::size_t i = 0; i < probes.size(); ++i) probes[i].site.function = "f" + std::to_string(i);
  probes[3].counts.hits = 2;
  probes[7].counts.hits = 5;
  Output out;
  print_probe_counts(out, probes);
  const std::string text(out.text());
  EXPECT_LT(text.find("f7"), text.find("f3"));
  EXPECT_EQ(text.find("f8"), text.npos);
  EXPECT_NE(text.find("28 more probes were not hit"), text.npos);
}

}  // namespace
}  // namespace vmsight::render_trace_test

#include "render/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/render_sample.h"

namespace vmsight::render_json_test {
namespace {

Json document(DocumentOptions options = {}) {
  State state;
  fill_sample(state);
  Output out;
  write_document(out, sample_vm(), state, options);
  return Json::parse(out.text());
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : object.items()) names.push_back(name);
  return names;
}

/// The keys that the schema promises come first, in this order; later ones may follow.
void expect_begins_with(const Json& object, const std::vector<std::string>& promised) {
  std::vector<std::string> names = keys(object);
  ASSERT_GE(names.size(), promised.size());
  names.resize(promised.size());
  EXPECT_EQ(names, promised);
}

TEST(StateDocument, HasThePromisedKeysInOrder) {
  const Json json = document();
  expect_begins_with(json, {"schema", "vm", "view", "os", "cpus", "net_devices", "modules",
                            "processes", "open_files", "memory_maps", "sockets", "mounts",
                            "kernel_log", "cgroups", "problems"});
  EXPECT_EQ(json["schema"], "vmsight.state/1");
  expect_begins_with(json["vm"], {"name", "pid", "accelerator", "vcpus", "memory_bytes"});
  expect_begins_with(json["view"],
                     {"technique", "paused", "start_ns", "duration_ns", "bytes_read", "pages",
                      "retries", "pause_ns", "consistency", "not_proven", "inconsistencies"});
  expect_begins_with(json["view"]["inconsistencies"],
                     {"list", "died", "recycled", "changed", "unreadable", "torn"});
  expect_begins_with(
      json["os"], {"sysname", "nodename", "release", "version", "machine", "uptime_s", "cmdline"});
  expect_begins_with(json["cpus"][0],
                     {"cpu", "vendor", "model_name", "mhz", "cache_kib", "online"});
  expect_begins_with(json["net_devices"][0],
                     {"name", "netns", "hwaddr", "flags", "mtu", "ipv4", "ipv6", "rx_bytes",
                      "tx_bytes", "rx_packets", "tx_packets"});
  expect_begins_with(json["modules"][0], {"name", "state", "size", "refcount"});
  expect_begins_with(
      json["processes"][0],
      {"pid",      "tgid",     "ppid",      "comm",          "cmdline", "state",
       "uid",      "gid",      "euid",      "kernel_thread", "threads", "start_time_ns",
       "utime_ns", "stime_ns", "rss_bytes", "vsize_bytes",   "exe",     "cwd",
       "pidns",    "mntns",    "netns",     "ns_pids",       "validity"});
  expect_begins_with(json["open_files"][0], {"pid", "fd", "type", "path", "pos", "flags", "inode"});
  expect_begins_with(json["memory_maps"][0],
                     {"pid", "start", "end", "perms", "offset", "path", "inode"});
  expect_begins_with(json["sockets"][0], {"pid", "fd", "netns", "family", "protocol", "state",
                                          "local", "local_port", "remote", "remote_port", "inode"});
  expect_begins_with(json["mounts"][0], {"source", "target", "fstype", "options", "mntns"});
  expect_begins_with(json["kernel_log"][0], {"time_ns", "level", "facility", "text"});
  expect_begins_with(json["problems"][0], {"where", "what"});
}

TEST(StateDocument, SpellsValuesAsTheSchemaSays) {
  const Json json = document();
  EXPECT_EQ(json["memory_maps"][1]["start"], "0x7f0000000000");
  EXPECT_EQ(json["memory_maps"][0]["perms"], "r-xp");
  EXPECT_EQ(json["open_files"][0]["flags"], "0100002");
  EXPECT_EQ(json["processes"][3]["validity"], "zombie");
  EXPECT_EQ(json["processes"][2]["ns_pids"], Json::parse("[42, 7]"));
  EXPECT_EQ(json["sockets"][2]["state"], "TIME_WAIT");
}

TEST(StateDocument, HasNullWhereNothingWasRead) {
  const Json json = document();
  EXPECT_TRUE(json["processes"][1]["cmdline"].is_null());
  EXPECT_TRUE(json["processes"][1]["exe"].is_null());
  EXPECT_TRUE(json["processes"][1]["rss_bytes"].is_null());
  EXPECT_TRUE(json["cpus"][1]["mhz"].is_null());
  EXPECT_TRUE(json["sockets"][2]["pid"].is_null());
  EXPECT_EQ(json["memory_maps"][1]["path"], "");  // anonymous: read, and empty
}

TEST(StateDocument, OfAnImageHasNeitherPidNorAccelerator) {
  const Json json = to_json(VmSummary{.name = "a.core", .memory_bytes = 4096});
  EXPECT_TRUE(json["pid"].is_null());
  EXPECT_TRUE(json["accelerator"].is_null());
}

TEST(StateDocument, NeverPrintsRawBytesOfTheGuest) {
  State state;
  fill_sample(state);
  Output out;
  write_document(out, sample_vm(), state, {});
  for (const unsigned char c : out.text()) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << c;
  const Json json = Json::parse(out.text());
  EXPECT_EQ(json["processes"][2]["cmdline"][2], "caf\\xe9");
  EXPECT_EQ(json["processes"][2]["comm"], "ser\x1b[2Jver");
}

TEST(StateDocument, CanBeOneLineAndPartsOnly) {
  State state;
  fill_sample(state);
  Output out;
  write_document(out, sample_vm(), state,
                 {.parts = part_processes | part_threads, .one_line = true});
  EXPECT_EQ(std::count(out.text().begin(), out.text().end(), '\n'), 1);
  EXPECT_THAT(keys(Json::parse(out.text())),
              testing::ElementsAre("schema", "vm", "view", "processes", "threads", "problems"));
}

}  // namespace
}  // namespace vmsight::render_json_test

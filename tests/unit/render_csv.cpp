#include "render/csv.h"

#include <gtest/gtest.h>
#include <functional>

namespace vmsight::render_csv_test {
namespace {

std::string csv_of(const State& state, Part part, bool headings = false) {
  Output out;
  write_csv(out, state, part, headings);
  return std::string(out.text());
}

std::string row_of(const std::function<void(CsvRow&)>& put) {
  CsvRow row;
  put(row);
  return std::string(row.written());
}

TEST(Csv, CellsAreSeparatedAndNullIsEmpty) {
  EXPECT_EQ(row_of([](CsvRow& row) {
              row.null();
              row.number(std::uint64_t{18446744073709551615u});
              row.number(std::int64_t{-1});
              row.boolean(true);
              row.number(0.5);
              row.text("word");
              row.null();
            }),
            ",18446744073709551615,-1,true,0.5,word,");
}

TEST(Csv, WhatCouldBeMisreadIsQuoted) {
  EXPECT_EQ(row_of([](CsvRow& row) {
              row.text("");
              row.text("a,b");
              row.text("say \"no\"");
              row.text(" led");
              row.text("trailed ");
            }),
            R"("","a,b","say ""no"""," led","trailed ")");
}

TEST(Csv, NothingOfTheGuestReachesATerminalRaw) {
  EXPECT_EQ(row_of([](CsvRow& row) { row.text("\x1b[31m\n\r\t\xff"); }),
            R"(\x1b[31m\x0a\x0d\x09\xff)");
}

TEST(Csv, ListsAndObjectsAreJsonInTheirCell) {
  EXPECT_EQ(row_of([](CsvRow& row) {
              row.begin_list();
              row.text("a\nb");
              row.begin_object();
              row.key("key");
              row.null();
              row.end_object();
              row.end_list();
              row.number(std::uint64_t{1});
              row.begin_list();
              row.end_list();
            }),
            R"("[""a\nb"",{""key"":null}]",1,"[]")");
}

TEST(Csv, ARecordIsALine) {
  State state;
  state.modules.push_back({.name = "ext4", .state = "Live", .size = 4096, .refcount = 1});
  state.modules.push_back({.name = "=cmd", .state = "Live", .size = 1});
  const std::string csv = csv_of(state, part_modules, true);
  EXPECT_EQ(csv,
            "name,state,size,refcount,used_by,base\n"
            "ext4,Live,4096,1,\"[]\",\n"
            "=cmd,Live,1,0,\"[]\",\n");
  EXPECT_EQ(csv_of(State{}, part_modules, true), "name,state,size,refcount,used_by,base\n");
  EXPECT_EQ(csv_of(State{}, part_modules), "");
}

TEST(Csv, AFieldThatNoRecordHasHasNoColumn) {
  State state;
  state.memory_maps.push_back({});
  EXPECT_EQ(csv_of(state, part_memory_maps, true).find("rss_bytes"), std::string::npos);
  state.memory_maps.push_back({.rss_bytes = 4096, .dirty_bytes = 0});
  const std::string csv = csv_of(state, part_memory_maps, true);
  EXPECT_NE(csv.find("rss_bytes"), std::string::npos);
  EXPECT_NE(csv.find(",4096,0\n"), std::string::npos) << csv;
}

}  // namespace
}  // namespace vmsight::render_csv_test

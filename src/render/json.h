// The state document as JSON (schema vmsight.state/1): keys are stable, new ones only ever come
// last in their object.
//
// Written record by record: memory stays bounded however many records there are. Non-ASCII text
// is written as \uNNNN, so that nothing of the guest reaches a terminal raw; bytes that are not
// UTF-8 appear as `\xNN`. What could not be read is null.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "render/output.h"
#include "vmsight/image.h"
#include "vmsight/state.h"

namespace vmsight {

using Json = nlohmann::ordered_json;

/// The `vm` object. Images have no PID and no accelerator.
struct VmSummary {
  std::string name;
  std::optional<int> pid;
  std::string_view accelerator{};  // nullptr: null
  std::optional<unsigned> vcpus;
  std::uint64_t memory_bytes = 0;
  std::string machine;              // "" : null
  std::vector<Problem> problems{};  // of an image; they stand before those of the state
};

struct Guest;
VmSummary summary_of(const Guest& guest);
std::vector<Problem> problems_of(const Image& image);

/// Where a document stands in a schedule (`monitor`): the `tick` object.
struct TickInfo {
  std::uint64_t number = 0;            // of the schedule; gaps are missed ticks
  std::uint64_t late_ns = 0;           // how long after its time this view began
  std::uint64_t late = 0, missed = 0;  // ticks so far
};

struct DocumentOptions {
  unsigned parts = part_all;  // which keys the document has
  bool one_line = false;      // for streams of documents; else a line a record
  std::optional<TickInfo> tick{};
};

void write_document(Output& out, const VmSummary& vm, const State& state,
                    const DocumentOptions& options);

/// A string of the guest: valid UTF-8, null if it was not read.
Json json_text(std::string_view text);
/// "0x7f..."
std::string json_address(std::uint64_t address);
/// One value as text for Output, in this document's encoding.
std::string dump(const Json& value);

Json to_json(const VmSummary& vm);
Json to_json(const ViewInfo& view);
Json to_json(const TickInfo& tick);
Json to_json(const OsInfo& os);
Json to_json(const Problem& problem);

}  // namespace vmsight

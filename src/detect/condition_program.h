// A condition as it is evaluated: a tree of comparisons, made by condition_parser.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "detect/comparison.h"
#include "detect/remembered.h"

namespace vmsight::detect {

struct ConditionCount {
  std::vector<std::string> keys;
  Memory::Window window;
  Operator op = Operator::greater;
  std::uint64_t number = 0;
};

enum class NodeKind : std::uint8_t { all, any, negate, comparison, count };

struct ConditionNode {
  NodeKind kind = NodeKind::comparison;
  std::uint32_t index = 0;                // of the comparison or the count
  std::vector<std::uint32_t> children{};  // nodes
};

struct ConditionProgram {
  std::vector<ConditionNode> nodes;
  std::vector<Comparison> comparisons;
  std::vector<ConditionCount> counts;
  std::uint32_t root = 0;
};

}  // namespace vmsight::detect

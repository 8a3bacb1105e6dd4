// The study of techniques as a document (schema vmsight.study.techniques/1) and as text.
#pragma once

#include <vector>

#include "render/json.h"
#include "render/output.h"
#include "render/table.h"
#include "study/techniques.h"

namespace vmsight {

Json techniques_document(const VmInfo& info, const TechniquesOptions& options,
                         const std::vector<TechniqueRow>& rows);

void print_techniques(Output& out, const std::vector<TechniqueRow>& rows,
                      const TableOptions& options);

/// What `study loop` says at its end.
Json loop_document(std::string_view technique, double rate, const LoopOutcome& outcome);

}  // namespace vmsight

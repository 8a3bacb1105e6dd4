// The studies as documents (vmsight.study.techniques/1, .probes/1, .consistency/1) and as text.
#pragma once

#include <vector>

#include "render/json.h"
#include "render/output.h"
#include "render/table.h"
#include "study/consistency.h"
#include "study/probes.h"
#include "study/techniques.h"

namespace vmsight {

Json techniques_document(const VmInfo& info, const TechniquesOptions& options,
                         const std::vector<TechniqueRow>& rows);

void print_techniques(Output& out, const std::vector<TechniqueRow>& rows,
                      const TableOptions& options);

/// The study of probes (schema vmsight.study.probes/1).
Json probes_document(const VmInfo& info, const ProbesOptions& options, const ProbesStudy& study);
void print_probes(Output& out, const ProbesOptions& options, const ProbesStudy& study,
                  const TableOptions& table);

/// The study of consistency (schema vmsight.study.consistency/1).
Json consistency_document(const VmInfo& info, const ConsistencyStudyOptions& options,
                          const std::vector<WayOutcome>& ways);
void print_consistency(Output& out, const std::vector<WayOutcome>& ways, const TableOptions& table);

/// What `study loop` says at its end.
Json loop_document(std::string_view technique, double rate, const LoopOutcome& outcome);

}  // namespace vmsight

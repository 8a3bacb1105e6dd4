// Being told to end: verbs that run on and on then end as they would by themselves.
#pragma once

#include <initializer_list>

namespace vmsight {

/// From now on these signals only set what told_to_end() tells. System calls that wait are interrupted.
void end_orderly_on(std::initializer_list<int> signals);
bool told_to_end();

}  // namespace vmsight

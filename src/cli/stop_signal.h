// Signals that verbs which run on and on obey: to end as they would by themselves, and to look again.
#pragma once

#include <initializer_list>

namespace vmsight {

/// From now on these signals only set what told_to_end() tells. System calls that wait are interrupted.
void end_orderly_on(std::initializer_list<int> signals);
bool told_to_end();

/// From now on this signal only sets what take_reload() tells, once each time.
void reload_on(int signal);
bool take_reload();

}  // namespace vmsight

#include "vmsight/version.h"

const char* vmsight_version(void) { return VMSIGHT_VERSION; }

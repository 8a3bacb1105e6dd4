/* Which libvmsight a program runs with; it may be another than it was built with. */
#ifndef VMSIGHT_VERSION_H
#define VMSIGHT_VERSION_H

#include "vmsight/public.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
VMSIGHT_PUBLIC const char* vmsight_version(void);

#ifdef __cplusplus
}
#endif
#endif

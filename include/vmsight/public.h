/* What libvmsight.so shows of itself: all of these headers declare, and nothing else. */
#ifndef VMSIGHT_PUBLIC_H
#define VMSIGHT_PUBLIC_H

#ifdef __cplusplus
#define VMSIGHT_PUBLIC [[gnu::visibility("default")]]
#else
#define VMSIGHT_PUBLIC __attribute__((visibility("default")))
#endif

#endif

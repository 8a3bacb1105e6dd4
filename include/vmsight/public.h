/* What libvmsight.so shows of itself: all of these headers declare, and nothing else. */
#ifndef VMSIGHT_PUBLIC_H
#define VMSIGHT_PUBLIC_H

#define VMSIGHT_PUBLIC __attribute__((visibility("default")))

#endif

// The reference guest: what benchmarks read. It has the same counts with every kernel, however many
// threads that has of its own.
#include <sys/prctl.h>

#include "puppet.h"

// At least 156 processes, 186 threads, 1,325 open files of which 90 sockets, and 1,380 maps: the
// guest that other tools were measured on. The few above are for idle kworkers, which end after minutes.
static const Census wanted = {
    .processes = 160, .threads = 190, .files = 1330, .sockets = 91, .maps = 1386};

static int at_least(int a, int b) { return a > b ? a : b; }

static int hold_sockets(int sets) {
  prctl(PR_SET_NAME, "sockets");
  return open_sockets(sets);
}

static int hold_more_sockets(int count) {
  prctl(PR_SET_NAME, "more sockets");
  return open_more_sockets(count);
}

// `own`: what a worker has without being told to.
static Worker draw_share(Census now, Census own, int workers_left) {
  Worker worker = draw_worker();
  int more_threads = wanted.threads - now.threads - workers_left;
  worker.threads = more_threads >= 2 ? 3 : 1 + at_least(more_threads, 0);
  worker.files = at_least((wanted.files - now.files) / workers_left - own.files, 0);
  worker.areas = at_least((wanted.maps - now.maps) / workers_left - own.maps, 0);
  return worker;
}

static int fill_with_workers(Census now) {
  Census own = {0};
  for (int left = wanted.processes - now.processes; left > 0; left--) {
    Worker worker = draw_share(now, own, left);
    pid_t pid = start_worker(&worker);
    if (pid < 0) return -1;
    Census one = count_process(pid);
    own.files = one.files - worker.files;
    own.maps = one.maps - worker.areas;
    now = add_census(now, one);
  }
  return 0;
}

int make_reference(void) {
  if (spawn(hold_sockets, 1) < 0 || make_special() || make_maps() || make_container()) return -1;
  int missing = wanted.sockets - count_all().sockets;
  if ((missing > 0 && spawn(hold_more_sockets, missing) < 0) || fill_with_workers(count_all()))
    return -1;
  Census all = count_all();
  channel_print("%d processes, %d threads, %d open files of which %d sockets, %d maps\n",
                all.processes, all.threads, all.files, all.sockets, all.maps);
  return 0;
}

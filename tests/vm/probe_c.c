// probe_c VM SITE FILTER SECONDS - the library's C functions, as another program would use them: prints
// a line an event, and the counts.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "vmsight/vmsight.h"

static void print(const vmsight_probe_event* event, void* context) {
  ++*(int*)context;
  printf("event %d %s %s", event->pid, event->comm, event->function);
  for (size_t i = 0; i < event->argument_count; i++)
    printf(" %s=%s", event->arguments[i]->name, event->arguments[i]->text);
  if (event->result) printf(" result=%s", event->result->text);
  // RIP of a kernel probe is kernel code: what stands there can be read.
  unsigned char code[4];
  printf(" code=%zu", vmsight_probe_read(event, event->rip, code, sizeof(code)));
  // The address of a text is the program's: there is its first letter.
  char letter = 0;
  for (size_t i = 0; i < event->argument_count; i++)
    if (event->arguments[i]->bytes && event->arguments[i]->number < 1ULL << 63)
      printf(" user=%zu", vmsight_probe_read(event, event->arguments[i]->number, &letter, 1));
  printf(" letter=%c\n", letter ? letter : '?');
}

static void place(const char* site, uint64_t address, int32_t process, void* context) {
  (void)context;
  printf("place %s %d %d\n", site, address != 0, process);
}

int main(int count, char** arguments) {
  vmsight_error why = VMSIGHT_ERROR;
  int events = 0;
  uint32_t first = 0;
  if (count != 5) return 2;
  vmsight_survive_lost_memory(NULL);
  vmsight_guest* guest = vmsight_attach(arguments[1], NULL, &why);
  vmsight_prober* prober = guest ? vmsight_prober_open(guest, NULL, &why) : NULL;
  if (!prober) {
    fprintf(stderr, "open: %s\n", why.message);
    vmsight_detach(guest);
    return 1;
  }
  // The handler reads memory: the guest must stand, or a process may have ended meanwhile.
  vmsight_probe_request request = {.size = sizeof(request),
                                   .site = arguments[2],
                                   .filter = arguments[3],
                                   .handler = print,
                                   .context = &events,
                                   .standing = 1};
  printf("engine %s, sites %d\n", vmsight_prober_engine(prober),
         vmsight_prober_find(prober, &request, place, NULL, &why));
  if (vmsight_prober_add(prober, &request, &first, &why) != 1) {
    fprintf(stderr, "add: %s; %s\n", why.message, why.hint);
    vmsight_prober_close(prober);
    vmsight_detach(guest);
    return 1;
  }
  puts("armed");
  fflush(stdout);
  for (time_t end = time(NULL) + atoi(arguments[4]); time(NULL) < end;)
    if (vmsight_prober_poll(prober, 100, &why) < 0) fprintf(stderr, "poll: %s\n", why.message);
  vmsight_probe_counts counts = VMSIGHT_PROBE_COUNTS;
  int known = vmsight_prober_counts(prober, first, &counts, &why);
  printf("counts %d %d %" PRIu64 "\n", known, events, counts.told);
  int removed = vmsight_prober_remove(prober, first, &why);
  vmsight_prober_close(prober);
  vmsight_detach(guest);
  return removed;
}

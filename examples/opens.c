/* Which files the programs of a VM open, for ten seconds: a probe in the guest's kernel.
 *
 *   cc opens.c $(pkg-config --cflags --libs vmsight) -o opens
 *   sudo ./opens web1 */
#include <stdio.h>
#include <time.h>

#include <vmsight/vmsight.h>

/* What a guest calls itself may hold anything; a terminal must not obey it. */
static void put(const char* text) {
  for (; *text != 0; text++) putchar(*text < ' ' || *text > '~' ? '?' : *text);
}

static void print(const vmsight_probe_event* event, void* context) {
  (void)context;
  for (size_t i = 0; i < event->argument_count; i++) {
    const vmsight_probe_argument* argument = event->arguments[i];
    if (argument->bytes == NULL) continue; /* not a text */
    put(event->comm);
    printf(" (%d) opens %s\n", event->tgid, argument->text); /* escaped by the library */
    fflush(stdout);
  }
}

int main(int count, char** words) {
  if (count != 2) return fputs("usage: opens VM\n", stderr), 2;
  vmsight_error why = VMSIGHT_ERROR;
  vmsight_survive_lost_memory(NULL); /* so that memory may be mapped, which is fastest */
  vmsight_guest* guest = vmsight_attach(words[1], NULL, &why);
  vmsight_prober* prober = guest ? vmsight_prober_open(guest, NULL, &why) : NULL;
  vmsight_probe_request request = VMSIGHT_PROBE_REQUEST;
  request.site = "kprobe:do_sys_openat2";
  request.handler = print;
  int armed = prober ? vmsight_prober_add(prober, &request, NULL, &why) : -1;
  for (time_t end = time(NULL) + 10; armed > 0 && time(NULL) < end;)
    if (vmsight_prober_poll(prober, 100, &why) < 0) armed = -1;
  if (armed <= 0) fprintf(stderr, "opens: %s\nhint: %s\n", why.message, why.hint);
  vmsight_prober_close(prober); /* the guest's code is as it was */
  vmsight_detach(guest);
  return armed > 0 ? 0 : 1;
}

/* The records of one kind, with all their fields: `records web1 mounts`; without a kind, the kinds.
 *
 *   cc records.c $(pkg-config --cflags --libs vmsight) -o records
 *   sudo ./records web1 net_devices */
#include <inttypes.h>
#include <stdio.h>

#include <vmsight/vmsight.h>

static void print(const vmsight_field* field, const vmsight_value* value) {
  printf("  %s: ", field->name);
  switch (value->type) {
    case VMSIGHT_NULL:
      printf("-");
      break;
    case VMSIGHT_BOOLEAN:
      printf("%s", value->number.as_boolean ? "yes" : "no");
      break;
    case VMSIGHT_UNSIGNED:
      printf("%" PRIu64, value->number.as_unsigned);
      break;
    case VMSIGHT_SIGNED:
      printf("%" PRId64, value->number.as_signed);
      break;
    case VMSIGHT_REAL:
      printf("%g", value->number.as_real);
      break;
    case VMSIGHT_TEXT: /* the guest's bytes: control characters must not reach a terminal */
      for (size_t i = 0; i < value->text_bytes; i++) {
        const unsigned char byte = (unsigned char)value->text[i];
        putchar(byte < ' ' || byte > '~' ? '?' : byte);
      }
      break;
    case VMSIGHT_LIST:
    case VMSIGHT_OBJECT:
      printf("%s", value->text);
      break;
  }
  printf(*field->unit ? " %s\n" : "\n", field->unit);
}

int main(int count, char** words) {
  if (count < 2 || count > 3) return fputs("usage: records VM [KIND]\n", stderr), 2;
  if (count == 2) {
    for (size_t i = 0; vmsight_kind(i) != NULL; i++) puts(vmsight_kind(i));
    return 0;
  }
  vmsight_error why = VMSIGHT_ERROR;
  vmsight_survive_lost_memory(NULL); /* so that memory may be mapped, which is fastest */
  vmsight_guest* guest = vmsight_attach(words[1], NULL, &why);
  vmsight_state_options options = VMSIGHT_STATE_OPTIONS;
  options.parts = words[2];
  vmsight_state* state = guest ? vmsight_read_state(guest, &options, &why) : NULL;
  vmsight_records* records = state ? vmsight_records_of(state, words[2], &why) : NULL;
  for (int number = 1; records && vmsight_next_record(records); number++) {
    printf("%s %d\n", words[2], number);
    vmsight_field field = VMSIGHT_FIELD;
    for (size_t i = 0; vmsight_field_of(words[2], i, &field, NULL) > 0; i++) {
      vmsight_value value = VMSIGHT_VALUE;
      if (vmsight_get(records, field.name, &value, NULL) == 0) print(&field, &value);
    }
  }
  const char* problem;
  for (size_t i = 0; state && (problem = vmsight_state_problem(state, i)); i++)
    fprintf(stderr, "records: not readable: %s\n", problem);
  if (!records) fprintf(stderr, "records: %s\nhint: %s\n", why.message, why.hint);
  const int failed = records == NULL;
  vmsight_free_records(records);
  vmsight_free_state(state);
  vmsight_detach(guest);
  return failed;
}

// Reading one's own /proc: the numbers in a directory, and how much there is of everything.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "puppet.h"

static int by_value(const void* a, const void* b) {
  int x = *(const int*)a, y = *(const int*)b;
  return (x > y) - (x < y);
}

int* numbers_in(const char* path, int* count) {
  DIR* directory = opendir(path);
  int* numbers = NULL;
  *count = 0;
  for (struct dirent* entry; directory && (entry = readdir(directory));) {
    if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
    if (*count % 1024 == 0) numbers = realloc(numbers, (*count + 1024) * sizeof(int));
    numbers[(*count)++] = atoi(entry->d_name);
  }
  if (directory) closedir(directory);
  if (numbers) qsort(numbers, *count, sizeof(int), by_value);
  return numbers;
}

static int count_lines(const char* path) {
  char buffer[1 << 14];
  int fd = open(path, O_RDONLY | O_CLOEXEC), lines = 0;
  for (ssize_t size; fd >= 0 && (size = read(fd, buffer, sizeof(buffer))) > 0;)
    for (char* at = buffer; (at = memchr(at, '\n', buffer + size - at)); at++) lines++;
  close(fd);
  return lines;
}

static void count_files(int pid, Census* census) {
  char path[64], target[16];
  int count;
  snprintf(path, sizeof(path), "/proc/%d/fd", pid);
  int* fds = numbers_in(path, &count);
  for (int i = 0; i < count; i++) {
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fds[i]);
    ssize_t size = readlink(path, target, sizeof(target));
    census->files += size > 0;
    census->sockets += size > 7 && memcmp(target, "socket:", 7) == 0;
  }
  free(fds);
}

Census count_process(int pid) {
  Census census = {.processes = 1};
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/task", pid);
  free(numbers_in(path, &census.threads));
  snprintf(path, sizeof(path), "/proc/%d/maps", pid);
  census.maps = count_lines(path);
  count_files(pid, &census);
  return census;
}

Census add_census(Census a, Census b) {
  return (Census){a.processes + b.processes, a.threads + b.threads, a.files + b.files,
                  a.sockets + b.sockets, a.maps + b.maps};
}

Census count_all(void) {
  Census census = {0};
  int count;
  int* pids = numbers_in("/proc", &count);
  for (int i = 0; i < count; i++) census = add_census(census, count_process(pids[i]));
  free(pids);
  return census;
}

/* Gives an engine a clock of the test's (LD_PRELOAD): the file CLOCK_FILE holds how many microseconds it is ahead of this machine's,
 * as eight bytes in the machine's order. The monotonic clock stays as it is, as where a person or NTP sets a clock.
 *
 * It asks the kernel and no library, so it works before anything is initialised: allocators ask for the time at their start, and
 * libfaketime then lets Redis 8 and Valkey end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void attach(void) {
  const char *path = getenv("CLOCK_FILE");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *memory = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  if (memory != MAP_FAILED) ahead = memory;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (failed || !ahead || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return failed;
  int64_t nanos = now->tv_nsec + *ahead % 1000000 * 1000;
  now->tv_sec += *ahead / 1000000 + (nanos < 0 ? -1 : nanos / 1000000000);
  now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *to) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}

/* Loaded before the C library (LD_PRELOAD) into the daemon: its wall clock is that of the system and
 * as many seconds more as the file PHPMQ_WALL says, eight bytes that clock.py changes while the
 * daemon runs. Other clocks are what they are.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

static void __attribute__((constructor)) start(void)
{
	const char *path = getenv("PHPMQ_WALL");
	int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	void *page;

	if (file < 0)
		return;
	page = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, file, 0);
	if (page != MAP_FAILED)
		ahead = page;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = syscall(SYS_clock_gettime, clock, time);

	if (result == 0 && clock == CLOCK_REALTIME && ahead != NULL)
		time->tv_sec += *ahead;
	return result;
}

/* Settings of the C library's malloc, made before anything is allocated. There is no safe call for
   them in Rust, and environment variables would have to be set by whoever starts the program.

   By default a freed block of up to 32 MiB raises the size from which on blocks are mapped one by
   one: from then on large bodies come from the arenas of the threads that read them, and each arena
   keeps twice that size when it is freed. With eight senders of 12 MB the daemon then had four times
   limits.max_memory resident.

   Each of the first threads gets an arena of its own, for which 64 MiB of address space are set aside:
   under `ulimit -v` they would take what messages need. There two have to do for all threads. */

#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>

#ifdef __GLIBC__

/* Blocks from this size on are mapped, and given back to the system when they are freed. */
#define MAPPED_BYTES_MIN (1024 * 1024)
/* What an arena keeps at its end when it is freed. */
#define ARENA_KEEPS_BYTES (1024 * 1024)
/* Arenas where the address space is limited; the configuration counts on that (src/config/memory.rs). */
#define ARENAS_MAX_LIMITED 2

__attribute__((constructor)) static void set_up_malloc(void)
{
    if (getenv("GLIBC_TUNABLES") || getenv("MALLOC_MMAP_THRESHOLD_"))
        return;
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    mallopt(M_TRIM_THRESHOLD, ARENA_KEEPS_BYTES);
    struct rlimit address_space;
    if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY)
        mallopt(M_ARENA_MAX, ARENAS_MAX_LIMITED);
}

#endif

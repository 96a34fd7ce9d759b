/* Loaded before the C library (LD_PRELOAD) into the daemon: writes down all that is done to the
 * files below PHPMQ_RECORD_BELOW, in order, to PHPMQ_RECORD, so that power_cut.py can say what a
 * disk may hold if the power had gone instead of the process.
 *
 * A call is noted after it was made and before its caller knows: what is not noted was never
 * relied on. A record is five numbers of eight bytes (kind, file, position, length of the name,
 * length of the data), the name, and the data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t files[DESCRIPTORS_MAX];
static const char *below;
static int output = -1;

static void __attribute__((constructor)) start(void)
{
	const char *path = getenv("PHPMQ_RECORD");

	below = getenv("PHPMQ_RECORD_BELOW");
	if (path != NULL && below != NULL)
		output = syscall(SYS_openat, AT_FDCWD, path,
				 O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);

	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* The name of a file that counts, without the folder; that of the folder itself is empty. */
static const char *name_of(const char *path)
{
	size_t length;

	if (output < 0)
		return NULL;
	length = strlen(below);
	if (strncmp(path, below, length) != 0)
		return NULL;
	if (path[length] == 0)
		return path + length;
	/* The configuration is none of the daemon's own files. */
	if (strncmp(path + length, "/q.db", 5) != 0 || ends_with(path, ".lock") || ends_with(path, "-shm") ||
	    ends_with(path, ".probe") || ends_with(path, ".ballast"))
		return NULL;
	return path + length + 1;
}

static void note(char kind, uint64_t file, uint64_t position, const char *name,
		 const void *data, size_t length)
{
	uint64_t numbers[5] = { kind, file, position, strlen(name), length };
	struct iovec parts[3] = {
		{ numbers, sizeof numbers },
		{ (void *)name, strlen(name) },
		{ (void *)data, length },
	};

	if (syscall(SYS_writev, output, parts, 3) < 0)
		abort();
}

static uint64_t file_of(int descriptor)
{
	if (descriptor < 0 || descriptor >= DESCRIPTORS_MAX)
		return 0;
	return files[descriptor];
}

static int open_it(const char *path, int flags, mode_t mode)
{
	const char *name = name_of(path);
	struct stat status;
	int existed, descriptor;

	if (name == NULL)
		return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	pthread_mutex_lock(&lock);
	existed = stat(path, &status) == 0;
	descriptor = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX && fstat(descriptor, &status) == 0) {
		files[descriptor] = status.st_ino;
		note(existed ? 'O' : 'N', status.st_ino, 0, name, "", 0);
		if (existed && (flags & O_TRUNC))
			note('T', status.st_ino, 0, "", "", 0);
	}
	pthread_mutex_unlock(&lock);
	return descriptor;
}

int open(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode;

	va_start(rest, flags);
	mode = va_arg(rest, unsigned);
	va_end(rest);
	return open_it(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list rest;
	mode_t mode;

	va_start(rest, flags);
	mode = va_arg(rest, unsigned);
	va_end(rest);
	return open_it(path, flags, mode);
}

int close(int descriptor)
{
	if (file_of(descriptor) != 0)
		files[descriptor] = 0;
	return syscall(SYS_close, descriptor);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t position)
{
	ssize_t written;

	if (file_of(descriptor) == 0)
		return syscall(SYS_pwrite64, descriptor, data, length, position);
	pthread_mutex_lock(&lock);
	written = syscall(SYS_pwrite64, descriptor, data, length, position);
	if (written > 0)
		note('W', files[descriptor], position, "", data, written);
	pthread_mutex_unlock(&lock);
	return written;
}

int ftruncate64(int descriptor, off64_t length)
{
	int result;

	if (file_of(descriptor) == 0)
		return syscall(SYS_ftruncate, descriptor, length);
	pthread_mutex_lock(&lock);
	result = syscall(SYS_ftruncate, descriptor, length);
	if (result == 0)
		note('T', files[descriptor], length, "", "", 0);
	pthread_mutex_unlock(&lock);
	return result;
}

static int sync_it(int descriptor, long number)
{
	int result;

	if (file_of(descriptor) == 0)
		return syscall(number, descriptor);
	pthread_mutex_lock(&lock);
	result = syscall(number, descriptor);
	if (result == 0)
		note('S', files[descriptor], 0, "", "", 0);
	pthread_mutex_unlock(&lock);
	return result;
}

int fsync(int descriptor)
{
	return sync_it(descriptor, SYS_fsync);
}

int fdatasync(int descriptor)
{
	return sync_it(descriptor, SYS_fdatasync);
}

int rename(const char *from, const char *to)
{
	const char *old_name = name_of(from), *new_name = name_of(to);
	int result;

	if (old_name == NULL || new_name == NULL)
		return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
	pthread_mutex_lock(&lock);
	result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
	if (result == 0)
		note('R', 0, 0, old_name, new_name, strlen(new_name));
	pthread_mutex_unlock(&lock);
	return result;
}

int unlink(const char *path)
{
	const char *name = name_of(path);
	int result;

	if (name == NULL)
		return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
	pthread_mutex_lock(&lock);
	result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
	if (result == 0)
		note('U', 0, 0, name, "", 0);
	pthread_mutex_unlock(&lock);
	return result;
}

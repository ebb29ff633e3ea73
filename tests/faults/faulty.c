// Preloaded into a process: lets the n-th call that changes files under a folder fail, or end the
// process, as a full disk, a broken one, or a loss of power would.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char under[PATH_MAX];
static long left, seen;
static int action; // an errno, or minus a signal

void faulty_arm(const char *folder, long at, int what) {
	snprintf(under, sizeof under, "%s", folder);
	left = at;
	seen = 0;
	action = what;
}

long faulty_seen(void) { return seen; }

static int within(const char *path) { return *under && strncmp(path, under, strlen(under)) == 0; }

static int within_fd(int fd) {
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = 0;
	return within(path);
}

// Whether this call is the one to fail; a signal comes before the call does anything.
static int fails(int counts) {
	if (!counts)
		return 0;
	__atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
	if (__atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST) != 0)
		return 0;
	if (action < 0) {
		kill(getpid(), -action);
		return 0;
	}
	errno = action;
	return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(result, name, parameters, counts, ...)        \
	result name parameters {                               \
		return fails(counts) ? -1 : REAL(name)(__VA_ARGS__); \
	}

WRAP(int, rename, (const char *old, const char *new), within(new), old, new)

// FAULTY_PLAIN: as on a system that can only rename.
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) {
	if (getenv("FAULTY_PLAIN")) {
		errno = ENOSYS;
		return -1;
	}
	return fails(within(new)) ? -1 : REAL(renameat2)(a, old, b, new, flags);
}

WRAP(int, link, (const char *old, const char *new), within(new), old, new)
WRAP(int, unlink, (const char *path), within(path), path)
WRAP(int, unlinkat, (int fd, const char *path, int flags), within_fd(fd), fd, path, flags)
WRAP(int, mkdir, (const char *path, mode_t mode), within(path), path, mode)
WRAP(int, rmdir, (const char *path), within(path), path)
WRAP(int, chmod, (const char *path, mode_t mode), within(path), path, mode)
WRAP(int, fsync, (int fd), within_fd(fd), fd)
WRAP(int, flock, (int fd, int operation), within_fd(fd), fd, operation)
WRAP(int, ftruncate, (int fd, off_t size), within_fd(fd), fd, size)
WRAP(int, ftruncate64, (int fd, off_t size), within_fd(fd), fd, size)
WRAP(ssize_t, write, (int fd, const void *data, size_t size), within_fd(fd), fd, data, size)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), within_fd(fd), fd, data, size, at)
WRAP(ssize_t, sendfile64, (int out, int in, off64_t *at, size_t size), within_fd(out), out, in, at, size)

#define OPEN(name)                                                          \
	int name(const char *path, int flags, ...) {                            \
		va_list more;                                                       \
		va_start(more, flags);                                              \
		mode_t mode = va_arg(more, mode_t);                                 \
		va_end(more);                                                       \
		int changes = (flags & O_CREAT) || (flags & O_ACCMODE) != O_RDONLY;         \
		return fails(changes && within(path)) ? -1 : REAL(name)(path, flags, mode); \
	}
OPEN(open)
OPEN(open64)

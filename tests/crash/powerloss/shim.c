/* A disk that remembers what was made durable (LD_PRELOAD).
 *
 * Every change of files below SHIM_ROOT is done and, in one order for all threads, told to
 * SHIM_LOG: replay.py makes of it what a power cut would have left. fsync takes
 * `sync_delay_us` and moves nothing: what it covers is settled when it begins, and counts when
 * it has returned. SHIM_CONTROL is a page that the test writes: see `struct control`.
 *
 * Not told: writes through a mapping, O_TMPFILE, directories that are renamed. A call that would
 * change files in a way that is not known here (copy_file_range, link, …) ends the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define REAL(name) ({ static __typeof__(&name) found; if (!found) found = real(#name); found; })

struct control {
    int64_t clock_ns;      /* by which the time is another */
    int32_t full;          /* no octet more fits below the root: ENOSPC */
    int32_t sync_delay_us;
    int32_t sync_fails;    /* fsync: EIO */
};

struct entry { /* a line of the log, followed by `length` octets */
    uint32_t kind;
    uint32_t length;
    uint64_t file; /* inode; of a directory too */
    int64_t at;    /* offset, size, or the name of an fsync */
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static unsigned char watched[MAX_FD]; /* descriptors below the root */
static char root[4096];
static size_t root_length;
static int log_fd = -1;
static int64_t syncs;
static struct control none;
static struct control *control = &none;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }
static void die(const char *why) {
    _exit(dprintf(2, "shim: %s\n", why) < 0 ? 98 : 97);
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG"), *page = getenv("SHIM_CONTROL");
    if (!dir || !log || !page) return;
    snprintf(root, sizeof root, "%s", dir);
    int fd = REAL(open)(page, O_RDONLY | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) die("no control page");
    control = map;
    close(fd);
    fd = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 1000); /* where nobody looks for it */
    if (log_fd < 0) die("no log");
    root_length = strlen(root);
}

static void tell(uint32_t kind, uint64_t file, int64_t at, const void *data, size_t length) {
    struct entry entry = {kind, (uint32_t)length, file, at};
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)data, length}};
    if (REAL(writev)(log_fd, parts, 2) != (ssize_t)(sizeof entry + length)) die("the log cannot be written");
}

static int below(const char *path) { /* the root too; relative paths are not: nobody works there */
    return root_length && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || !path[root_length]);
}

static int is_watched(int fd) { return fd >= 0 && fd < MAX_FD && watched[fd]; }

static uint64_t inode(int fd) {
    struct stat state;
    if (fstat(fd, &state) != 0) die("fstat");
    return state.st_ino;
}

/* -- files ------------------------------------------------------------------------------ */

static int opened(const char *path, int flags, mode_t mode) {
    struct stat state;
    if ((flags & O_TMPFILE) == O_TMPFILE || !below(path)) return REAL(open)(path, flags, mode);
    pthread_mutex_lock(&order);
    int fresh = (flags & O_CREAT) && lstat(path, &state) != 0;
    if (fresh && control->full) {
        pthread_mutex_unlock(&order);
        errno = ENOSPC;
        return -1;
    }
    int fd = REAL(open)(path, flags, mode);
    if (fd >= MAX_FD) die("too many descriptors");
    if (fd >= 0) {
        watched[fd] = 1;
        if (fresh) tell('c', inode(fd), 0, path, strlen(path));
        else if (flags & O_TRUNC) tell('t', inode(fd), 0, NULL, 0);
    }
    int saved = errno;
    pthread_mutex_unlock(&order);
    errno = saved;
    return fd;
}

#define WITH_MODE(mode) \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);

int open(const char *path, int flags, ...) { WITH_MODE(mode) return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE(mode) return opened(path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) {
    WITH_MODE(mode)
    if (dir == AT_FDCWD || path[0] == '/') return opened(path, flags, mode);
    if ((flags & O_CREAT) && is_watched(dir)) die("openat in a directory");
    return REAL(openat64)(dir, path, flags, mode);
}

int close(int fd) {
    if (is_watched(fd)) watched[fd] = 0;
    return REAL(close)(fd);
}

#define WRITTEN(call, offset) \
    if (!is_watched(fd)) return call; \
    pthread_mutex_lock(&order); \
    ssize_t done = -1; \
    if (control->full) errno = ENOSPC; \
    else done = call; \
    int saved = errno; \
    if (done > 0) tell('w', inode(fd), offset, data, (size_t)done); \
    pthread_mutex_unlock(&order); \
    errno = saved; \
    return done;

ssize_t write(int fd, const void *data, size_t size) {
    WRITTEN(REAL(write)(fd, data, size), lseek(fd, 0, SEEK_CUR) - done)
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { WRITTEN(REAL(pwrite)(fd, data, size, at), at) }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { WRITTEN(REAL(pwrite64)(fd, data, size, at), at) }

static int cut(int fd, off64_t size) {
    pthread_mutex_lock(&order);
    int done = REAL(ftruncate64)(fd, size);
    int saved = errno;
    if (done == 0 && is_watched(fd)) tell('t', inode(fd), size, NULL, 0);
    pthread_mutex_unlock(&order);
    errno = saved;
    return done;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int synced(int fd, int (*call)(int)) {
    if (!is_watched(fd)) return call(fd);
    if (control->sync_fails) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&order);
    int64_t number = (int64_t)getpid() << 32 | ++syncs;
    tell('s', inode(fd), number, NULL, 0);
    pthread_mutex_unlock(&order);
    if (control->sync_delay_us) usleep((useconds_t)control->sync_delay_us);
    pthread_mutex_lock(&order);
    tell('S', inode(fd), number, NULL, 0);
    pthread_mutex_unlock(&order);
    return 0;
}
int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

/* -- names ------------------------------------------------------------------------------ */

#define NAMED(kind, call, data, length) \
    pthread_mutex_lock(&order); \
    int done = call; \
    int saved = errno; \
    if (done == 0) tell(kind, 0, 0, data, length); \
    pthread_mutex_unlock(&order); \
    errno = saved; \
    return done;

int rename(const char *from, const char *to) {
    char both[8192];
    if (!below(from) && !below(to)) return REAL(rename)(from, to);
    if (!below(from) || !below(to)) die("a rename across the root");
    int length = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
    NAMED('r', REAL(rename)(from, to), both, (size_t)length)
}
int unlink(const char *path) {
    if (!below(path)) return REAL(unlink)(path);
    NAMED('u', REAL(unlink)(path), path, strlen(path))
}
int mkdir(const char *path, mode_t mode) {
    struct stat state = {0};
    if (!below(path)) return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&order);
    int done = REAL(mkdir)(path, mode);
    int saved = errno;
    if (done == 0 && stat(path, &state) == 0) tell('m', state.st_ino, 0, path, strlen(path));
    pthread_mutex_unlock(&order);
    errno = saved;
    return done;
}

/* -- what nobody here calls: told when it changes ----------------------------------------- */

#define UNKNOWN(type, name, parameters, arguments, ours) \
    type name parameters { \
        if (ours) die(#name); \
        return REAL(name) arguments; \
    }
UNKNOWN(int, link, (const char *from, const char *to), (from, to), below(to))
UNKNOWN(int, rmdir, (const char *path), (path), below(path))
UNKNOWN(int, truncate, (const char *path, off_t size), (path, size), below(path))
UNKNOWN(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), below(to) || is_watched(b))
UNKNOWN(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), below(path) || is_watched(dir))
UNKNOWN(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), below(path) || is_watched(dir))
UNKNOWN(int, fallocate, (int fd, int how, off_t at, off_t size), (fd, how, at, size), is_watched(fd))
UNKNOWN(int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size), is_watched(fd))
UNKNOWN(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), is_watched(fd))
UNKNOWN(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), is_watched(fd))
UNKNOWN(ssize_t, copy_file_range, (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags),
        (in, from, out, to, size, flags), is_watched(out))

/* -- the clock -------------------------------------------------------------------------- */

int clock_gettime(clockid_t which, struct timespec *now) {
    int done = REAL(clock_gettime)(which, now);
    /* Time that only ever passes is not set back. */
    if (done == 0 && (which == CLOCK_REALTIME || (which == CLOCK_MONOTONIC && control->clock_ns > 0))) {
        int64_t all = now->tv_sec * 1000000000LL + now->tv_nsec + control->clock_ns;
        now->tv_sec = all / 1000000000LL;
        now->tv_nsec = all % 1000000000LL;
    }
    return done;
}

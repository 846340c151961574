// The floor: the system calls that gateway-lock makes, in C and with nothing around them. A mode per scenario; commands
// come a line each on standard input, and each is answered by a line of JSON. Times are ns on CLOCK_MONOTONIC.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_SIZE = 4096, BACKLOG = 511, REFUSED = 75, EAGER_TRIES = 48, EAGERNESS = 50000 };
enum { OPEN_FLAGS = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY };
static const int64_t MS = 1000000, SECOND = 1000000000;

extern char** environ;
static char record[RECORD_SIZE];

static void fail(const char* what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * SECOND + time.tv_nsec;
}

static void sleep_until(int64_t time) {
  const struct timespec until = {time / SECOND, time % SECOND};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

static void busy_until(int64_t time) {
  while (now() < time) continue;
}

// --- one lock, as TryLockFile, Unlock and RemoveLockFile of native/posix/file_lock.cc

static void parent_of(const char* path, char* parent) {
  const char* slash = strrchr(path, '/');
  const size_t length = slash == NULL || slash == path ? 1 : (size_t)(slash - path);
  memcpy(parent, slash == NULL ? "." : path, length);
  parent[length] = '\0';
}

static int refuse_others(const char* path, const struct stat* locked, int flags) {
  struct stat opened;
  const int other = open(path, flags | OPEN_FLAGS);
  if (other == -1 || fstat(other, &opened) == -1) fail("self-test");
  if (opened.st_ino != locked->st_ino || flock(other, LOCK_EX | LOCK_NB) == 0) fail("self-test: granted twice");
  return close(other);
}

/** The descriptor; -1 = refused. `waits` for the holder, as LockWait does, in flock(2). */
static int acquire(const char* path, int waits, int self_test) {
  char parent[PATH_MAX];
  struct stat directory, before, opened, locked, there;
  for (;;) {
    parent_of(path, parent);
    if (stat(parent, &directory) == -1) fail("stat");
    const int exists = lstat(path, &before) == 0;
    const int fd = open(path, (exists ? O_RDWR : O_RDWR | O_CREAT | O_EXCL) | OPEN_FLAGS, 0600);
    if (fd == -1) {
      if (errno == ENOENT || errno == EEXIST) continue;
      fail(path);
    }
    if (fstat(fd, &opened) == -1) fail("fstat");
    if (opened.st_nlink == 0) {
      close(fd);
      continue;
    }
    int refused = flock(fd, LOCK_EX | LOCK_NB);
    const int64_t deadline = waits && refused == -1 ? now() + EAGERNESS : 0;
    for (int tries = 1; refused == -1 && errno == EWOULDBLOCK && tries < EAGER_TRIES && now() < deadline; tries++)
      refused = flock(fd, LOCK_EX | LOCK_NB);
    if (refused == -1) {
      if (errno != EWOULDBLOCK) fail("flock");
      if (!waits) {
        close(fd);
        return -1;
      }
      while (flock(fd, LOCK_EX) == -1)
        if (errno != EINTR) fail("flock");
    }
    if (fstat(fd, &locked) == -1) fail("fstat");
    if (self_test) {
      refuse_others(path, &locked, O_RDWR);
      refuse_others(path, &locked, O_RDWR);
    }
    if (lstat(path, &there) == 0 && there.st_ino == locked.st_ino && there.st_dev == locked.st_dev) return fd;
    close(fd);
  }
}

static void release(int fd) {
  flock(fd, LOCK_UN);
  close(fd);
}

static void remove_file(int fd, const char* path) {
  struct stat ours, there;
  if (fstat(fd, &ours) == 0 && lstat(path, &there) == 0 && ours.st_ino == there.st_ino) unlink(path);
}

static void write_record(int fd) {
  if (pwrite(fd, record, RECORD_SIZE, 0) != RECORD_SIZE) fail("pwrite");
}

static void read_record(const char* path) {
  static char content[65536];
  struct stat there, opened;
  if (lstat(path, &there) == -1) return;
  const int fd = open(path, O_RDONLY | OPEN_FLAGS);
  if (fd == -1) return;
  if (fstat(fd, &opened) == 0 && pread(fd, content, sizeof content, 0) == -1) fail("pread");
  close(fd);
}

// --- what is measured, one operation each

static void lock_once(char** argument) { release(acquire(argument[0], 0, 0)); }

static void flock_once(char** argument) {
  const int fd = open(argument[0], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd == -1 || flock(fd, LOCK_EX | LOCK_NB) == -1) fail("flock");
  close(fd);
}

/** The record goes through a descriptor of its own, because the API has none to give: the same calls as beside it. */
static void record_once(char** argument) {
  const int lock = acquire(argument[0], 0, 0);
  const int fd = open(argument[0], O_RDWR | O_CLOEXEC);
  if (fd == -1) fail("open");
  if (write(fd, record, RECORD_SIZE) != RECORD_SIZE) fail("write");
  close(fd);
  remove_file(lock, argument[0]);
  release(lock);
}

/** Locks and records of a whole gateway: state directory, state lock, config lock; no sockets. */
static void gateway_once(char** argument) {
  char state[PATH_MAX], locks[PATH_MAX + 8], path[2][PATH_MAX + 32];
  struct stat locked, there;
  struct statfs system;
  if (stat(argument[0], &there) == -1 || realpath(argument[0], state) == NULL || access(state, X_OK) == -1) fail("realpath");
  // The config need not exist.
  if (lstat(argument[1], &there) == -1 && errno != ENOENT) fail("lstat");
  if (statfs(state, &system) == -1) fail("statfs");
  const int directory = open(state, O_RDONLY | O_DIRECTORY | OPEN_FLAGS);
  if (directory == -1 || flock(directory, LOCK_EX | LOCK_NB) == -1) fail("flock");
  if (fstat(directory, &locked) == -1 || lstat(state, &there) == -1) fail("stat");
  snprintf(locks, sizeof locks, "%s/locks", state);
  if (lstat(locks, &there) == -1 && mkdir(locks, 0700) == -1) fail("mkdir");
  if (statfs(locks, &system) == -1) fail("statfs");
  snprintf(path[0], sizeof path[0], "%s/gateway.state.lock", locks);
  snprintf(path[1], sizeof path[1], "%s/gateway.config.lock", locks);
  int fd[2];
  for (int i = 0; i < 2; i++) fd[i] = acquire(path[i], 0, 1);
  for (int i = 0; i < 2; i++) {
    write_record(fd[i]);
    if (ftruncate(fd[i], RECORD_SIZE) == -1) fail("ftruncate");
  }
  for (int i = 1; i >= 0; i--) {
    remove_file(fd[i], path[i]);
    close(fd[i]);
  }
  close(directory);
}

/** State directory, lock file, port of a gateway that runs. */
static void refusal_once(char** argument) {
  const int directory = open(argument[0], O_RDONLY | O_DIRECTORY | OPEN_FLAGS);
  if (directory == -1) fail("open");
  if (flock(directory, LOCK_EX | LOCK_NB) == 0) fail("flock was granted, though somebody should have it");
  close(directory);
  read_record(argument[1]);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argument[2]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client == -1 || connect(client, (struct sockaddr*)&address, sizeof address) == -1) fail("connect");
  close(client);
}

static void serve_batches(void (*once)(char**), char** argument) {
  char* line = NULL;
  size_t size = 0;
  int64_t* times = NULL;
  while (getline(&line, &size, stdin) > 0) {
    const int count = atoi(line + sizeof "batch");
    times = realloc(times, sizeof *times * (size_t)(count + 1));
    for (int i = 0; i < count; i++) {
      const int64_t start = now();
      once(argument);
      times[i] = now() - start;
    }
    putchar('[');
    for (int i = 0; i < count; i++) printf(i == 0 ? "%ld" : ",%ld", (long)times[i]);
    puts("]");
    fflush(stdout);
  }
  free(times);
  free(line);
}

// --- contention: the same loop as harness/contender.mjs

static int64_t cpu(int who) {
  struct rusage usage;
  getrusage(who, &usage);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

struct block {
  char path[PATH_MAX], log[PATH_MAX];
  int64_t start, end, section, pause;
};

/** `triple`: asked, acquired, about to release. */
static void turn_in_c(const struct block* block, int64_t* triple) {
  triple[0] = now();
  const int fd = acquire(block->path, 1, 0);
  triple[1] = now();
  if (block->pause > 0) {
    sleep_until(triple[1] + block->section);
  } else if (block->section > 0) {
    busy_until(triple[1] + block->section);
  }
  triple[2] = now();
  release(fd);
}

/** flock(1), which holds the lock while a command of ours runs: it tells when it started and when it ended. */
static void turn_by_command(const struct block* block, int64_t* triple) {
  int ends[2], status;
  char section[32];
  pid_t pid;
  triple[0] = now();
  if (pipe2(ends, O_CLOEXEC) == -1) fail("pipe");
  snprintf(section, sizeof section, "%s%ld", block->pause > 0 ? "-" : "", (long)block->section);
  char* command[] = {"flock", (char*)block->path, "/proc/self/exe", "held", section, NULL};
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length == -1) fail("readlink");
  self[length] = '\0';
  command[2] = self;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  errno = posix_spawnp(&pid, command[0], &actions, NULL, command, environ);
  if (errno != 0) fail("flock(1)");
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (read(ends[0], triple + 1, 2 * sizeof *triple) != 2 * sizeof *triple) fail("flock(1) did not run its command");
  close(ends[0]);
  while (waitpid(pid, &status, 0) == -1)
    if (errno != EINTR) fail("waitpid");
  if (status != 0) fail("flock(1)");
}

static int held(const char* section) {
  int64_t times[2] = {now()};
  const int64_t length = atoll(section);
  if (length < 0) {
    sleep_until(times[0] - length);
  } else if (length > 0) {
    busy_until(times[0] + length);
  }
  times[1] = now();
  return write(1, times, sizeof times) == sizeof times ? 0 : 1;
}

static void contend(void (*turn)(const struct block*, int64_t*)) {
  char* line = NULL;
  size_t size = 0;
  int64_t* log = NULL;
  size_t room = 0;
  while (getline(&line, &size, stdin) > 0) {
    struct block block = {0};
    long start, duration, section, pause;
    if (sscanf(line, "block %4095s %ld %ld %ld %ld %4095s", block.path, &start, &duration, &section, &pause, block.log) != 6)
      fail(line);
    block.start = start, block.end = start + duration, block.section = section, block.pause = pause;
    sleep_until(block.start);
    size_t count = 0;
    const int64_t used = cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN);
    while (now() < block.end) {
      if (count == room) log = realloc(log, 3 * sizeof *log * (room = room * 2 + 1024));
      turn(&block, log + 3 * count++);
      if (block.pause > 0) sleep_until(now() + block.pause);
    }
    const int64_t spent = cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN) - used;
    FILE* file = fopen(block.log, "w");
    if (file == NULL || fwrite(log, 3 * sizeof *log, count, file) != count || fclose(file) != 0) fail(block.log);
    printf("{\"count\":%zu,\"cpu\":%ld}\n", count, (long)spent);
    fflush(stdout);
  }
  free(log);
  free(line);
}

// --- a server that answers its pid

static int listen_on(int port, int reuse) {
  const int on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd == -1) fail("socket");
  if (reuse) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr*)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0) return fd;
  if (errno != EADDRINUSE) fail("bind");
  close(fd);
  return -1;
}

/** Until standard input ends. */
static void answer_all(int listener) {
  enum { MOST = 64 };
  struct pollfd polled[MOST] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
  char request[4096], answer[256], pid[16];
  snprintf(pid, sizeof pid, "%d", getpid());
  snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(pid), pid);
  nfds_t count = 2;
  while (poll(polled, count, -1) > 0) {
    if (polled[0].revents != 0 && read(0, request, sizeof request) <= 0) return;
    for (nfds_t i = 2; i < count; i++) {
      if (polled[i].revents == 0) continue;
      if (read(polled[i].fd, request, sizeof request) > 0 && send(polled[i].fd, answer, strlen(answer), MSG_NOSIGNAL) > 0)
        continue;
      close(polled[i].fd);
      polled[i--] = polled[--count];
    }
    if (polled[1].revents != 0 && count < MOST) {
      const int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (client != -1) polled[count++] = (struct pollfd){.fd = client, .events = POLLIN};
    }
  }
}

static void tell(const char* text) {
  puts(text);
  fflush(stdout);
}

static void standby(const char* path, int port) {
  tell("{\"event\":\"waiting\"}");
  acquire(path, 1, 0);
  int listener;
  while ((listener = listen_on(port, 1)) == -1) sleep_until(now() + MS);
  printf("{\"event\":\"serving\",\"pid\":%d}\n", getpid());
  fflush(stdout);
  answer_all(listener);
}

/** Binds as bind(2) does by itself: without SO_REUSEADDR, at the line that it is told to. */
static void strict_bind(int port) {
  char line[16];
  long refused = 0;
  int listener;
  tell("{\"event\":\"waiting\"}");
  if (fgets(line, sizeof line, stdin) == NULL) return;
  const int64_t start = now();
  for (; (listener = listen_on(port, 0)) == -1; refused++) sleep_until(now() + 100 * MS);
  printf("{\"event\":\"serving\",\"pid\":%d,\"blocked\":%ld,\"refused\":%ld}\n", getpid(), (long)(now() - start), refused);
  fflush(stdout);
  answer_all(listener);
}

// --- many locks, many waiters

static long resident(void) {
  long total, pages;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &total, &pages) != 2) fail("/proc/self/statm");
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

static void print_times(const char* name, const int64_t* times, int count) {
  printf("\"%s\":[", name);
  for (int i = 0; i < count; i++) printf(i == 0 ? "%ld" : ",%ld", (long)times[i]);
  printf("],");
}

/** `many <directory> <count>`: files named 0, 1, … are there already. */
static void many_locks(const char* directory) {
  int count;
  char path[PATH_MAX];
  while (scanf(" many %d", &count) == 1) {
    int64_t* taken = malloc(sizeof *taken * (size_t)count);
    int64_t* freed = malloc(sizeof *freed * (size_t)count);
    int* fds = malloc(sizeof *fds * (size_t)count);
    memset(taken, 0, sizeof *taken * (size_t)count);
    memset(freed, 0, sizeof *freed * (size_t)count);
    memset(fds, 0, sizeof *fds * (size_t)count);
    const long before = resident();
    for (int i = 0; i < count; i++) {
      snprintf(path, sizeof path, "%s/%d", directory, i);
      const int64_t start = now();
      if ((fds[i] = acquire(path, 0, 0)) == -1) fail("acquire");
      taken[i] = now() - start;
    }
    const long memory = resident() - before;
    for (int i = 0; i < count; i++) {
      const int64_t start = now();
      release(fds[i]);
      freed[i] = now() - start;
    }
    putchar('{');
    print_times("acquire", taken, count);
    print_times("release", freed, count);
    printf("\"memory\":%ld}\n", memory);
    fflush(stdout);
    free(taken);
    free(freed);
    free(fds);
  }
}

static void* wait_and_release(void* path) {
  release(acquire(path, 1, 0));
  return NULL;
}

/** `waiters <count>`: told once they are started; `drain`: told when the last has had it. */
static void many_waiters(char* path) {
  int count;
  char line[64];
  while (scanf(" waiters %d", &count) == 1) {
    pthread_t* threads = malloc(sizeof *threads * (size_t)count);
    int64_t* times = malloc(sizeof *times * (size_t)count);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    const int fd = acquire(path, 0, 0);
    const long before = resident();
    for (int i = 0; i < count; i++) {
      const int64_t start = now();
      errno = pthread_create(threads + i, &small, wait_and_release, path);
      if (errno != 0) fail("pthread_create");
      times[i] = now() - start;
    }
    putchar('{');
    print_times("start", times, count);
    puts("\"event\":\"started\"}");
    fflush(stdout);
    if (scanf(" %63s", line) != 1) return;
    const long memory = resident() - before;
    const int64_t start = now();
    release(fd);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    printf("{\"drain\":%ld,\"memory\":%ld}\n", (long)(now() - start), memory);
    fflush(stdout);
    free(threads);
    free(times);
  }
}

static void serve_standby(char** argument) { standby(argument[0], atoi(argument[1])); }
static void serve_strict_bind(char** argument) { strict_bind(atoi(argument[0])); }
static void serve_many_locks(char** argument) { many_locks(argument[0]); }
static void serve_many_waiters(char** argument) { many_waiters(argument[0]); }
static void serve_contention(char** argument) { (void)argument, contend(turn_in_c); }
static void serve_commands(char** argument) { (void)argument, contend(turn_by_command); }
static void serve_held(char** argument) { exit(held(argument[0])); }
static void refuse_and_end(char** argument) {
  refusal_once(argument);
  exit(REFUSED);
}

/** `once`: an operation that is measured in batches; else `serve`. */
static const struct mode {
  const char* name;
  int arguments;
  void (*once)(char**);
  void (*serve)(char**);
} modes[] = {
    {"lock", 1, lock_once, NULL},
    {"flock-only", 1, flock_once, NULL},
    {"record", 1, record_once, NULL},
    {"gateway", 2, gateway_once, NULL},
    {"refusal", 3, refusal_once, NULL},
    {"refused", 3, NULL, refuse_and_end},
    {"contend", 0, NULL, serve_contention},
    {"contend-by-command", 0, NULL, serve_commands},
    {"held", 1, NULL, serve_held},
    {"standby", 2, NULL, serve_standby},
    {"strict-bind", 1, NULL, serve_strict_bind},
    {"many-locks", 1, NULL, serve_many_locks},
    {"many-waiters", 1, NULL, serve_many_waiters},
};

int main(int argc, char** argv) {
  memset(record, ' ', sizeof record);
  memcpy(record, "{}", 2);
  for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(argv[1], modes[i].name) != 0 || argc - 2 != modes[i].arguments) continue;
    if (modes[i].once != NULL) {
      serve_batches(modes[i].once, argv + 2);
    } else {
      modes[i].serve(argv + 2);
    }
    return 0;
  }
  fputs("floor <mode> <arguments>; the modes are at the end of floor.c\n", stderr);
  return 2;
}

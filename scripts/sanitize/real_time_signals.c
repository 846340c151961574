// For ThreadSanitizer, which holds a signal back until the thread makes the next call that it knows of. flock(2) is none, and the
// handler that ends a wait (native/posix/lock_wait.cc) would never run. So handlers of real-time signals are given to the kernel
// as they are. That handler may jump out of pthread_sigmask too, from within the sanitizer's own frame: so that call goes past it
// as well.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>

static void* of_libc(const char* name) { return dlsym(dlopen("libc.so.6", RTLD_NOLOAD | RTLD_LAZY), name); }

int sigaction(int number, const struct sigaction* action, struct sigaction* old) {
  typedef int Sigaction(int, const struct sigaction*, struct sigaction*);
  static Sigaction *plain, *watched;
  if (plain == 0) plain = (Sigaction*)of_libc("sigaction");
  if (watched == 0) watched = (Sigaction*)dlsym(RTLD_NEXT, "sigaction");
  return (number >= SIGRTMIN ? plain : watched)(number, action, old);
}

int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  typedef int Sigmask(int, const sigset_t*, sigset_t*);
  static Sigmask* plain;
  if (plain == 0) plain = (Sigmask*)of_libc("pthread_sigmask");
  return plain(how, set, old);
}

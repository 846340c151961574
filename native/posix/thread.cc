#include "thread.h"

#include <limits.h>
#include <signal.h>

#include <algorithm>
#include <cstddef>

namespace gateway_lock {
namespace {

// Enough for a signal's frame with the widest vector registers, and for the thread-local data of a host with many libraries,
// which lies there too; of a thousand threads, little is ever touched.
constexpr std::size_t kStackSize = 128 * 1024;

}  // namespace

int StartThread(pthread_t& thread, bool joinable, void* (*run)(void*), void* context) noexcept {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, joinable ? PTHREAD_CREATE_JOINABLE : PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, std::max<std::size_t>(kStackSize, PTHREAD_STACK_MIN));
  // A thread inherits the mask of the one that makes it.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&thread, &attributes, run, context);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return error;
}

}  // namespace gateway_lock

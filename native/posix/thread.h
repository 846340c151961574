// Threads that wait for the kernel and do nothing else.
#pragma once

#include <pthread.h>

namespace gateway_lock {

// 0, or errno. The thread begins with all signals blocked: those of the host go to the host's threads.
int StartThread(pthread_t& thread, bool joinable, void* (*run)(void*), void* context) noexcept;

}  // namespace gateway_lock

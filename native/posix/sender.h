// Whether a process has sent a signal, or the kernel, as it does for a terminal.
#pragma once

#include <signal.h>

namespace gateway_lock {

// May be called in a signal handler.
bool IsSentByProcess(const siginfo_t& info) noexcept;

}  // namespace gateway_lock

// Which signals were sent by a process, and which by the kernel for a terminal.
//
// Ctrl-C reaches every process of the terminal's foreground group. Whoever starts a program and forwards signals to it must not
// forward that one, or the program gets it twice. Node does not say where a signal comes from; some kernels do, and elsewhere it
// is told from where this process stands. ENOTSUP where processes send each other no signals.
#pragma once

#include <cstdint>
#include <vector>

#include "result.h"

namespace gateway_lock {

// From now on counts those of these signals that a process has sent, and then does what was installed for them before; EINVAL
// where nothing was. To be called again when that was installed anew.
Result<Done> CountSentSignals(const std::vector<int>& signals) noexcept;

// How many came since the last call. The kernel may make one of several that are pending, and it counts as what came first.
std::uint32_t TakeSentSignals(int signal) noexcept;

}  // namespace gateway_lock

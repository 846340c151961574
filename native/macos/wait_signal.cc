#include "../posix/wait_signal.h"

#include <signal.h>

namespace gateway_lock {

// There are no real-time signals here, and of the 31 that there are, SIGEMT is the only one without a name in Node's list
// (DefineSignalConstants, src/node_constants.cc), so that process.on() can't ask for it. It tells of an instruction to emulate,
// which no processor that macOS runs on raises, and crash reporters pass it over. A Go runtime in this process handles every
// signal from its start on; then waiting is refused, not shared.
int ChooseWaitSignal() noexcept {
  struct sigaction current;
  if (sigaction(SIGEMT, nullptr, &current) == -1) return 0;
  return (current.sa_flags & SA_SIGINFO) == 0 && current.sa_handler == SIG_DFL ? SIGEMT : 0;
}

}  // namespace gateway_lock

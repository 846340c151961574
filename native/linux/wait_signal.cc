#include "../posix/wait_signal.h"

#include <signal.h>

namespace gateway_lock {
namespace {

// Real-time signals, because libuv and Node name none of them. Not the first ones: init systems stop a container by
// SIGRTMIN+3, and libraries that want a signal begin to count there. Not the last one, which valgrind takes.
constexpr int kFirst = 10;
constexpr int kLast = 1;

}  // namespace

int ChooseWaitSignal() noexcept {
  for (int number = SIGRTMIN + kFirst; number <= SIGRTMAX - kLast; number++) {
    struct sigaction current;
    if (sigaction(number, nullptr, &current) == 0 && (current.sa_flags & SA_SIGINFO) == 0 && current.sa_handler == SIG_DFL) {
      return number;
    }
  }
  return 0;
}

}  // namespace gateway_lock

#include "../posix/sender.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

namespace gateway_lock {

// The kernel does not say: si_code is 0 for all, and si_pid is whoever was running when the signal came up, which for a key is
// the terminal's own program (psignal_internal, bsd/kern/kern_sig.c). So what a keyboard can send comes from the terminal for as
// long as this process is in its foreground.
bool IsSentByProcess(const siginfo_t& info) noexcept {
  if (info.si_signo != SIGINT && info.si_signo != SIGQUIT && info.si_signo != SIGTSTP && info.si_signo != SIGWINCH) return true;
  const int error = errno;
  const int terminal = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  const bool is_in_foreground = terminal != -1 && tcgetpgrp(terminal) == getpgrp();
  if (terminal != -1) close(terminal);
  errno = error;
  return !is_in_foreground;
}

}  // namespace gateway_lock

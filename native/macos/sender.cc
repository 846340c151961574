#include "../posix/sender.h"

namespace gateway_lock {

// What comes of a terminal has the kernel for its sender, which has no pid (psignal and pgsignal, bsd/kern/kern_sig.c). There are
// no codes for it here.
bool IsSentByProcess(const siginfo_t& info) noexcept { return info.si_pid != 0; }

}  // namespace gateway_lock

#include "../posix/sender.h"

namespace gateway_lock {

// kill(2), sigqueue(3) and tgkill(2) have codes up to 0; the kernel's own are greater (sigaction(2), SI_FROMUSER).
bool IsSentByProcess(const siginfo_t& info) noexcept { return info.si_code <= 0; }

}  // namespace gateway_lock

#include "../sent_signals.h"

#include <errno.h>

namespace gateway_lock {

// Nobody can send one: what Node calls SIGINT comes from a console.
Result<Done> CountSentSignals(const std::vector<int>&) noexcept { return Failure{ENOTSUP, "sigaction"}; }

std::uint32_t TakeSentSignals(int) noexcept { return 0; }

}  // namespace gateway_lock

// A word to whoever supervises this process.
#pragma once

#include <string>

#include "result.h"

namespace gateway_lock {

// One datagram to the Unix socket at `socket`; "@" at its beginning stands for the NUL of an abstract address. Never waits:
// EAGAIN where the receiver's queue is full. ENOTSUP where nobody wants to be told in this way.
Result<Done> Notify(const std::string& socket, const std::string& message) noexcept;

}  // namespace gateway_lock

// What ends a poll(2) that waits for something else.
#pragma once

#include "../handle.h"

namespace gateway_lock {

// A descriptor that is readable for good once it was woken; empty on failure, with errno.
FileHandle OpenWake() noexcept;
void Wake(const FileHandle& wake) noexcept;

}  // namespace gateway_lock

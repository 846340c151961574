// What Windows says when it refuses, in the numbers that the rest of the package knows.
#pragma once

#include "../result.h"

namespace gateway_lock {

// `error` is what GetLastError or WSAGetLastError returned.
Failure FailureOf(unsigned long error, const char* syscall) noexcept;

// Of the call just made.
Failure LastFailure(const char* syscall) noexcept;

}  // namespace gateway_lock

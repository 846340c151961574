// A handle that means one process for as long as it is open, also when the process has ended and its number is another's.
#pragma once

#include "handle.h"
#include "process.h"
#include "result.h"

namespace gateway_lock {

// Whether it is the process that was meant is for the caller to find out, after this: only from here on its number can't come to
// mean another one unnoticed. ESRCH: there is none.
Result<FileHandle> OpenProcess(ProcessId pid) noexcept;

// ESRCH: it has ended, and nobody was hit; but nothing is said of a zombie, which takes every signal. ENOTSUP where a handle
// can't do this, or not with this signal.
Result<Done> SignalProcess(const FileHandle& process, int signal) noexcept;

}  // namespace gateway_lock

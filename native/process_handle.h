// A handle that means one process for as long as it is open, also when the process has ended and its number is another's.
#pragma once

#include <memory>

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

// Waiting for the end of a process, where this thread need not wait.
class ExitWait {
 public:
  // Called once, by another thread, when the process has ended; not if the wait was given up before.
  using Notify = void (*)(void* context);

  ExitWait() noexcept;
  ExitWait(const ExitWait&) = delete;
  ExitWait& operator=(const ExitWait&) = delete;
  ~ExitWait();  // gives up within microseconds; nobody is notified any more once it is back

  // The handle stays the caller's, who keeps it open while the wait lasts.
  Result<Done> Start(const FileHandle& process, Notify notify, void* context) noexcept;

  bool ended() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gateway_lock

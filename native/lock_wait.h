// Waiting for a lock that somebody else has: in the kernel, on a thread that does nothing else.
//
// Whoever waits holds nothing, and whoever has stopped waiting never gets the lock: when a wait that was cancelled has
// ended, its lock was not granted, or is free again.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "file_lock.h"
#include "handle.h"
#include "result.h"

namespace gateway_lock {

class LockWait {
 public:
  // Called once, by the waiting thread, when the wait is ending: Finish() blocks from then on only for what ConfirmLock takes.
  using Notify = void (*)(void* context);

  LockWait() noexcept = default;
  LockWait(const LockWait&) = delete;
  LockWait& operator=(const LockWait&) = delete;
  ~LockWait();  // abandons it at once

  // Takes the file, which was opened at `path`, and starts to wait for its lock. When no thread can be started, the caller
  // keeps the file. The rest is as in TryLockFile.
  Result<Done> Start(FileHandle& file, const std::string& path, bool self_test, Notify notify, void* context) noexcept;

  // Ends the wait within microseconds, whether the thread waits already or not; nothing once it has ended. EAGAIN if the
  // system can't now.
  Result<Done> Cancel() noexcept;

  // Cancels, and waits until the thread has left, but not beyond the deadline: some filesystems do not let go of a thread that
  // waits. Such a thread is left behind with what it needs, and unlocks and closes the file when it gets out.
  void Abandon(std::chrono::steady_clock::time_point deadline) noexcept;

  // The file that is waited for; Finish() gives it back.
  const FileHandle& file() const noexcept;

  // What came of it: kLocked, kCancelled, or what ConfirmLock says of a lock that was granted. `file` is locked only with kLocked
  // and with what ConfirmLock says. Blocks until the wait has ended.
  Result<LockAttempt> Finish(FileHandle& file) noexcept;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace gateway_lock

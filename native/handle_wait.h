// Waiting until a handle has something to say, where this thread need not wait: a process that has ended, a socket by which
// something has come.
#pragma once

#include <memory>

#include "handle.h"
#include "result.h"

namespace gateway_lock {

class HandleWait {
 public:
  // Called once, by another thread; not if the wait was given up before.
  using Notify = void (*)(void* context);

  HandleWait() noexcept;
  HandleWait(const HandleWait&) = delete;
  HandleWait& operator=(const HandleWait&) = delete;
  ~HandleWait();  // gives up within microseconds; nobody is notified any more once it is back

  // The handle stays the caller's, who keeps it open while the wait lasts.
  Result<Done> Start(RawHandle handle, Notify notify, void* context) noexcept;

  bool ended() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gateway_lock

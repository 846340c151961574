// A thread that waits until a descriptor is readable, and can be called back. libuv could poll it too, but is not part of
// Node-API.
#pragma once

#include <poll.h>
#include <pthread.h>

#include <atomic>
#include <memory>

#include "../handle.h"
#include "../result.h"

namespace gateway_lock {

class PollWait {
 public:
  using Notify = void (*)(void* context);

  // A failure where the system has no more threads or descriptors.
  static Result<std::unique_ptr<PollWait>> Start(RawHandle descriptor, Notify notify, void* context) noexcept;

  PollWait(const PollWait&) = delete;
  PollWait& operator=(const PollWait&) = delete;
  ~PollWait();

  bool ended() const noexcept { return ended_.load(); }

 private:
  PollWait() noexcept = default;
  static void* Run(void* context) noexcept;

  FileHandle wake_;
  pollfd sources_[2] = {};
  Notify notify_ = nullptr;
  void* context_ = nullptr;
  pthread_t thread_ = {};
  bool started_ = false;
  std::atomic<bool> ended_{false};
};

}  // namespace gateway_lock

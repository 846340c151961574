#include "poll_wait.h"

#include <errno.h>

#include "thread.h"
#include "wake.h"

namespace gateway_lock {

Result<std::unique_ptr<PollWait>> PollWait::Start(RawHandle descriptor, Notify notify, void* context) noexcept {
  std::unique_ptr<PollWait> wait(new PollWait());
  wait->wake_ = OpenWake();
  if (!wait->wake_) return Failure{errno, "eventfd"};
  wait->sources_[0] = {static_cast<int>(descriptor), POLLIN, 0};
  wait->sources_[1] = {static_cast<int>(wait->wake_.raw()), POLLIN, 0};
  wait->notify_ = notify;
  wait->context_ = context;
  if (const int error = StartThread(wait->thread_, true, Run, wait.get()); error != 0) return Failure{error, "pthread_create"};
  wait->started_ = true;
  return wait;
}

PollWait::~PollWait() {
  if (!started_) return;
  Wake(wake_);
  pthread_join(thread_, nullptr);
}

void* PollWait::Run(void* context) noexcept {
  auto* self = static_cast<PollWait*>(context);
  int ready;
  do {
    ready = poll(self->sources_, 2, -1);
  } while (ready == -1 && errno == EINTR);
  if (self->sources_[0].revents == 0) return nullptr;
  self->ended_.store(true);
  self->notify_(self->context_);
  return nullptr;
}

}  // namespace gateway_lock

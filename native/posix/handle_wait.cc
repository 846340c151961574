// By a thread that polls. libuv could poll too, but is not part of Node-API.

#include "../handle_wait.h"

#include <errno.h>
#include <poll.h>

#include <atomic>

#include "thread.h"
#include "wake.h"

namespace gateway_lock {
namespace {

pollfd Readable(RawHandle handle) noexcept { return pollfd{static_cast<int>(handle), POLLIN, 0}; }

}  // namespace

struct HandleWait::State {
  FileHandle wake;
  pollfd sources[2];
  Notify notify;
  void* context;
  pthread_t thread;
  bool started = false;
  std::atomic<bool> ended{false};

  ~State() {
    if (!started) return;
    Wake(wake);
    pthread_join(thread, nullptr);
  }

  static void* Run(void* context) noexcept {
    auto* self = static_cast<State*>(context);
    int ready;
    do {
      ready = poll(self->sources, 2, -1);
    } while (ready == -1 && errno == EINTR);
    if (self->sources[0].revents == 0) return nullptr;
    self->ended.store(true);
    self->notify(self->context);
    return nullptr;
  }
};

HandleWait::HandleWait() noexcept = default;
HandleWait::~HandleWait() = default;

Result<Done> HandleWait::Start(RawHandle handle, Notify notify, void* context) noexcept {
  FileHandle wake = OpenWake();
  if (!wake) return Failure{errno, "eventfd"};
  std::unique_ptr<State> state(new State{std::move(wake), {}, notify, context, {}});
  state->sources[0] = Readable(handle);
  state->sources[1] = Readable(state->wake.raw());
  if (const int error = StartThread(state->thread, true, State::Run, state.get()); error != 0) {
    return Failure{error, "pthread_create"};
  }
  state->started = true;
  state_ = std::move(state);
  return Done{};
}

bool HandleWait::ended() const noexcept { return state_ != nullptr && state_->ended.load(); }

}  // namespace gateway_lock

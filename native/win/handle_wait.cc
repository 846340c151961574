// The system's own threads wait.

#include "../handle_wait.h"

#include <windows.h>

#include <atomic>

#include "errors.h"

namespace gateway_lock {

struct HandleWait::State {
  Notify notify;
  void* context;
  PTP_WAIT wait;
  std::atomic<bool> ended{false};

  ~State() {
    if (wait == nullptr) return;
    SetThreadpoolWait(wait, nullptr, nullptr);
    WaitForThreadpoolWaitCallbacks(wait, TRUE);
    CloseThreadpoolWait(wait);
  }

  static void CALLBACK OnEnd(PTP_CALLBACK_INSTANCE, void* context, PTP_WAIT, TP_WAIT_RESULT) noexcept {
    auto* self = static_cast<State*>(context);
    self->ended.store(true);
    self->notify(self->context);
  }
};

HandleWait::HandleWait() noexcept = default;
HandleWait::~HandleWait() = default;

Result<Done> HandleWait::Start(RawHandle handle, Notify notify, void* context) noexcept {
  std::unique_ptr<State> state(new State{notify, context, nullptr});
  state->wait = CreateThreadpoolWait(State::OnEnd, state.get(), nullptr);
  if (state->wait == nullptr) return LastFailure("CreateThreadpoolWait");
  SetThreadpoolWait(state->wait, reinterpret_cast<HANDLE>(handle), nullptr);
  state_ = std::move(state);
  return Done{};
}

bool HandleWait::ended() const noexcept { return state_ != nullptr && state_->ended.load(); }

}  // namespace gateway_lock

// A handle of a process is readable once the process has ended.

#include "../process_handle.h"
#include "poll_wait.h"

namespace gateway_lock {

struct ExitWait::State {
  std::unique_ptr<PollWait> wait;
};

ExitWait::ExitWait() noexcept = default;
ExitWait::~ExitWait() = default;

Result<Done> ExitWait::Start(const FileHandle& process, Notify notify, void* context) noexcept {
  Result<std::unique_ptr<PollWait>> started = PollWait::Start(process.raw(), notify, context);
  if (!started.ok()) return started.failure();
  state_.reset(new State{std::move(started.value())});
  return Done{};
}

bool ExitWait::ended() const noexcept { return state_ != nullptr && state_->wait->ended(); }

}  // namespace gateway_lock

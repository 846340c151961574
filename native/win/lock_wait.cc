// LockFileEx on an asynchronous handle, and a wait of the system's thread pool for its event: no thread of our own waits, and
// CancelIoEx says for sure whether the lock was granted before it was given up.
//
// A request can also be forgotten: some redirectors answer that it is pending and never grant it (Wine's does that to all). So
// now and then the wait asks again, without waiting, and gives the pending request up when that is granted. A local filesystem of
// Windows never lets it come to that: it grants the pending request first.

#include "../lock_wait.h"

#include <windows.h>

#include <condition_variable>
#include <mutex>

#include "errors.h"
#include "request.h"

namespace gateway_lock {
namespace {

constexpr auto kRetry = std::chrono::milliseconds(1);
constexpr LONGLONG kAskAgain = 250 * 10'000;  // in units of 100 ns
// For a request that was cancelled and is just being completed.
constexpr int kSettlingRounds = 20;

HANDLE Native(const FileHandle& file) noexcept { return reinterpret_cast<HANDLE>(file.raw()); }

}  // namespace

struct LockWait::State {
  FileHandle file;
  std::string path;
  bool self_test;
  Notify notify;
  void* context;
  Request request;
  PTP_WAIT wait = nullptr;
  Result<LockAttempt> end = LockAttempt{LockStatus::kCancelled};
  // Of all that follows.
  std::mutex mutex;
  std::condition_variable left_changed;
  bool granted_at_once = false;
  bool blocked = true;  // while it can be interrupted
  bool cancelled = false;
  bool left = false;       // from here on, nobody of the pool looks at it
  bool abandoned = false;  // nobody is there to be told, or to have the lock

  void Arm() noexcept {
    ULARGE_INTEGER relative;
    relative.QuadPart = static_cast<ULONGLONG>(-kAskAgain);
    FILETIME due = {relative.LowPart, relative.HighPart};
    SetThreadpoolWait(wait, request.event(), &due);
  }

  Result<Done> Interrupt() noexcept {
    if (!blocked) return Done{};
    cancelled = true;
    const DWORD error = request.Cancel(Native(file));
    // Not found: it is just ending by itself, or it was forgotten. The pool finds out which.
    if (error == ERROR_NOT_FOUND) SetEvent(request.event());
    if (error != ERROR_SUCCESS && error != ERROR_NOT_FOUND) return FailureOf(error, "CancelIoEx");
    return Done{};
  }

  static void CALLBACK OnWait(PTP_CALLBACK_INSTANCE, void* owned, PTP_WAIT wait, TP_WAIT_RESULT) noexcept {
    auto* self = static_cast<std::shared_ptr<State>*>(owned);
    if (!(*self)->Look()) return;
    CloseThreadpoolWait(wait);
    // The system may still write into a request that it has not completed: then it stays.
    if ((*self)->request.Outcome(Native((*self)->file)) == ERROR_IO_INCOMPLETE) {
      (*self)->request.CloseEvent();
      new std::shared_ptr<State>(*self);
    }
    (*self)->Leave();
    delete self;
  }

  static DWORD AsIfPending(DWORD error) noexcept {
    return error == ERROR_IO_PENDING || error == ERROR_LOCK_VIOLATION ? ERROR_IO_INCOMPLETE : error;
  }

  // What has become of the request; ERROR_IO_INCOMPLETE if it goes on.
  DWORD Ask() noexcept {
    if (granted_at_once) return ERROR_SUCCESS;
    DWORD error = request.Outcome(Native(file));
    for (int round = 0; error == ERROR_IO_INCOMPLETE && cancelled && round < kSettlingRounds; round++) {
      if (round > 0) Sleep(1);
      error = request.Outcome(Native(file));
    }
    if (error != ERROR_IO_INCOMPLETE && error != ERROR_LOCK_VIOLATION) return error;
    if (cancelled) return ERROR_OPERATION_ABORTED;
    // Refused after all, by a driver that waits for a while only.
    if (error == ERROR_LOCK_VIOLATION) return AsIfPending(request.Pend(Native(file)));
    Request again;
    if (again.TryLock(Native(file)) != ERROR_SUCCESS) return ERROR_IO_INCOMPLETE;
    request.Cancel(Native(file));
    return ERROR_SUCCESS;
  }

  // Whether the wait has ended.
  bool Look() noexcept {
    std::unique_lock<std::mutex> lock(mutex);
    const DWORD error = Ask();
    if (error == ERROR_IO_INCOMPLETE) {
      Arm();
      return false;
    }
    blocked = false;
    if (abandoned) return true;
    notify(context);
    lock.unlock();
    if (error == ERROR_SUCCESS) {
      end = ConfirmLock(file, path, self_test);
    } else if (error != ERROR_OPERATION_ABORTED) {
      end = FailureOf(error, "LockFileEx");
    }
    return true;
  }

  void Leave() noexcept {
    const std::lock_guard<std::mutex> lock(mutex);
    if (abandoned) file.Reset();
    left = true;
    left_changed.notify_one();
  }
};

Result<Done> LockWait::Start(FileHandle& file, const std::string& path, bool self_test, Notify notify, void* context) noexcept {
  auto state = std::make_shared<State>();
  if (state->request.event() == nullptr) return LastFailure("CreateEventW");
  auto owned = std::make_unique<std::shared_ptr<State>>(state);
  state->wait = CreateThreadpoolWait(State::OnWait, owned.get(), nullptr);
  if (state->wait == nullptr) return LastFailure("CreateThreadpoolWait");
  const DWORD error = State::AsIfPending(state->request.Pend(Native(file)));
  if (error != ERROR_SUCCESS && error != ERROR_IO_INCOMPLETE) {
    CloseThreadpoolWait(state->wait);
    return FailureOf(error, "LockFileEx");
  }
  state->file = std::move(file);
  state->path = path;
  state->self_test = self_test;
  state->notify = notify;
  state->context = context;
  if (error == ERROR_SUCCESS) {
    state->granted_at_once = true;
    SetEvent(state->request.event());
  }
  owned.release();
  state_ = state;
  state->Arm();
  return Done{};
}

Result<Done> LockWait::Cancel() noexcept {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->Interrupt();
}

const FileHandle& LockWait::file() const noexcept { return state_->file; }

Result<LockAttempt> LockWait::Finish(FileHandle& file) noexcept {
  const std::shared_ptr<State> state = std::move(state_);
  std::unique_lock<std::mutex> lock(state->mutex);
  state->left_changed.wait(lock, [&] { return state->left; });
  file = std::move(state->file);
  return std::move(state->end);
}

LockWait::~LockWait() { Abandon(std::chrono::steady_clock::now()); }

void LockWait::Abandon(std::chrono::steady_clock::time_point deadline) noexcept {
  if (state_ == nullptr) return;
  const std::shared_ptr<State> state = std::move(state_);
  std::unique_lock<std::mutex> lock(state->mutex);
  state->abandoned = true;
  while (!state->left && std::chrono::steady_clock::now() < deadline) {
    const bool sent = state->Interrupt().ok();
    state->left_changed.wait_until(lock, sent ? deadline : std::chrono::steady_clock::now() + kRetry);
  }
  if (state->left) state->file.Reset();
}

}  // namespace gateway_lock

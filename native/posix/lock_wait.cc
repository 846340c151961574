// A blocked flock(2) ends early only by a signal, and a signal that comes just before the call would be lost. So the handler
// does not return into the waiting thread: it jumps out of the call, wherever it met it. The signal is blocked in that
// thread from its birth until a place to jump to is there, and stays pending for as long; so one signal is always enough.
//
// Jumping is safe because all that it may interrupt are two calls of pthread_sigmask(3) and one of flock(2), in a frame
// without destructors. What it can't tell is whether flock had just succeeded, so the lock is given up in any case.

#include "../lock_wait.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/file.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "thread.h"
#include "wait_signal.h"

namespace gateway_lock {
namespace {

constexpr auto kRetry = std::chrono::milliseconds(1);

pthread_once_t prepared = PTHREAD_ONCE_INIT;
int wait_signal = 0;
// Not thread_local, which may allocate when it is first touched: the handler may meet a thread that is none of ours.
pthread_key_t escape_key;

void Escape(int) {
  if (void* escape = pthread_getspecific(escape_key)) siglongjmp(*static_cast<sigjmp_buf*>(escape), 1);
}

void Prepare() {
  if (pthread_key_create(&escape_key, nullptr) != 0) return;
  const int signal = ChooseWaitSignal();
  struct sigaction action = {};
  action.sa_handler = Escape;
  action.sa_flags = SA_RESTART;  // for threads of the host, should somebody send it to the process
  sigemptyset(&action.sa_mask);
  if (signal != 0 && sigaction(signal, &action, nullptr) == 0) wait_signal = signal;
}

void SetMask(int how) noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, wait_signal);
  pthread_sigmask(how, &set, nullptr);
}

// 0, or errno; ECANCELED after a signal. `cancelled` is for the case that somebody has taken the signal from us meanwhile: then
// it only interrupts.
int BlockOn(int fd, const std::atomic<bool>& cancelled) noexcept {
  sigjmp_buf escape;
  if (const int error = pthread_setspecific(escape_key, &escape); error != 0) return error;
  if (sigsetjmp(escape, 0) != 0) {
    flock(fd, LOCK_UN);
    return ECANCELED;
  }
  SetMask(SIG_UNBLOCK);
  int result;
  do {
    result = flock(fd, LOCK_EX);
  } while (result == -1 && errno == EINTR && !cancelled.load());
  const int error = result == 0 ? 0 : errno == EINTR ? ECANCELED : errno;
  SetMask(SIG_BLOCK);
  return error;
}

}  // namespace

struct LockWait::State {
  FileHandle file;
  std::string path;
  bool self_test;
  Notify notify;
  void* context;
  pthread_t thread;
  Result<LockAttempt> end = LockAttempt{LockStatus::kCancelled};
  std::atomic<bool> cancelled{false};
  // Of all that follows. Not held over any call that a filesystem may keep.
  std::mutex mutex;
  std::condition_variable left_changed;
  bool blocked = true;     // while it can be interrupted
  bool left = false;       // from here on, the thread may be gone
  bool abandoned = false;  // nobody is there to be told, or to have the lock

  Result<Done> Interrupt() noexcept {
    if (!blocked) return Done{};
    cancelled.store(true);
    const int error = pthread_kill(thread, wait_signal);
    if (error != 0) return Failure{error, "pthread_kill"};
    return Done{};
  }

  static void* Run(void* owned) noexcept {
    const std::unique_ptr<std::shared_ptr<State>> self(static_cast<std::shared_ptr<State>*>(owned));
    (*self)->Wait();
    // Whoever was woken may be queued on this processor, and a thread's end takes longer than all of Wait() after the lock.
    sched_yield();
    return nullptr;
  }

  void Wait() noexcept {
    const int error = BlockOn(static_cast<int>(file.raw()), cancelled);
    std::unique_lock<std::mutex> lock(mutex);
    blocked = false;
    if (!abandoned) {
      // First of all: somebody else takes longer to wake up than the rest takes here.
      notify(context);
      lock.unlock();
      if (error == 0) {
        end = ConfirmLock(file, path, self_test);
      } else if (error != ECANCELED) {
        end = Failure{error, "flock"};
      }
      lock.lock();
    }
    if (abandoned) Unlock(file);
    left = true;
    left_changed.notify_one();
  }
};

Result<Done> LockWait::Start(FileHandle& file, const std::string& path, bool self_test, Notify notify, void* context) noexcept {
  pthread_once(&prepared, Prepare);
  if (wait_signal == 0) return Failure{EBUSY, "sigaction"};  // somebody has them all

  state_ = std::make_shared<State>();
  state_->file = std::move(file);
  state_->path = path;
  state_->self_test = self_test;
  state_->notify = notify;
  state_->context = context;
  auto owned = std::make_unique<std::shared_ptr<State>>(state_);

  const int error = StartThread(state_->thread, false, State::Run, owned.get());
  if (error != 0) {
    file = std::move(state_->file);
    state_.reset();
    return Failure{error, "pthread_create"};
  }
  owned.release();
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
  if (!state->left) return;
  Unlock(state->file);
  state->file.Reset();
}

}  // namespace gateway_lock

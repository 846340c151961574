// A handler of our own that counts and then calls the one that was there, libuv's, with the flags and the mask of that. Counted
// first: when JavaScript hears of a signal, its number is there.

#include "../sent_signals.h"

#include <errno.h>
#include <signal.h>

#include <atomic>
#include <mutex>

#include "sender.h"

namespace gateway_lock {
namespace {

constexpr int kSignals = NSIG;

struct Counted {
  std::atomic<std::uint32_t> sent{0};
  // What was installed before: one of the two.
  std::atomic<void (*)(int)> plain{nullptr};
  std::atomic<void (*)(int, siginfo_t*, void*)> informed{nullptr};
};

Counted counted[kSignals];
static_assert(std::atomic<std::uint32_t>::is_always_lock_free && std::atomic<void (*)(int)>::is_always_lock_free);

// Only what a signal handler may do (signal-safety(7)).
void Count(int signal, siginfo_t* info, void* context) {
  Counted& entry = counted[signal];
  if (IsSentByProcess(*info)) entry.sent.fetch_add(1);
  if (const auto informed = entry.informed.load()) {
    informed(signal, info, context);
  } else if (const auto plain = entry.plain.load()) {
    plain(signal);
  }
}

Result<Done> Chain(int signal) noexcept {
  if (signal <= 0 || signal >= kSignals) return Failure{EINVAL, "sigaction"};
  struct sigaction action;
  if (sigaction(signal, nullptr, &action) == -1) return Failure{errno, "sigaction"};
  const bool informed = (action.sa_flags & SA_SIGINFO) != 0;
  if (informed && action.sa_sigaction == Count) return Done{};
  if (!informed && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) return Failure{EINVAL, "sigaction"};
  Counted& entry = counted[signal];
  entry.plain.store(informed ? nullptr : action.sa_handler);
  entry.informed.store(informed ? action.sa_sigaction : nullptr);
  action.sa_sigaction = Count;
  action.sa_flags |= SA_SIGINFO;
  if (sigaction(signal, &action, nullptr) == -1) return Failure{errno, "sigaction"};
  return Done{};
}

}  // namespace

Result<Done> CountSentSignals(const std::vector<int>& signals) noexcept {
  static std::mutex mutex;  // two environments may do it at once
  const std::lock_guard<std::mutex> lock(mutex);
  for (const int signal : signals) {
    if (Result<Done> chained = Chain(signal); !chained.ok()) return chained;
  }
  return Done{};
}

std::uint32_t TakeSentSignals(int signal) noexcept {
  return signal > 0 && signal < kSignals ? counted[signal].sent.exchange(0) : 0;
}

}  // namespace gateway_lock

// pidfds: pidfd_open(2) since Linux 5.3, pidfd_send_signal(2) since 5.1. A sandbox may refuse them (ENOSYS, EPERM); then there is
// no handle, and nothing pretends to be one.

#include "../process_handle.h"

#include <errno.h>
#include <unistd.h>

namespace gateway_lock {
namespace {

// glibc 2.17 has neither wrappers nor numbers; these are the same on every architecture.
constexpr long kPidfdSendSignal = 424;
constexpr long kPidfdOpen = 434;

}  // namespace

// It comes with close-on-exec set.
Result<FileHandle> OpenProcess(ProcessId pid) noexcept {
  FileHandle process(static_cast<RawHandle>(syscall(kPidfdOpen, pid, 0u)));
  if (!process) return Failure{errno, "pidfd_open"};
  return process;
}

Result<Done> SignalProcess(const FileHandle& process, int signal) noexcept {
  const auto fd = static_cast<int>(process.raw());
  if (syscall(kPidfdSendSignal, fd, signal, nullptr, 0u) == -1) return Failure{errno, "pidfd_send_signal"};
  return Done{};
}

}  // namespace gateway_lock

// A kqueue that watches one process. It is made for a process, and not for its number: once there, it tells of that one's end,
// whoever has the number then. It is never read from, so that it stays readable. macOS has no way to signal by it.

#include "../process_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/event.h>
#include <unistd.h>

namespace gateway_lock {

// ESRCH also of a zombie, which holds nothing any more.
Result<FileHandle> OpenProcess(ProcessId pid) noexcept {
  FileHandle queue(kqueue());
  const auto fd = static_cast<int>(queue.raw());
  if (!queue || fcntl(fd, F_SETFD, FD_CLOEXEC) == -1) return Failure{errno, "kqueue"};
  struct kevent change;
  EV_SET(&change, static_cast<uintptr_t>(pid), EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, nullptr);
  if (kevent(fd, &change, 1, nullptr, 0, nullptr) == -1) return Failure{errno, "kevent"};
  return queue;
}

Result<Done> SignalProcess(const FileHandle&, int) noexcept { return Failure{ENOTSUP, "kill"}; }

}  // namespace gateway_lock

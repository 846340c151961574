#include "../posix/wake.h"

#include <fcntl.h>
#include <sys/event.h>
#include <unistd.h>

namespace gateway_lock {
namespace {

bool Change(const FileHandle& queue, std::uint16_t flags, std::uint32_t notes) noexcept {
  struct kevent change;
  EV_SET(&change, 0, EVFILT_USER, flags, notes, 0, nullptr);
  return kevent(static_cast<int>(queue.raw()), &change, 1, nullptr, 0, nullptr) == 0;
}

}  // namespace

FileHandle OpenWake() noexcept {
  FileHandle queue(kqueue());
  if (!queue || fcntl(static_cast<int>(queue.raw()), F_SETFD, FD_CLOEXEC) == -1) return FileHandle();
  return Change(queue, EV_ADD, 0) ? std::move(queue) : FileHandle();
}

void Wake(const FileHandle& wake) noexcept { Change(wake, 0, NOTE_TRIGGER); }

}  // namespace gateway_lock

#include "../posix/wake.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace gateway_lock {

FileHandle OpenWake() noexcept { return FileHandle(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void Wake(const FileHandle& wake) noexcept {
  const uint64_t one = 1;
  // Fails only when it has been woken as often as 64 bits can count.
  [[maybe_unused]] const ssize_t written = write(static_cast<int>(wake.raw()), &one, sizeof(one));
}

}  // namespace gateway_lock

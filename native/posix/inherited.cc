#include "../inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"
#include "listening.h"

namespace gateway_lock {
namespace {

bool GetFlag(int fd, int level, int option) noexcept {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(fd, level, option, &value, &size) == 0 && value != 0;
}

// The original is not inherited any further either. -1 on failure.
int Copy(RawHandle inherited) noexcept {
  const auto fd = static_cast<int>(inherited);
  return fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
}

// A directory, or a file whose record can be written. With O_APPEND, pwrite(2) on Linux writes at the end.
bool CanCarryLock(int fd, const struct stat& file) noexcept {
  if (S_ISDIR(file.st_mode)) return true;
  return S_ISREG(file.st_mode) && (fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND)) == O_RDWR;
}

Result<LockAttempt> LockInherited(const FileHandle& file, const std::string& path, bool self_test) noexcept {
  const auto fd = static_cast<int>(file.raw());
  struct stat opened;
  if (fstat(fd, &opened) == -1) return Failure{errno, "fstat"};
  if (!CanCarryLock(fd, opened)) return Failure{EBADF, "fcntl"};
  Result<Currency> currency = CheckLock(file, path);
  if (!currency.ok()) return currency.failure();
  if (currency.value() != Currency::kCurrent) return LockAttempt{LockStatus::kReplaced};
  int result;
  do {
    result = flock(fd, LOCK_EX | LOCK_NB);  // of no effect for who has the lock by this open file description
  } while (result == -1 && errno == EINTR);
  if (result == -1 && errno == EWOULDBLOCK) return LockAttempt{LockStatus::kHeld};
  if (result == -1) return Failure{errno, "flock"};
  return ConfirmLock(file, path, self_test);
}

}  // namespace

Result<InheritedSocket> DescribeSocket(RawHandle inherited) noexcept {
  const auto fd = static_cast<int>(inherited);
  int type = 0;
  socklen_t size = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == -1) return Failure{errno, "getsockopt"};
  Result<Address> address = AddressOf(fd);
  if (!address.ok()) return address.failure();
  const int family = address.value().storage.ss_family;
  const bool is_tcp = type == SOCK_STREAM && (family == AF_INET || family == AF_INET6) && IsPlainTcp(fd);
  if (!is_tcp) return Failure{EPROTOTYPE, "getsockopt"};
  Result<std::string> host = HostOf(address.value());
  if (!host.ok()) return host.failure();
  InheritedSocket socket;
  socket.address = host.value();
  socket.ipv6 = address.value().ipv6();
  socket.port = ntohs(address.value().port());
  socket.v6only = socket.ipv6 && GetFlag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  socket.listening = IsListening(fd);
  socket.reuse_port = GetFlag(fd, SOL_SOCKET, SO_REUSEPORT);
  return socket;
}

Result<BoundSocket> AdoptSocket(RawHandle inherited) noexcept {
  Result<InheritedSocket> found = DescribeSocket(inherited);
  if (!found.ok()) return found.failure();
  const InheritedSocket& socket = found.value();
  SocketHandle copy(Copy(inherited));
  if (!copy) return Failure{errno, "fcntl"};
  const auto fd = static_cast<int>(copy.raw());
  if (socket.listening && !SetFlag(fd, SOL_SOCKET, SO_REUSEADDR, true)) return Failure{errno, "setsockopt"};
  return BoundSocket{std::move(copy), socket.address, socket.ipv6, socket.port};
}

Result<LockAttempt> AdoptLock(RawHandle inherited, const std::string& path, bool self_test) noexcept {
  FileHandle copy(Copy(inherited));
  if (!copy) return Failure{errno, "fcntl"};
  Result<LockAttempt> attempt = LockInherited(copy, path, self_test);
  if (attempt.ok() && attempt.value().status == LockStatus::kLocked) attempt.value().file = std::move(copy);
  return attempt;
}

Result<Done> LendSocket(const SocketHandle& socket) noexcept {
  if (Result<InheritedSocket> found = DescribeSocket(socket.raw()); !found.ok()) return found.failure();
  const auto fd = static_cast<int>(socket.raw());
  const int flags = fcntl(fd, F_GETFL);
  if (flags == -1 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == -1) return Failure{errno, "fcntl"};
  return Done{};
}

}  // namespace gateway_lock

#include "../posix/local_system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/ucred.h>
#include <unistd.h>

namespace gateway_lock {
namespace {

bool Ready(int fd) noexcept { return fcntl(fd, F_SETFD, FD_CLOEXEC) != -1 && fcntl(fd, F_SETFL, O_NONBLOCK) != -1; }

// macOS has no flags for what another thread might fork in between.
SocketHandle Readied(int fd) noexcept {
  SocketHandle socket(fd);
  const int on = 1;
  if (!socket || !Ready(fd) || setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on)) == -1) return SocketHandle();
  return socket;
}

}  // namespace

const int kReceiveFlags = 0;
const int kSendFlags = 0;

// 104 bytes with the NUL (unix(4)), and no way around.
Result<LocalAddress> LocalAddressOf(const std::string& path) noexcept {
  LocalAddress address;
  if (path.size() >= sizeof(address.storage.sun_path)) return Failure{ENAMETOOLONG, "bind"};
  address.storage.sun_family = AF_UNIX;
  memcpy(address.storage.sun_path, path.c_str(), path.size() + 1);
  return address;
}

bool BindPrivately(const SocketHandle& socket, const LocalAddress& address) noexcept {
  if (bind(static_cast<int>(socket.raw()), address.get(), sizeof(address.storage)) == -1) return false;
  // Not what a link leads to that somebody has put there since.
  if (fchmodat(AT_FDCWD, address.path(), S_IRUSR | S_IWUSR, AT_SYMLINK_NOFOLLOW) == 0) return true;
  const int error = errno;
  unlink(address.path());
  errno = error;
  return false;
}

SocketHandle OpenLocal() noexcept { return Readied(socket(AF_UNIX, SOCK_STREAM, 0)); }

SocketHandle AcceptFrom(const SocketHandle& listener) noexcept {
  return Readied(accept(static_cast<int>(listener.raw()), nullptr, nullptr));
}

bool OpenPipe(FileHandle& reader, FileHandle& writer) noexcept {
  int ends[2];
  if (pipe(ends) == -1) return false;
  reader = FileHandle(ends[0]);
  writer = FileHandle(ends[1]);
  return Ready(ends[0]) && Ready(ends[1]);
}

Result<Peer> IdentifyPeer(const SocketHandle& socket) noexcept {
  const auto fd = static_cast<int>(socket.raw());
  uid_t user;
  gid_t group;
  if (getpeereid(fd, &user, &group) == -1) return Failure{errno, "getpeereid"};
  pid_t pid = 0;
  socklen_t size = sizeof(pid);
  if (getsockopt(fd, SOL_LOCAL, LOCAL_PEERPID, &pid, &size) == -1) pid = 0;
  return Peer{user, pid};
}

}  // namespace gateway_lock

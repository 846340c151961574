#include "../posix/local_system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gateway_lock {
namespace {

// 108 bytes with the NUL (unix(7)).
bool Fit(sockaddr_un& address, const std::string& path) noexcept {
  if (path.size() >= sizeof(address.sun_path)) return false;
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

// Whether root is in somebody else's directory, who may put a link in its place at any moment.
bool IsForeign(const std::string& directory) noexcept {
  struct stat there;
  return geteuid() == 0 && lstat(directory.c_str(), &there) == 0 && there.st_uid != 0;
}

}  // namespace

const int kReceiveFlags = MSG_CMSG_CLOEXEC;
const int kSendFlags = MSG_NOSIGNAL;

Result<LocalAddress> LocalAddressOf(const std::string& path) noexcept {
  LocalAddress address;
  const std::size_t slash = path.find_last_of('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash);
  const bool foreign = IsForeign(directory);
  if (!foreign && Fit(address.storage, path)) return address;
  if (slash == std::string::npos) return Failure{ENAMETOOLONG, "bind"};
  const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC | (foreign ? O_NOFOLLOW : 0);
  address.directory = FileHandle(open(directory.c_str(), flags));
  if (!address.directory) return Failure{errno, "open"};
  const std::string shorter = "/proc/self/fd/" + std::to_string(address.directory.raw()) + path.substr(slash);
  if (!Fit(address.storage, shorter)) return Failure{ENAMETOOLONG, "bind"};
  return address;
}

// bind(2) gives the name the socket's own mode, less the umask (net/unix/af_unix.c). An umask that leaves less than that is made
// good by a descriptor: by its path it could be somebody else's file by then.
bool BindPrivately(const SocketHandle& socket, const LocalAddress& address) noexcept {
  constexpr mode_t kMode = S_IRUSR | S_IWUSR;
  const auto fd = static_cast<int>(socket.raw());
  if (fchmod(fd, kMode) == -1 || bind(fd, address.get(), sizeof(address.storage)) == -1) return false;
  struct stat there;
  if (lstat(address.path(), &there) == 0 && (there.st_mode & ~S_IFMT) == kMode) return true;
  const FileHandle name(open(address.path(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (name && chmod(("/proc/self/fd/" + std::to_string(name.raw())).c_str(), kMode) == 0) return true;
  const int error = errno;
  unlink(address.path());
  errno = error;
  return false;
}

SocketHandle OpenLocal() noexcept { return SocketHandle(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

SocketHandle AcceptFrom(const SocketHandle& listener) noexcept {
  return SocketHandle(accept4(static_cast<int>(listener.raw()), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

bool OpenPipe(FileHandle& reader, FileHandle& writer) noexcept {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == -1) return false;
  reader = FileHandle(ends[0]);
  writer = FileHandle(ends[1]);
  return true;
}

Result<Peer> IdentifyPeer(const SocketHandle& socket) noexcept {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(static_cast<int>(socket.raw()), SOL_SOCKET, SO_PEERCRED, &peer, &size) == -1)
    return Failure{errno, "getsockopt"};
  return Peer{peer.uid, peer.pid};
}

}  // namespace gateway_lock

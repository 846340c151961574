#include "../posix/local_system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
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

}  // namespace

const int kReceiveFlags = MSG_CMSG_CLOEXEC;
const int kSendFlags = MSG_NOSIGNAL;

Result<LocalAddress> LocalAddressOf(const std::string& path) noexcept {
  LocalAddress address;
  if (Fit(address.storage, path)) return address;
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return Failure{ENAMETOOLONG, "bind"};
  address.directory = FileHandle(open(path.substr(0, slash + 1).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!address.directory) return Failure{errno, "open"};
  const std::string shorter = "/proc/self/fd/" + std::to_string(address.directory.raw()) + path.substr(slash);
  if (!Fit(address.storage, shorter)) return Failure{ENAMETOOLONG, "bind"};
  return address;
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

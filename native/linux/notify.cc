#include "../notify.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../handle.h"

namespace gateway_lock {

Result<Done> Notify(const std::string& socket, const std::string& message) noexcept {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // Without room for a NUL, which neither kind of address needs (unix(7)).
  if (socket.empty()) return Failure{EINVAL, "sendto"};
  if (socket.size() > sizeof(address.sun_path)) return Failure{ENAMETOOLONG, "sendto"};
  memcpy(address.sun_path, socket.data(), socket.size());
  if (socket[0] == '@') address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket.size());

  SocketHandle sender(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!sender) return Failure{errno, "socket"};
  ssize_t sent;
  do {
    sent = sendto(static_cast<int>(sender.raw()), message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                  reinterpret_cast<const sockaddr*>(&address), length);
  } while (sent == -1 && errno == EINTR);
  if (sent == -1) return Failure{errno, "sendto"};
  return Done{};
}

}  // namespace gateway_lock

#include "../posix/listening.h"

#include <netinet/in.h>
#include <sys/socket.h>

namespace gateway_lock {
namespace {

int OptionOf(int socket, int option) noexcept {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(socket, SOL_SOCKET, option, &value, &size) == 0 ? value : 0;
}

}  // namespace

// Also SCTP and MPTCP have stream sockets.
bool IsPlainTcp(int socket) noexcept { return OptionOf(socket, SO_PROTOCOL) == IPPROTO_TCP; }

bool IsListening(int socket) noexcept { return OptionOf(socket, SO_ACCEPTCONN) != 0; }

}  // namespace gateway_lock

#include "../posix/listening.h"

#include <libproc.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <unistd.h>

namespace gateway_lock {

// Multipath TCP has an address family of its own here, and nothing else has stream sockets.
bool IsPlainTcp(int) noexcept { return true; }

// getsockopt(2) does not tell SO_ACCEPTCONN.
bool IsListening(int socket) noexcept {
  socket_fdinfo info;
  const int size = proc_pidfdinfo(getpid(), socket, PROC_PIDFDSOCKETINFO, &info, sizeof(info));
  return size == static_cast<int>(sizeof(info)) && (info.psi.soi_options & SO_ACCEPTCONN) != 0;
}

}  // namespace gateway_lock

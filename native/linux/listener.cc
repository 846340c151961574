// Why not simply bind: the sixty-second trap.
//
// A killed gateway leaves its clients' connections in FIN_WAIT2 and TIME_WAIT on its port, and a plain bind refuses the
// port until the last of them has expired, a minute later. SO_REUSEADDR on the new socket lifts that only if the *old*
// connections carry it too (they inherit it from the listener that accepted them): after a listener that never set it,
// no successor of any kind gets in for that minute. But SO_REUSEADDR set before bind lets a rival be bound at the same
// time, as long as neither listens.
//
// So: bind strictly, set SO_REUSEADDR on the bound socket, and listen. The flag is for our successor's sake, and it must
// be there before the first client can connect: a connection that completes before it is set would shut the successor
// out for a minute. A rival with the flag may be bound beside us from then on, but not listen. If the strict bind finds
// the port in use, try once more with SO_REUSEADDR from the start: dead connections let that pass, and a live listener
// does not, because Linux never lets two sockets listen on one address unless both set SO_REUSEPORT, which nothing here
// ever does. The kernel arbitrates; no table is read.
//
// Two that listen in the very same microsecond can both be refused, because each announces itself before it looks
// (inet_csk_listen_start, net/ipv4/inet_connection_sock.c); so a refused listen, unlike a refused bind, is tried again.
//
// A guard must not keep SO_REUSEADDR, or a rival with the flag could listen beside it. On its second try it therefore
// listens for an instant, clears the flag, and stops listening by shutdown(2), which leaves the socket bound.
//
// To serve by a guard later, the flag must not come first: a rival could be bound in between, stay bound, and have its listen
// tried until we are caught in that state once more. So we listen strictly, and set the flag while a filter keeps every packet
// away, so that no connection can begin without it. Where there can be no such filter, a client of that instant has the flag too
// late, which can cost a successor its minute; a rival costs the port. Only where dead connections refuse a strict listen, the
// flag comes first after all; and whoever has listened once goes on doing so.

#include "../listener.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../posix/address.h"
#include "../posix/listening.h"

namespace gateway_lock {
namespace {

int Fd(const SocketHandle& socket) noexcept { return static_cast<int>(socket.raw()); }

Failure Failed(const char* syscall) noexcept { return Failure{errno, syscall}; }

Result<SocketHandle> Bind(Address& address, bool dual_stack, bool reuse) noexcept {
  SocketHandle socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
  if (!socket) return Failed("socket");
  // Said explicitly, because net.ipv6.bindv6only decides it otherwise.
  if (address.ipv6() && !SetFlag(Fd(socket), IPPROTO_IPV6, IPV6_V6ONLY, !dual_stack)) return Failed("setsockopt");
  if (reuse && !SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, true)) return Failed("setsockopt");
  if (bind(Fd(socket), address.get(), address.length) == -1) return Failed("bind");
  return socket;
}

bool InUse(const Result<SocketHandle>& bound) noexcept { return !bound.ok() && bound.failure().code == EADDRINUSE; }

// The flag first: see above.
Result<Done> ListenOn(const SocketHandle& socket, int backlog) noexcept {
  if (!SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, true)) return Failed("setsockopt");
  if (listen(Fd(socket), backlog) == -1) return Failed("listen");
  return Done{};
}

// A port that the kernel chose is given back as soon as the socket stops listening; only one that was asked for stays
// bound (SOCK_BINDPORT_LOCK, net/ipv4/af_inet.c). So let the kernel choose, and then ask for its choice.
Result<SocketHandle> BindAnyPort(Address& address, bool dual_stack) noexcept {
  constexpr int kMaxChoices = 64;  // each one lost went to somebody else between the two binds
  Result<SocketHandle> bound = Failure{EADDRINUSE, "bind"};
  for (int choice = 0; choice < kMaxChoices && InUse(bound); choice++) {
    address.port() = 0;
    bound = Bind(address, dual_stack, false);
    if (!bound.ok()) return bound;
    if (getsockname(Fd(bound.value()), address.get(), &address.length) == -1) return Failed("getsockname");
    bound.value().Reset();
    bound = Bind(address, dual_stack, false);
  }
  return bound;
}

// Lets nothing in with 0, and everything with the largest number (bytes of each packet).
bool SetFilter(const SocketHandle& socket, uint32_t bytes) noexcept {
  sock_filter keep = BPF_STMT(BPF_RET | BPF_K, bytes);
  const sock_fprog filter = {1, &keep};
  return setsockopt(Fd(socket), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0;
}

// Listens without having had SO_REUSEADDR, and with it before anybody can connect; right after that where the system refuses this
// user a filter. False: it does not listen. A failure: it hears nobody.
Result<bool> ListenUnseen(const SocketHandle& socket, int backlog) noexcept {
  const bool filters = SetFilter(socket, 0);
  const bool listens = listen(Fd(socket), backlog) == 0 && SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, true);
  if (!filters) return listens;
  // qemu-user attaches filters, and can't detach them.
  if (!SetFlag(Fd(socket), SOL_SOCKET, SO_DETACH_FILTER, true) && !SetFilter(socket, UINT32_MAX)) return Failed("setsockopt");
  return listens;
}

// How often a listen may meet somebody who listens in the same instant, before that is taken for an answer.
constexpr int kMaxCollisions = 16;

bool Collided(const Result<Done>& listening) noexcept { return !listening.ok() && listening.failure().code == EADDRINUSE; }

}  // namespace

Result<BoundSocket> Listen(const BindRequest& request) noexcept {
  Result<Address> address = ParseAddress(request.host, request.port);
  if (!address.ok()) return address.failure();
  for (int collision = 0;; collision++) {
    Result<SocketHandle> bound =
        request.port == 0 ? BindAnyPort(address.value(), request.dual_stack) : Bind(address.value(), request.dual_stack, false);
    if (InUse(bound)) bound = Bind(address.value(), request.dual_stack, true);
    if (!bound.ok()) return bound.failure();
    Result<Done> listening = ListenOn(bound.value(), request.backlog);
    if (listening.ok()) return DescribeBound(std::move(bound.value()));
    if (!Collided(listening) || collision == kMaxCollisions) return listening.failure();
  }
}

Result<BoundSocket> Guard(const BindRequest& request) noexcept {
  Result<Address> address = ParseAddress(request.host, request.port);
  if (!address.ok()) return address.failure();
  for (int collision = 0;; collision++) {
    Result<SocketHandle> bound = Bind(address.value(), request.dual_stack, false);
    if (!InUse(bound)) return bound.ok() ? DescribeBound(std::move(bound.value())) : bound.failure();

    bound = Bind(address.value(), request.dual_stack, true);
    if (!bound.ok()) return bound.failure();
    Result<Done> listening = ListenOn(bound.value(), 1);
    if (!listening.ok()) {
      if (!Collided(listening) || collision == kMaxCollisions) return listening.failure();
      continue;
    }
    if (Result<Done> silenced = Silence(bound.value()); !silenced.ok()) return silenced.failure();
    return DescribeBound(std::move(bound.value()));
  }
}

Result<Done> Rouse(const SocketHandle& socket, int backlog) noexcept {
  Result<bool> listens = IsListening(Fd(socket)) ? Result<bool>(true) : ListenUnseen(socket, backlog);
  if (!listens.ok()) return listens.failure();
  if (listens.value()) return ListenOn(socket, backlog);
  for (int collision = 0;; collision++) {
    Result<Done> listening = ListenOn(socket, backlog);
    if (listening.ok()) return listening;
    SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, false);
    if (!Collided(listening) || collision == kMaxCollisions) return listening;
  }
}

Result<Done> Silence(const SocketHandle& socket) noexcept {
  if (!SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, false)) return Failed("setsockopt");
  // On a listening socket, shutdown(2) ends the listening and keeps an explicitly chosen port bound.
  if (shutdown(Fd(socket), SHUT_RD) == -1 && errno != ENOTCONN) return Failed("shutdown");
  return Done{};
}

Result<SocketCopy> Duplicate(const SocketHandle& socket) noexcept {
  struct stat identity;
  if (fstat(Fd(socket), &identity) == -1) return Failed("fstat");
  const int copy = fcntl(Fd(socket), F_DUPFD_CLOEXEC, 0);
  if (copy == -1) return Failed("fcntl");
  return SocketCopy{copy, identity.st_ino};
}

void CloseCopy(const SocketCopy& copy) noexcept {
  struct stat there;
  const int fd = static_cast<int>(copy.raw);
  // Sockets have inode numbers of their own, which sockfs does not use again while one is open.
  if (fstat(fd, &there) == 0 && S_ISSOCK(there.st_mode) && there.st_ino == copy.identity) close(fd);
}

}  // namespace gateway_lock

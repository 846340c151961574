// Which sockets may share a port: on macOS only the newcomer's flag counts.
//
// A socket without SO_REUSEADDR is refused by everything that overlaps its address: the same address, a wildcard over it, an
// address under its wildcard, and the connections that a dead gateway left behind, in TIME_WAIT for half a minute. A socket with
// it is refused by one thing alone: an unconnected socket at exactly the same address (in_pcbbind, bsd/netinet/in_pcb.c;
// in6_pcbbind, bsd/netinet6/in6_pcb.c). Flags on the older socket do not matter, SO_REUSEPORT apart, which nothing here ever
// sets; so there is no recipe that spares a successor the dead connections, none is needed, and our listeners carry no flag.
//
// So: bind strictly. If that finds the port in use, look for unconnected sockets that overlap, bound or listening, whoever has
// them. Only if there is none, these were dead connections: bind with SO_REUSEADDR, and look once more. The second look makes it
// safe between two that do this at once, say at 127.0.0.1 and at 0.0.0.0: of two sockets that are both bound, the later one's
// owner sees the earlier one, and gives up. At one and the same address the kernel refuses the second. What can't be looked
// at is in use.
//
// The look before is for a live listener's sake: from our bind on, the kernel would hand its clients to our socket where our
// address is the more specific one, and a socket that does not listen lets them wait in vain (tcp_input, bsd/netinet/tcp_input.c,
// TCPS_CLOSED).
//
// Strict binds have one hole: [::] for both families does not notice 0.0.0.0, while 0.0.0.0 notices [::]. So after a strict bind
// of [::], too, we look. (To take 0.0.0.0 first and give it back does not do: for up to a second the kernel finds the closed
// socket there and refuses IPv4 clients for its sake; in_pcblookup_hash_locked, and inpcb_sched_timeout, which clears it away.)
//
// What nobody can have here: a rival that sets SO_REUSEADDR, as every server of stock Node does, may still listen on a wildcard
// over our address, or on one address under our wildcard. The more specific socket gets the clients.
//
// And a listening socket stays one until it is closed: shutdown(2) refuses it as not connected, and nothing else takes the
// listening back (soshutdown, solisten, bsd/kern/uipc_socket.c).

#include "../listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libproc.h>
#include <netinet/in.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../port_sockets.h"
#include "../posix/address.h"

namespace gateway_lock {
namespace {

constexpr char kAnyV4[] = "0.0.0.0";
constexpr char kAnyV6[] = "::";

int Fd(const SocketHandle& socket) noexcept { return static_cast<int>(socket.raw()); }

Failure Failed(const char* syscall) noexcept { return Failure{errno, syscall}; }

struct Wanted : Address {
  std::string text;  // as FindPortSockets spells it: without a zone
  bool dual_stack = false;

  bool takes_both() const noexcept { return dual_stack && text == kAnyV6; }
};

Result<Wanted> Parse(const BindRequest& request) noexcept {
  Result<Address> address = ParseAddress(request.host, request.port);
  if (!address.ok()) return address.failure();
  Wanted wanted = {address.value(), "", request.dual_stack && address.value().ipv6()};
  char text[INET6_ADDRSTRLEN];
  const void* binary = wanted.ipv6() ? static_cast<void*>(&reinterpret_cast<sockaddr_in6*>(wanted.get())->sin6_addr)
                                     : &reinterpret_cast<sockaddr_in*>(wanted.get())->sin_addr;
  if (inet_ntop(wanted.storage.ss_family, binary, text, sizeof(text)) == nullptr) return Failed("inet_ntop");
  wanted.text = text;
  return wanted;
}

Result<SocketHandle> Bind(Wanted& address, bool reuse) noexcept {
  SocketHandle socket(::socket(address.storage.ss_family, SOCK_STREAM, IPPROTO_TCP));
  if (!socket) return Failed("socket");
  // There is no SOCK_CLOEXEC: a child that another thread forks right now has a copy until it ends. Not one that libuv spawns
  // with POSIX_SPAWN_CLOEXEC_DEFAULT (src/unix/process.c); it forks only to change a child's user or group.
  if (fcntl(Fd(socket), F_SETFD, FD_CLOEXEC) == -1 || fcntl(Fd(socket), F_SETFL, O_NONBLOCK) == -1) return Failed("fcntl");
  if (address.ipv6() && !SetFlag(Fd(socket), IPPROTO_IPV6, IPV6_V6ONLY, !address.dual_stack)) return Failed("setsockopt");
  if (reuse && !SetFlag(Fd(socket), SOL_SOCKET, SO_REUSEADDR, true)) return Failed("setsockopt");
  if (bind(Fd(socket), address.get(), address.length) == -1) return Failed("bind");
  return socket;
}

bool InUse(const Result<SocketHandle>& bound) noexcept { return !bound.ok() && bound.failure().code == EADDRINUSE; }

// At this very address the kernel lets nobody else be bound: what is there is ours.
bool IsOurs(const PortSocket& socket, const Wanted& address) noexcept {
  return socket.ipv6 == address.ipv6() && socket.address == address.text;
}

bool Overlaps(const PortSocket& socket, const Wanted& address) noexcept {
  const bool any = address.text == kAnyV4 || address.text == kAnyV6;
  const bool socket_any = socket.address == kAnyV4 || socket.address == kAnyV6;
  if (socket.ipv6 == address.ipv6()) return any || socket_any || socket.address == address.text;
  return address.ipv6() ? address.takes_both() : socket_any && !socket.v6only;
}

// Bound ones first: a socket that begins to listen meanwhile is seen twice rather than never.
bool HasRival(const Wanted& address, std::uint16_t port) noexcept {
  for (const PortUse use : {PortUse::kBound, PortUse::kListening}) {
    Result<std::vector<PortSocket>> found = FindPortSockets(port, use);
    if (!found.ok()) return true;
    for (const PortSocket& socket : found.value()) {
      if (Overlaps(socket, address) && !IsOurs(socket, address)) return true;
    }
  }
  return false;
}

// 0 on failure.
std::uint16_t PortOf(const SocketHandle& socket) noexcept {
  Result<Address> address = AddressOf(Fd(socket));
  return address.ok() ? ntohs(address.value().port()) : 0;
}

Result<SocketHandle> Claim(Wanted& address) noexcept {
  // Lost to somebody who looked in the same instant and gave up too, or who has for IPv4 what the kernel chose for IPv6.
  constexpr int kMaxTries = 64;
  const std::uint16_t port = ntohs(address.port());
  for (int tries = 1;; tries++) {
    Result<SocketHandle> bound = Bind(address, false);
    const bool strict = bound.ok();
    if (InUse(bound) && port != 0 && !HasRival(address, port)) bound = Bind(address, true);
    if (!bound.ok()) return bound;
    if (strict && !address.takes_both()) return bound;
    if (!HasRival(address, PortOf(bound.value()))) return bound;
    if ((strict && port != 0) || tries == kMaxTries) return Failure{EADDRINUSE, "bind"};
  }
}

// The kernel's own name for the socket, scrambled; 0 where it does not tell. fstat(2) gives every socket the inode number 0
// (soo_stat, bsd/kern/sys_socket.c).
std::uint64_t IdentityOf(int fd) noexcept {
  socket_fdinfo info;
  const int size = proc_pidfdinfo(getpid(), fd, PROC_PIDFDSOCKETINFO, &info, sizeof(info));
  return size == static_cast<int>(sizeof(info)) ? info.psi.soi_so : 0;
}

}  // namespace

Result<BoundSocket> Listen(const BindRequest& request) noexcept {
  Result<Wanted> address = Parse(request);
  if (!address.ok()) return address.failure();
  Result<SocketHandle> bound = Claim(address.value());
  if (!bound.ok()) return bound.failure();
  if (listen(Fd(bound.value()), request.backlog) == -1) return Failed("listen");
  return DescribeBound(std::move(bound.value()));
}

// Clients get no answer here, where other systems refuse them: see TCPS_CLOSED above.
Result<BoundSocket> Guard(const BindRequest& request) noexcept {
  Result<Wanted> address = Parse(request);
  if (!address.ok()) return address.failure();
  Result<SocketHandle> bound = Claim(address.value());
  if (!bound.ok()) return bound.failure();
  return DescribeBound(std::move(bound.value()));
}

Result<Done> Rouse(const SocketHandle& socket, int backlog) noexcept {
  if (listen(Fd(socket), backlog) == -1) return Failed("listen");
  return Done{};
}

Result<Done> Silence(const SocketHandle&) noexcept { return Failure{ENOTSUP, "shutdown"}; }

Result<SocketCopy> Duplicate(const SocketHandle& socket) noexcept {
  const int copy = fcntl(Fd(socket), F_DUPFD_CLOEXEC, 0);
  if (copy == -1) return Failed("fcntl");
  return SocketCopy{copy, IdentityOf(copy)};
}

// Rather left open than closed without knowing what it is.
void CloseCopy(const SocketCopy& copy) noexcept {
  const int fd = static_cast<int>(copy.raw);
  if (copy.identity != 0 && IdentityOf(fd) == copy.identity) close(fd);
}

}  // namespace gateway_lock

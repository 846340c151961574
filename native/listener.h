// A TCP port that nobody else can listen on while the Handle is open.
//
// Addresses are numeric; no name is ever looked up. Sockets are not inherited by child processes. EADDRINUSE from
// these calls means that the port has a live holder: connections that a dead gateway left behind do not count.
#pragma once

#include <cstdint>
#include <string>

#include "handle.h"
#include "result.h"

namespace gateway_lock {

struct BindRequest {
  std::string host;  // an IPv4 or IPv6 literal, with a zone where it needs one
  std::uint16_t port = 0;
  int backlog = 0;          // of Listen only
  bool dual_stack = false;  // an IPv6 wildcard takes the IPv4 port too
};

struct BoundSocket {
  SocketHandle socket;
  std::string address;
  bool ipv6 = false;
  std::uint16_t port = 0;
};

// Binds and listens in one go: between the two, a rival could still come in.
Result<BoundSocket> Listen(const BindRequest& request) noexcept;

// Binds and does not listen: clients are refused, and so is everybody who wants the port.
Result<BoundSocket> Guard(const BindRequest& request) noexcept;

// Turns a guard into a listening socket, as Listen would have made it, and leaves one that listens as it is. What a guard keeps
// out stays out, unless dead connections are on the port: then a rival that asks all the time may be quicker.
Result<Done> Rouse(const SocketHandle& socket, int backlog) noexcept;

// Turns a listening socket into a guard. Connections that nobody has accepted yet are reset. ENOTSUP where a socket listens until
// it is closed.
Result<Done> Silence(const SocketHandle& socket) noexcept;

// A second handle to the same socket, for somebody else to close. `identity` tells it from whatever has its number later.
struct SocketCopy {
  RawHandle raw;
  std::uint64_t identity;
};

Result<SocketCopy> Duplicate(const SocketHandle& socket) noexcept;

// For a copy that nobody took; nothing if its number is something else by now.
void CloseCopy(const SocketCopy& copy) noexcept;

}  // namespace gateway_lock

// Socket addresses, as text and as the system has them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "../listener.h"
#include "../result.h"

namespace gateway_lock {

struct Address {
  sockaddr_storage storage = {};
  socklen_t length = sizeof(storage);

  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  bool ipv6() const noexcept { return storage.ss_family == AF_INET6; }
  in_port_t& port() noexcept {
    return ipv6() ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port : reinterpret_cast<sockaddr_in*>(&storage)->sin_port;
  }
};

// A literal; no resolver is asked.
Result<Address> ParseAddress(const std::string& host, std::uint16_t port) noexcept;

// The local end.
Result<Address> AddressOf(int socket) noexcept;

// Numeric, with a zone where it has one.
Result<std::string> HostOf(Address& address) noexcept;

Result<BoundSocket> DescribeBound(SocketHandle socket) noexcept;

// False with errno.
bool SetFlag(int socket, int level, int option, bool on) noexcept;

}  // namespace gateway_lock

#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>

namespace gateway_lock {

// getaddrinfo with AI_NUMERICHOST reads zones ("fe80::1%eth0") and asks no resolver. Not with the port: macOS has crashed on "0"
// with AI_NUMERICSERV (socketmodule.c of CPython works around it).
Result<Address> ParseAddress(const std::string& host, std::uint16_t port) noexcept {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return error == EAI_SYSTEM ? Failure{errno, "getaddrinfo"} : Failure{EADDRNOTAVAIL, "getaddrinfo"};
  }
  Address address;
  address.length = found->ai_addrlen;
  __builtin_memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  address.port() = htons(port);
  return address;
}

Result<Address> AddressOf(int socket) noexcept {
  Address address;
  if (getsockname(socket, address.get(), &address.length) == -1) return Failure{errno, "getsockname"};
  return address;
}

Result<std::string> HostOf(Address& address) noexcept {
  char host[NI_MAXHOST];
  if (const int error = getnameinfo(address.get(), address.length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST); error != 0) {
    return error == EAI_SYSTEM ? Failure{errno, "getnameinfo"} : Failure{EINVAL, "getnameinfo"};
  }
  return std::string(host);
}

Result<BoundSocket> DescribeBound(SocketHandle socket) noexcept {
  Result<Address> address = AddressOf(static_cast<int>(socket.raw()));
  if (!address.ok()) return address.failure();
  Result<std::string> host = HostOf(address.value());
  if (!host.ok()) return host.failure();
  BoundSocket bound;
  bound.address = std::move(host.value());
  bound.ipv6 = address.value().ipv6();
  bound.port = ntohs(address.value().port());
  bound.socket = std::move(socket);
  return bound;
}

bool SetFlag(int socket, int level, int option, bool on) noexcept {
  const int value = on ? 1 : 0;
  return setsockopt(socket, level, option, &value, sizeof(value)) == 0;
}

}  // namespace gateway_lock

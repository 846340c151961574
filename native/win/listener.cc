// SO_EXCLUSIVEADDRUSE, because on Windows SO_REUSEADDR on the *rival's* socket takes a port over from everybody who has not set
// this option: from every plain server of Node's, for one (Winsock, "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE").
//
// An exclusive bind of a specific address does not notice somebody who listens on the wildcard. So an exclusive bind of the
// wildcard is tried first, and undone: it is refused if anybody has the port at any address. That is too much, for our own second
// address among others, so then the system's table decides: a listener at the wildcard is a rival, and the rest is left to the
// bind that counts.
//
// A refusal has several reasons. If the table shows a listener there, that is it. If not, connections of an owner that is gone
// may still be on their way out, and the bind is tried again for a moment. What is then left of WSAEACCES is a range of ports
// that the system keeps for others, as Hyper-V does, and stays EACCES.
//
// A listening socket listens until it is closed: see Silence.

#include "../listener.h"

#include <errno.h>
#include <winsock2.h>
#include <ws2tcpip.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "../port_sockets.h"
#include "errors.h"

namespace gateway_lock {
namespace {

// For the connections of an owner that is gone.
constexpr auto kPatience = std::chrono::milliseconds(250);
constexpr DWORD kRetry = 10;  // ms
constexpr DWORD kSocketFlags = WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT;

SOCKET Native(const SocketHandle& socket) noexcept { return static_cast<SOCKET>(socket.raw()); }

Failure Failed(const char* syscall) noexcept { return FailureOf(static_cast<unsigned long>(WSAGetLastError()), syscall); }

// Nobody ever calls WSACleanup: Node does not either.
bool StartWinsock() noexcept {
  static const bool started = [] {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
  }();
  return started;
}

struct Address {
  sockaddr_storage storage = {};
  int length = 0;

  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  bool ipv6() const noexcept { return storage.ss_family == AF_INET6; }
  sockaddr_in6* as_ipv6() noexcept { return reinterpret_cast<sockaddr_in6*>(&storage); }
  sockaddr_in* as_ipv4() noexcept { return reinterpret_cast<sockaddr_in*>(&storage); }

  std::uint16_t port() noexcept { return ntohs(ipv6() ? as_ipv6()->sin6_port : as_ipv4()->sin_port); }
  bool is_wildcard() noexcept {
    return ipv6() ? IN6_IS_ADDR_UNSPECIFIED(&as_ipv6()->sin6_addr) != 0 : as_ipv4()->sin_addr.s_addr == INADDR_ANY;
  }
  Address wildcard() noexcept {
    Address any;
    any.length = length;
    any.storage.ss_family = storage.ss_family;
    (ipv6() ? any.as_ipv6()->sin6_port : any.as_ipv4()->sin_port) = htons(port());
    return any;
  }
};

Result<Address> Parse(const BindRequest& request) noexcept {
  if (!StartWinsock()) return Failed("WSAStartup");
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(request.port);
  if (getaddrinfo(request.host.c_str(), port.c_str(), &hints, &found) != 0) return Failed("getaddrinfo");
  Address address;
  address.length = static_cast<int>(found->ai_addrlen);
  memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return address;
}

bool SetFlag(const SocketHandle& socket, int level, int option, DWORD value) noexcept {
  return setsockopt(Native(socket), level, option, reinterpret_cast<const char*>(&value), sizeof(value)) == 0;
}

Result<SocketHandle> BindOnce(Address& address, bool dual_stack) noexcept {
  const SOCKET raw = WSASocketW(address.storage.ss_family, SOCK_STREAM, IPPROTO_TCP, nullptr, 0, kSocketFlags);
  if (raw == INVALID_SOCKET) return Failed("WSASocketW");
  SocketHandle socket(static_cast<RawHandle>(raw));
  if (!SetFlag(socket, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1)) return Failed("setsockopt");
  if (address.ipv6() && !SetFlag(socket, IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1)) return Failed("setsockopt");
  if (bind(raw, address.get(), address.length) == SOCKET_ERROR) return Failed("bind");
  return socket;
}

bool IsConflict(const Failure& failure) noexcept { return failure.code == EADDRINUSE || failure.code == EACCES; }

bool IsWildcard(const std::string& address) noexcept { return address == "0.0.0.0" || address == "::"; }

// Whether somebody listens on the port in the address's family, or in either for a socket of both: anywhere for a wildcard, else
// there or at the wildcard.
bool HasListener(Address& address, const std::string& text, bool dual_stack, bool only_wildcard) noexcept {
  Result<std::vector<PortSocket>> found = FindPortSockets(address.port(), PortUse::kListening);
  if (!found.ok()) return true;  // not known to be free
  return std::any_of(found.value().begin(), found.value().end(), [&](const PortSocket& socket) {
    if (socket.ipv6 != address.ipv6() && !dual_stack) return false;
    return IsWildcard(socket.address) || (!only_wildcard && (address.is_wildcard() || socket.address == text));
  });
}

std::string TextOf(Address& address) noexcept {
  char host[NI_MAXHOST] = "";
  getnameinfo(address.get(), address.length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  return host;
}

Result<SocketHandle> Bind(Address& address, bool dual_stack) noexcept {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  // The table has addresses without their zones.
  std::string text = TextOf(address);
  text.resize(std::min(text.find('%'), text.size()));
  for (;;) {
    const bool has_port = address.port() != 0;
    bool is_free = true;
    if (has_port && !address.is_wildcard()) {
      Address any = address.wildcard();
      Result<SocketHandle> probe = BindOnce(any, false);
      if (!probe.ok() && IsConflict(probe.failure())) is_free = !HasListener(address, text, dual_stack, true);
    }
    if (is_free) {
      Result<SocketHandle> bound = BindOnce(address, dual_stack);
      if (bound.ok() || !has_port || !IsConflict(bound.failure())) return bound;
      if (!HasListener(address, text, dual_stack, false) && std::chrono::steady_clock::now() >= deadline) return bound;
    }
    if (HasListener(address, text, dual_stack, false)) return FailureOf(WSAEADDRINUSE, "bind");
    Sleep(kRetry);
  }
}

Result<BoundSocket> Describe(SocketHandle socket) noexcept {
  Address address;
  address.length = sizeof(address.storage);
  if (getsockname(Native(socket), address.get(), &address.length) == SOCKET_ERROR) return Failed("getsockname");
  BoundSocket bound;
  bound.address = TextOf(address);
  bound.ipv6 = address.ipv6();
  bound.port = address.port();
  bound.socket = std::move(socket);
  return bound;
}

}  // namespace

Result<BoundSocket> Listen(const BindRequest& request) noexcept {
  Result<Address> address = Parse(request);
  if (!address.ok()) return address.failure();
  Result<SocketHandle> bound = Bind(address.value(), request.dual_stack);
  if (!bound.ok()) return bound.failure();
  if (listen(Native(bound.value()), request.backlog) == SOCKET_ERROR) return Failed("listen");
  return Describe(std::move(bound.value()));
}

Result<BoundSocket> Guard(const BindRequest& request) noexcept {
  Result<Address> address = Parse(request);
  if (!address.ok()) return address.failure();
  Result<SocketHandle> bound = Bind(address.value(), request.dual_stack);
  if (!bound.ok()) return bound.failure();
  return Describe(std::move(bound.value()));
}

Result<Done> Rouse(const SocketHandle& socket, int backlog) noexcept {
  if (listen(Native(socket), backlog) == SOCKET_ERROR) return Failed("listen");
  return Done{};
}

Result<Done> Silence(const SocketHandle&) noexcept { return Failure{ENOTSUP, "shutdown"}; }

// A second handle to the same endpoint of the driver's, within this process.
Result<SocketCopy> Duplicate(const SocketHandle& socket) noexcept {
  WSAPROTOCOL_INFOW info;
  if (WSADuplicateSocketW(Native(socket), GetCurrentProcessId(), &info) != 0) return Failed("WSADuplicateSocketW");
  const SOCKET raw = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO, &info, 0, kSocketFlags);
  if (raw == INVALID_SOCKET) return Failed("WSASocketW");
  SocketHandle copy(static_cast<RawHandle>(raw));
  Address address;
  address.length = sizeof(address.storage);
  if (getsockname(raw, address.get(), &address.length) == SOCKET_ERROR) return Failed("getsockname");
  return SocketCopy{copy.Take(), address.port()};
}

// Sockets have no numbers but their handles', which are used again. One that listens on the port that is ours alone is ours.
void CloseCopy(const SocketCopy& copy) noexcept {
  if (copy.raw == kNoHandle) return;
  const SOCKET there = static_cast<SOCKET>(copy.raw);
  Address address;
  address.length = sizeof(address.storage);
  BOOL listens = FALSE;
  int size = sizeof(listens);
  const bool ours = getsockname(there, address.get(), &address.length) == 0 && address.port() == copy.identity &&
                    getsockopt(there, SOL_SOCKET, SO_ACCEPTCONN, reinterpret_cast<char*>(&listens), &size) == 0 && listens;
  if (ours) closesocket(there);
}

}  // namespace gateway_lock

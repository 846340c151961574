// NETLINK_SOCK_DIAG, and /proc/net/tcp where a sandbox refuses that, or a kernel does not have it: systemd's
// RestrictAddressFamilies, seccomp, gVisor. The files hold all sockets of the network namespace, so that they take milliseconds
// where netlink takes microseconds; and they show neither sockets that are only bound, nor whether an IPv6 one takes IPv4.

#include "../port_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>

#include "procfs.h"

namespace gateway_lock {
namespace {

// A socket that is bound and does not listen; since Linux 6.8, older ones ignore the bit (include/net/tcp_states.h).
constexpr std::uint32_t kTcpBoundInactive = 13;

std::uint32_t StatesOf(PortUse use) noexcept {
  switch (use) {
    case PortUse::kListening:
      return 1u << TCP_LISTEN;
    case PortUse::kBound:
      return 1u << kTcpBoundInactive;
    case PortUse::kConnected:
      return 1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_CLOSE_WAIT;
  }
  return 0;
}

struct DiagRequest {
  nlmsghdr header;
  inet_diag_req_v2 query;
};

DiagRequest RequestFor(int family, std::uint16_t port, std::uint32_t states, std::uint16_t flags) noexcept {
  DiagRequest request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | flags;
  request.query.sdiag_family = static_cast<std::uint8_t>(family);
  request.query.sdiag_protocol = IPPROTO_TCP;
  request.query.idiag_states = states;
  request.query.id.idiag_sport = htons(port);
  return request;
}

PortSocket ReadDiag(const nlmsghdr* header) {
  const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  PortSocket socket;
  socket.ipv6 = message->idiag_family == AF_INET6;
  socket.id = message->idiag_inode;
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(message->idiag_family, message->id.idiag_src, text, sizeof(text)) != nullptr) socket.address = text;
  int left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof(*message)));
  for (const auto* attribute = reinterpret_cast<const rtattr*>(message + 1); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == INET_DIAG_SKV6ONLY) socket.v6only = *static_cast<const std::uint8_t*>(RTA_DATA(attribute)) != 0;
  }
  return socket;
}

// One dump of one family; the kernel filters by state and local port (sock_diag(7)).
Result<Done> Dump(const SocketHandle& netlink, int family, std::uint16_t port, std::uint32_t states,
                  std::vector<PortSocket>& sockets) {
  const DiagRequest request = RequestFor(family, port, states, NLM_F_DUMP);
  const int fd = static_cast<int>(netlink.raw());
  if (send(fd, &request, sizeof(request), 0) == -1) return Failure{errno, "send"};

  alignas(nlmsghdr) char buffer[32768];
  for (;;) {
    const ssize_t received = recv(fd, buffer, sizeof(buffer), 0);
    if (received == -1 && errno == EINTR) continue;
    if (received == -1) return Failure{errno, "recv"};
    auto length = static_cast<std::uint32_t>(received);
    for (auto* header = reinterpret_cast<const nlmsghdr*>(buffer); NLMSG_OK(header, length);
         header = NLMSG_NEXT(header, length)) {
      if (header->nlmsg_type == NLMSG_DONE) return Done{};
      if (header->nlmsg_type == NLMSG_ERROR) return Failure{-static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error, "recv"};
      // A kernel that does not know the port filter sends all.
      if (static_cast<const inet_diag_msg*>(NLMSG_DATA(header))->id.idiag_sport == htons(port))
        sockets.push_back(ReadDiag(header));
    }
  }
}

Result<std::vector<PortSocket>> AskNetlink(std::uint16_t port, std::uint32_t states) {
  SocketHandle netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink) return Failure{errno, "socket"};
  std::vector<PortSocket> sockets;
  for (const int family : {AF_INET, AF_INET6}) {
    if (Result<Done> dumped = Dump(netlink, family, port, states, sockets); !dumped.ok()) return dumped.failure();
  }
  return sockets;
}

// One line of the file (proc_pid_net(5)): number, local address, remote address, state, queues, timer, retransmissions, user,
// timeout, inode. The address is in hexadecimal, in words of 32 bits as this processor reads them.
bool ReadLine(const std::string& line, bool ipv6, std::uint16_t port, std::uint32_t states, PortSocket& socket) {
  char local[33];
  unsigned int local_port, state;
  unsigned long long inode;
  const int read =
      sscanf(line.c_str(), " %*u: %32[0-9A-F]:%4X %*[0-9A-F:] %2X %*s %*s %*s %*u %*u %llu", local, &local_port, &state, &inode);
  if (read != 4 || local_port != port || state >= 32 || (states & 1u << state) == 0) return false;
  std::uint32_t words[4] = {};
  const std::string hexadecimal(local);
  const std::size_t count = ipv6 ? 4 : 1;
  if (hexadecimal.size() != count * 8) return false;
  for (std::size_t i = 0; i < count; i++) {
    words[i] = static_cast<std::uint32_t>(strtoul(hexadecimal.substr(i * 8, 8).c_str(), nullptr, 16));
  }
  char address[INET6_ADDRSTRLEN];
  if (inet_ntop(ipv6 ? AF_INET6 : AF_INET, words, address, sizeof(address)) == nullptr) return false;
  socket = PortSocket{address, ipv6, false, inode};
  return true;
}

Result<std::vector<PortSocket>> ReadTables(std::uint16_t port, std::uint32_t states) {
  char local_port[8];
  snprintf(local_port, sizeof(local_port), ":%04X ", port);
  std::vector<PortSocket> sockets;
  for (const bool ipv6 : {false, true}) {
    const bool was_read = ReadLines(ipv6 ? "/proc/net/tcp6" : "/proc/net/tcp", [&](std::string_view line) {
      if (line.find(local_port) == std::string_view::npos) return;
      if (PortSocket socket; ReadLine(std::string(line), ipv6, port, states, socket)) sockets.push_back(std::move(socket));
    });
    // Where IPv6 is off, its file is not there.
    if (!was_read && !(ipv6 && errno == ENOENT)) return Failure{errno, "open"};
  }
  return sockets;
}

}  // namespace

Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept {
  Result<std::vector<PortSocket>> asked = AskNetlink(port, StatesOf(use));
  if (asked.ok()) return asked;
  Result<std::vector<PortSocket>> read = ReadTables(port, StatesOf(use));
  return read.ok() ? std::move(read) : std::move(asked);
}

// Not a dump: the answer takes a tenth of the time, however many listen (inet_diag_find_one_icsk, net/ipv4/inet_diag.c).
Result<PortSocket> FindListener(const std::string& address, std::uint16_t port) noexcept {
  const int family = address.find(':') == std::string::npos ? AF_INET : AF_INET6;
  DiagRequest request = RequestFor(family, port, 1u << TCP_LISTEN, 0);
  request.query.id.idiag_cookie[0] = request.query.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  if (inet_pton(family, address.c_str(), request.query.id.idiag_src) != 1) return Failure{ENOTSUP, "inet_pton"};

  const SocketHandle netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink) return Failure{errno, "socket"};
  const int fd = static_cast<int>(netlink.raw());
  if (send(fd, &request, sizeof(request), 0) == -1) return Failure{errno, "send"};
  alignas(nlmsghdr) char buffer[1024];
  ssize_t received;
  do {
    received = recv(fd, buffer, sizeof(buffer), 0);
  } while (received == -1 && errno == EINTR);
  if (received == -1) return Failure{errno, "recv"};
  const auto* header = reinterpret_cast<const nlmsghdr*>(buffer);
  if (!NLMSG_OK(header, static_cast<std::uint32_t>(received))) return Failure{EPROTO, "recv"};
  if (header->nlmsg_type == NLMSG_ERROR) return Failure{-static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error, "recv"};
  const auto* found = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  if (found->idiag_state != TCP_LISTEN) return Failure{ENOENT, "recv"};
  return ReadDiag(header);
}

std::vector<ProcessId> FindSocketOwners(const std::vector<std::uint64_t>& ids, const std::vector<ProcessId>& hints) noexcept {
  constexpr std::string_view kPrefix = "socket:[";
  std::vector<ProcessId> owners(ids.size(), 0);
  std::size_t left = static_cast<std::size_t>(std::count_if(ids.begin(), ids.end(), [](std::uint64_t id) { return id != 0; }));
  if (left == 0) return owners;
  VisitDescriptors(hints, [&](ProcessId pid, const Descriptor& descriptor) {
    if (descriptor.link().substr(0, kPrefix.size()) != kPrefix) return false;
    const std::string_view number = descriptor.link().substr(kPrefix.size());
    std::uint64_t id = 0;
    std::from_chars(number.data(), number.data() + number.size(), id);
    for (std::size_t i = 0; i < ids.size(); i++) {
      if (ids[i] != id || id == 0 || owners[i] != 0) continue;
      owners[i] = pid;
      left--;
    }
    return left == 0;
  });
  return owners;
}

}  // namespace gateway_lock

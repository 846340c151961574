// Sockets come from one table with those of all users, by net.inet.tcp.pcblist64, also those that no process has open any more,
// and the ones that are bound and do not listen. Who has one is found by libproc.

#include "../port_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libproc.h>
#include <stddef.h>
#include <string.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <sys/sysctl.h>

#include <algorithm>

#include "descriptors.h"

namespace gateway_lock {
namespace {

// A socket's id is 64 bits of the kernel's; JavaScript has 53 for it.
std::uint64_t SocketId(std::uint64_t handle) noexcept { return handle & ((std::uint64_t{1} << 53) - 1); }

// The start of struct xtcpcb64 (bsd/netinet/tcp_var.h) with the structs inside it, as macOS has had them since 10.5.
// Written down here because not every SDK has the header.
#pragma pack(push, 4)
struct TcpEntry {
  std::uint32_t length;
  struct {
    std::uint64_t length;
    std::uint64_t pcb;
    in_port_t foreign_port;
    in_port_t local_port;
    std::uint64_t list[2];
    std::uint64_t protocol_pcb;
    std::uint64_t pcb_info;
    std::uint64_t port_list[2];
    std::uint64_t port_head;
    std::uint64_t generation;
    std::int32_t flags;
    std::uint32_t flow;
    std::uint8_t versions;
    std::uint8_t ttl;
    std::uint8_t protocol;
    in6_addr foreign;  // an IPv4 address is its last word
    in6_addr local;
    std::uint8_t ipv4[1];
    struct {
      std::uint8_t hop_limit;
      std::int32_t checksum;
      std::uint16_t interface;
      std::int16_t hops;
    } ipv6;
  } internet;
  struct {
    std::uint32_t length;
    std::uint64_t handle;
    std::int16_t type;
    std::int16_t options;
    std::int16_t linger;
    std::int16_t state;
    std::uint64_t pcb;
    std::int32_t protocol;
    std::int32_t family;
    std::int16_t queue[4];
    std::uint16_t error;
    std::int32_t group;
    std::uint32_t mark;
    std::uint32_t receive[6];
    std::uint32_t send[6];
    std::uint32_t user;
  } socket;
  std::uint64_t alignment;
  std::uint64_t segments;
  std::int32_t duplicates;
  std::int32_t timers[4];
  std::int32_t state;
};
#pragma pack(pop)

static_assert(offsetof(TcpEntry, internet.local_port) == 22 && offsetof(TcpEntry, internet.local) == 116);
static_assert(offsetof(TcpEntry, socket) == 148 && offsetof(TcpEntry, socket.handle) == 152);
static_assert(offsetof(TcpEntry, socket.user) == 252 && offsetof(TcpEntry, state) == 292 && sizeof(TcpEntry) == 296);

// The table begins and ends with a struct xinpgen (bsd/netinet/in_pcb.h).
struct TableEdge {
  std::uint32_t length;
  std::uint32_t count;
  std::uint64_t generation;
  std::uint64_t socket_generation;
};

// TCPS_… of <netinet/tcp_fsm.h>, INP_… of <netinet/in_pcb.h>.
constexpr int kClosed = 0, kListen = 1, kSynSent = 2, kEstablished = 4, kCloseWait = 5;
constexpr std::uint8_t kTakesIpv4 = 1, kTakesIpv6 = 2;

bool IsIn(PortUse use, const TcpEntry& entry) noexcept {
  switch (use) {
    case PortUse::kListening:
      return entry.state == kListen;
    case PortUse::kBound:
      return entry.state == kClosed && entry.internet.foreign_port == 0;
    case PortUse::kConnected:
      return entry.state == kSynSent || entry.state == kEstablished || entry.state == kCloseWait;
  }
  return false;
}

PortSocket Describe(const TcpEntry& entry) {
  PortSocket socket;
  socket.ipv6 = (entry.internet.versions & kTakesIpv6) != 0;
  socket.v6only = socket.ipv6 && (entry.internet.versions & kTakesIpv4) == 0;
  socket.id = SocketId(entry.socket.handle);
  in6_addr address = entry.internet.local;
  // The kernel keeps a link-local address's zone in its second word (in6_embedscope, bsd/netinet6/scope6.c).
  if (socket.ipv6 && IN6_IS_ADDR_LINKLOCAL(&address)) address.s6_addr[2] = address.s6_addr[3] = 0;
  char text[INET6_ADDRSTRLEN];
  const void* binary = socket.ipv6 ? &address.s6_addr[0] : &address.s6_addr[12];
  if (inet_ntop(socket.ipv6 ? AF_INET6 : AF_INET, binary, text, sizeof(text)) != nullptr) socket.address = text;
  return socket;
}

// Every TCP socket of the system; empty on failure, with errno.
std::vector<char> ReadTcpTable() {
  constexpr char kName[] = "net.inet.tcp.pcblist64";
  std::vector<char> table;
  for (;;) {
    std::size_t size = 0;
    // The estimate has an eighth to spare; one that does not do after all ends in ENOMEM (sysctl(3)).
    if (sysctlbyname(kName, nullptr, &size, nullptr, 0) == -1) return {};
    size = std::max(size, table.size() * 2);
    if (size > kMaxTable) {
      errno = ENOMEM;
      return {};
    }
    table.resize(size);
    if (sysctlbyname(kName, table.data(), &size, nullptr, 0) == 0) {
      table.resize(size);
      return table;
    }
    if (errno != ENOMEM) return {};
  }
}

}  // namespace

Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept {
  const std::vector<char> table = ReadTcpTable();
  if (table.empty()) return Failure{errno, "sysctl"};
  std::vector<PortSocket> sockets;
  std::uint32_t length = 0;
  std::size_t at = 0;
  if (table.size() >= sizeof(TableEdge)) memcpy(&length, table.data(), sizeof(length));
  if (length < sizeof(TableEdge)) return Failure{EPROTO, "sysctl"};
  for (at = length; table.size() - std::min(at, table.size()) >= sizeof(TableEdge); at += length) {
    memcpy(&length, &table[at], sizeof(length));
    if (length == sizeof(TableEdge)) return sockets;
    // An entry of another shape: better none than a wrong one.
    if (length < sizeof(TcpEntry) || length > table.size() - at) return Failure{EPROTO, "sysctl"};
    TcpEntry entry;
    memcpy(&entry, &table[at], sizeof(entry));
    if (entry.internet.local_port == htons(port) && IsIn(use, entry)) sockets.push_back(Describe(entry));
  }
  // With no socket at all, there is no second edge.
  return sockets;
}

Result<PortSocket> FindListener(const std::string&, std::uint16_t) noexcept { return Failure{ENOTSUP, "FindListener"}; }

std::vector<ProcessId> FindSocketOwners(const std::vector<std::uint64_t>& ids, const std::vector<ProcessId>& hints) noexcept {
  std::vector<ProcessId> owners(ids.size(), 0);
  const auto wanted = [&](std::size_t i) { return ids[i] != 0 && owners[i] == 0; };
  const auto left = [&] {
    for (std::size_t i = 0; i < ids.size(); i++) {
      if (wanted(i)) return true;
    }
    return false;
  };
  if (!left()) return owners;
  VisitDescriptors(hints, PROX_FDTYPE_SOCKET, [&](ProcessId pid, int fd) {
    socket_fdinfo info;
    if (proc_pidfdinfo(pid, fd, PROC_PIDFDSOCKETINFO, &info, sizeof(info)) != static_cast<int>(sizeof(info))) return false;
    bool found = false;
    for (std::size_t i = 0; i < ids.size(); i++) {
      if (!wanted(i) || SocketId(info.psi.soi_so) != ids[i]) continue;
      owners[i] = pid;
      found = true;
    }
    return found && !left();
  });
  return owners;
}

}  // namespace gateway_lock

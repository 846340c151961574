// The tables of the IP helper.

#include "../port_sockets.h"

#include <errno.h>
#include <winsock2.h>
#include <ws2tcpip.h>
// After the headers of Winsock.
#include <iphlpapi.h>

#include "errors.h"

namespace gateway_lock {
namespace {

constexpr int kMaxTries = 8;

bool IsInUse(DWORD state, PortUse use) noexcept {
  switch (use) {
    case PortUse::kListening:
      return state == MIB_TCP_STATE_LISTEN;
    case PortUse::kBound:
      return false;  // not in these tables
    case PortUse::kConnected:
      return state == MIB_TCP_STATE_ESTAB || state == MIB_TCP_STATE_SYN_SENT || state == MIB_TCP_STATE_CLOSE_WAIT;
  }
  return false;
}

PortSocket Describe(const MIB_TCPROW_OWNER_PID& row) noexcept {
  PortSocket socket;
  char text[INET_ADDRSTRLEN] = "";
  InetNtopA(AF_INET, &row.dwLocalAddr, text, sizeof(text));
  socket.address = text;
  socket.id = row.dwOwningPid;
  return socket;
}

// A socket of both families has a row in each table.
PortSocket Describe(const MIB_TCP6ROW_OWNER_PID& row) noexcept {
  PortSocket socket;
  char text[INET6_ADDRSTRLEN] = "";
  InetNtopA(AF_INET6, row.ucLocalAddr, text, sizeof(text));
  socket.address = text;
  socket.ipv6 = true;
  socket.v6only = true;
  socket.id = row.dwOwningPid;
  return socket;
}

template <typename Table>
Result<Done> Search(ULONG family, std::uint16_t port, PortUse use, std::vector<PortSocket>& sockets) noexcept {
  std::vector<char> memory(16384);
  for (int tries = 0; tries < kMaxTries; tries++) {
    DWORD size = static_cast<DWORD>(memory.size());
    const DWORD error = GetExtendedTcpTable(memory.data(), &size, FALSE, family, TCP_TABLE_OWNER_PID_ALL, 0);
    if (error == ERROR_INSUFFICIENT_BUFFER) {
      memory.resize(size + 16384);  // it grows meanwhile
      continue;
    }
    if (error == ERROR_NOT_SUPPORTED) return Done{};  // this family is not there
    if (error != NO_ERROR) return FailureOf(error, "GetExtendedTcpTable");
    const auto* table = reinterpret_cast<const Table*>(memory.data());
    for (DWORD i = 0; i < table->dwNumEntries; i++) {
      const auto& row = table->table[i];
      if (ntohs(static_cast<std::uint16_t>(row.dwLocalPort)) == port && IsInUse(row.dwState, use)) {
        sockets.push_back(Describe(row));
      }
    }
    return Done{};
  }
  return FailureOf(ERROR_INSUFFICIENT_BUFFER, "GetExtendedTcpTable");
}

}  // namespace

Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept {
  std::vector<PortSocket> sockets;
  Result<Done> ipv4 = Search<MIB_TCPTABLE_OWNER_PID>(AF_INET, port, use, sockets);
  if (!ipv4.ok()) return ipv4.failure();
  Result<Done> ipv6 = Search<MIB_TCP6TABLE_OWNER_PID>(AF_INET6, port, use, sockets);
  if (!ipv6.ok()) return ipv6.failure();
  return sockets;
}

Result<PortSocket> FindListener(const std::string&, std::uint16_t) noexcept { return Failure{ENOTSUP, "FindListener"}; }

// The tables have the process beside the socket, and that is its id here.
std::vector<ProcessId> FindSocketOwners(const std::vector<std::uint64_t>& ids, const std::vector<ProcessId>&) noexcept {
  return std::vector<ProcessId>(ids.begin(), ids.end());
}

}  // namespace gateway_lock

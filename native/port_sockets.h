// What the kernel knows of a port: which sockets use it, and which processes have these open.
//
// Nothing here connects anywhere or binds anything: looking has no effect on what is looked at.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "process.h"
#include "result.h"

namespace gateway_lock {

enum class PortUse {
  kListening,
  kBound,      // and neither listening nor connected; where the kernel shows those
  kConnected,  // the local end of a live connection
};

struct PortSocket {
  std::string address;
  bool ipv6 = false;
  bool v6only = false;   // false also where the system does not say: then it may well take IPv4
  std::uint64_t id = 0;  // for FindSocketOwners; 0 where there is none
};

// The sockets that use `port` as their local port in this way. Listeners are found in microseconds; the others take the
// kernel a walk through tables that have a size of their own, however few sockets there are.
Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept;

// The one that gets what is sent to `address`:`port`, an IP literal, by the lookup that the kernel does for a client. ENOENT:
// nobody listens. ENOTSUP where the system can't be asked that.
Result<PortSocket> FindListener(const std::string& address, std::uint16_t port) noexcept;

// For each of the sockets a process that has it open; 0 where none is visible to this user. The processes in `hints` are looked
// at first.
std::vector<ProcessId> FindSocketOwners(const std::vector<std::uint64_t>& ids, const std::vector<ProcessId>& hints) noexcept;

}  // namespace gateway_lock

// What the kernel knows of processes: who they are, who holds a lock, who listens on a port.
//
// Nothing here takes a lock, writes, or connects anywhere: looking has no effect on what is looked at.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "result.h"

namespace gateway_lock {

using ProcessId = std::int32_t;

ProcessId OwnProcess() noexcept;

struct ProcessIdentity {
  bool exists = false;    // a zombie does not: it holds nothing any more
  double start_time = 0;  // in the system's own unit; with the pid, unique until the next boot; 0 where it is hidden
};

Result<ProcessIdentity> IdentifyProcess(ProcessId pid) noexcept;

// The command line as the process has it, unchecked; empty where it is hidden.
std::string DescribeCommand(ProcessId pid) noexcept;

// Where a pid means something. Empty where the system does not say.
struct HostIdentity {
  std::string boot_id;
  std::string pid_namespace;
};

HostIdentity IdentifyHost() noexcept;

enum class Verdict { kNo, kYes, kUnknown };

struct LockEvidence {
  Verdict locked = Verdict::kUnknown;
  std::vector<ProcessId> holders;
};

// Who holds the lock on the file or directory at `path`. The processes in `hints` are looked at first; with
// `first_only`, the search ends at the first holder.
LockEvidence FindLockHolders(const std::string& path, const std::vector<ProcessId>& hints, bool first_only) noexcept;

enum class PortUse {
  kListening,
  kBound,      // and neither listening nor connected; where the kernel shows those
  kConnected,  // the local end of a live connection
};

struct PortSocket {
  std::string address;
  bool ipv6 = false;
  bool v6only = false;
  std::uint64_t id = 0;  // for FindSocketOwner; 0 where there is none
};

// The sockets that use `port` as their local port in this way. Listeners are found in microseconds; the others take the
// kernel a walk through tables that have a size of their own, however few sockets there are.
Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept;

// A process that has the socket open; 0 where none is visible to this user.
ProcessId FindSocketOwner(std::uint64_t id, const std::vector<ProcessId>& hints) noexcept;

}  // namespace gateway_lock

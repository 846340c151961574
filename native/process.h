// What the kernel knows of processes: who they are, and who holds a lock.
//
// Nothing here takes a lock or writes anything: looking has no effect on what is looked at.
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

// For each path, who holds the lock on the file or directory there. The processes in `hints` are looked at first; with
// `first_only`, a search ends at the first holder. Many paths cost hardly more than one.
std::vector<LockEvidence> FindLockHolders(const std::vector<std::string>& paths, const std::vector<ProcessId>& hints,
                                          bool first_only) noexcept;

}  // namespace gateway_lock

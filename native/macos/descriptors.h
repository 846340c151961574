// Which descriptors the processes of this system have open, by libproc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "../process.h"

namespace gateway_lock {

// An upper limit for every table, should the kernel never be content: eight million descriptors of one process.
constexpr std::size_t kMaxTable = std::size_t{64} << 20;

// Calls `visit` for every descriptor of that type (PROX_FDTYPE_…) of every process that this user may look into, the hinted
// processes first, until it returns true.
void VisitDescriptors(const std::vector<ProcessId>& hints, std::uint32_t type, const std::function<bool(ProcessId, int)>& visit);

}  // namespace gateway_lock

#include "descriptors.h"

#include <libproc.h>
#include <sys/proc_info.h>

#include <algorithm>

namespace gateway_lock {
namespace {

std::vector<ProcessId> AllProcesses() {
  const int estimate = proc_listallpids(nullptr, 0);
  if (estimate <= 0) return {};
  std::vector<ProcessId> pids(static_cast<std::size_t>(estimate));
  for (;;) {
    // Full means that there may be more: there are always some between the two calls.
    pids.resize(pids.size() + pids.size() / 8 + 32);
    const int count = proc_listallpids(pids.data(), static_cast<int>(pids.size() * sizeof(ProcessId)));
    if (count <= 0) return {};
    const auto found = static_cast<std::size_t>(count);
    if (found >= pids.size() && pids.size() * sizeof(ProcessId) < kMaxTable) continue;
    pids.resize(std::min(found, pids.size()));
    return pids;
  }
}

// Empty where this user may not see them. `table` only spares every process an allocation.
std::size_t ListDescriptors(ProcessId pid, std::vector<proc_fdinfo>& table) {
  constexpr std::size_t kFirstSize = 1024;
  if (table.empty()) table.resize(kFirstSize);
  for (;;) {
    const auto size = static_cast<int>(table.size() * sizeof(proc_fdinfo));
    const int filled = proc_pidinfo(pid, PROC_PIDLISTFDS, 0, table.data(), size);
    if (filled <= 0) return 0;
    if (filled < size || table.size() * sizeof(proc_fdinfo) >= kMaxTable)
      return static_cast<std::size_t>(filled) / sizeof(proc_fdinfo);
    table.resize(table.size() * 2);
  }
}

}  // namespace

void VisitDescriptors(const std::vector<ProcessId>& hints, std::uint32_t type, const std::function<bool(ProcessId, int)>& visit) {
  std::vector<proc_fdinfo> table;
  const auto look = [&](ProcessId pid) {
    const std::size_t count = ListDescriptors(pid, table);
    for (std::size_t i = 0; i < count; i++) {
      if (table[i].proc_fdtype == type && visit(pid, table[i].proc_fd)) return true;
    }
    return false;
  };
  for (const ProcessId hint : hints) {
    if (hint > 0 && look(hint)) return;
  }
  for (const ProcessId pid : AllProcesses()) {
    if (pid <= 0 || std::find(hints.begin(), hints.end(), pid) != hints.end()) continue;
    if (look(pid)) return;
  }
}

}  // namespace gateway_lock

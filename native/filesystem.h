// What lies under a directory: a filesystem of this host, or one that other hosts write to as well.
#pragma once

#include <cstdint>
#include <string>

#include "process.h"
#include "result.h"

namespace gateway_lock {

// What the system says of it. One that has only numbers for its filesystems leaves the judgement to whoever knows them.
struct Filesystem {
  std::string type;  // as the system names it; empty where it does not
  Verdict remote = Verdict::kUnknown;
  std::uint32_t number = 0;  // f_type of statfs(2) on Linux
};

Result<Filesystem> DescribeFilesystem(const std::string& directory) noexcept;

}  // namespace gateway_lock

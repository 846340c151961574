#include "../filesystem.h"

#include <errno.h>
#include <sys/vfs.h>

namespace gateway_lock {

Result<Filesystem> DescribeFilesystem(const std::string& directory) noexcept {
  struct statfs there;
  if (statfs(directory.c_str(), &there) == -1) return Failure{errno, "statfs"};
  Filesystem filesystem;
  filesystem.number = static_cast<std::uint32_t>(there.f_type);
  return filesystem;
}

}  // namespace gateway_lock

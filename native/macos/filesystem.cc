#include "../filesystem.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/param.h>

namespace gateway_lock {

// MNT_LOCAL is the word of the filesystem itself. NFS, SMB, AFP and WebDAV do not set it; macFUSE sets it only where the volume
// was mounted with -o local, so that sshfs and the like count as remote, and a local one does too until its mount says otherwise.
Result<Filesystem> DescribeFilesystem(const std::string& directory) noexcept {
  struct statfs there;
  if (statfs(directory.c_str(), &there) == -1) return Failure{errno, "statfs"};
  Filesystem filesystem;
  filesystem.type = there.f_fstypename;
  filesystem.remote = (there.f_flags & MNT_LOCAL) != 0 ? Verdict::kNo : Verdict::kYes;
  return filesystem;
}

}  // namespace gateway_lock

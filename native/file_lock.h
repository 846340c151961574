// An exclusive lock on a file or directory that the kernel frees when its holder dies, however it dies.
//
// The lock belongs to the Handle, not to the process: a second attempt in the same process is refused like anybody
// else's. No call here waits (lock_wait.h does), and none follows a symbolic link in the last part of a path.
//
// A lock file may be deleted by its holder, so having a lock on *a* file is not yet having *the* lock: somebody may
// have locked a file that was unlinked meanwhile while the next one locks its successor at the same path. Every
// attempt therefore compares, after the lock is granted, the locked file with the one at the path, and starts again
// when they differ; and a file is only deleted by the holder of its lock, and only while it is still at the path.
#pragma once

#include <cstddef>
#include <string>

#include "handle.h"
#include "result.h"

namespace gateway_lock {

// Why a path is refused before anything there is opened for writing, created, locked or changed.
enum class Hazard {
  kNone,
  kSymbolicLink,
  kReparsePoint,  // Windows: a symbolic link, a junction, or what some driver makes of it
  kDirectory,
  kNotRegular,         // FIFO, device, socket
  kHardLinks,          // a second name: whoever has it can keep the file alive under another path
  kForeignOwner,       // neither ours nor, for root, the directory owner's
  kWritableDirectory,  // users other than the owner may delete or swap files there
  kNotDirectory,       // a directory was asked for
};

enum class LockStatus {
  kLocked,
  kHeld,          // somebody else has it
  kReplaced,      // of ConfirmLock only: this is not the file at the path any more; start again
  kCancelled,     // of a wait only
  kRefused,       // see hazard; nothing was touched
  kNotExclusive,  // the filesystem granted one lock twice
};

struct LockAttempt {
  LockStatus status;
  Hazard hazard = Hazard::kNone;
  FileHandle file = {};  // with kLocked; with kHeld what was refused, to wait for, if there was one
  bool empty = false;    // with kLocked: nobody has ever written to it, and nobody misses it
};

// Locks the regular file at `path`, made with mode 0600 where it is missing. With `self_test`, a granted lock is tried
// again through other descriptors, which must be refused, also after one of them was closed. Root gives a file that it makes to
// the owner of the directory, which with `self_test` is not reached by a link, whatever somebody puts in its place. `eager`:
// before it says kHeld it may ask again for some microseconds, in which somebody who is just letting go has let go.
Result<LockAttempt> TryLockFile(const std::string& path, bool self_test, bool eager) noexcept;

// Gives a directory that root has made to the owner of the one that it really lies in. Nothing changes if it is somebody else's.
Result<Done> GiveDirectory(const std::string& path) noexcept;

// Whether this system locks directories. Where it does not, nobody can delete or move a lock file that is open, nor the
// directories that it lies in: what a directory's lock is there to make good can't happen.
bool LocksDirectories() noexcept;

// Locks the directory at `path` itself; it must exist, and it is not changed. ENOTSUP where directories are not locked.
Result<LockAttempt> TryLockDirectory(const std::string& path) noexcept;

// What the attempts look at once they have the lock, for somebody who had to wait for it: whether `file`, which is locked,
// still is the one at `path`. The file stays with the caller.
Result<LockAttempt> ConfirmLock(const FileHandle& file, const std::string& path, bool self_test) noexcept;

enum class Currency { kCurrent, kMissing, kReplaced };

// Whether `path` still names the file or directory that `file` has open.
Result<Currency> CheckLock(const FileHandle& file, const std::string& path) noexcept;

// Replaces the content from offset 0 with one write. `cut` drops what an earlier holder wrote beyond `size` bytes.
Result<Done> WriteRecord(const FileHandle& file, const void* data, std::size_t size, bool cut) noexcept;

// Frees the lock for everybody who has this open file description. Closing the handle frees it too, but only once no child
// process has a copy, and between fork and exec every child has one.
void Unlock(const FileHandle& file) noexcept;

// Deletes `path` if it still names the file that `file` has open and locked; says whether it did. Where an open file can't be
// deleted, it is closed for that, and then deleted only if nobody else has it open: `file` is empty afterwards.
Result<bool> RemoveLockFile(FileHandle& file, const std::string& path) noexcept;

}  // namespace gateway_lock

// flock(2), and never fcntl(2) locks: those are lost when *any* descriptor of the file is closed by the process, and are
// not inherited with the descriptor. flock's lock dies with the last descriptor of its open file description.

#include "../file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>

namespace gateway_lock {
namespace {

// Each round lost means that another process deleted the file between our open and our lock. A thousand in a row is
// contention, and contention is answered with "held".
constexpr int kMaxRounds = 1000;
constexpr mode_t kFileMode = 0600;
constexpr mode_t kWritableByOthers = S_IWGRP | S_IWOTH;

int Fd(const FileHandle& file) noexcept { return static_cast<int>(file.raw()); }

LockAttempt Refused(Hazard hazard) noexcept { return LockAttempt{LockStatus::kRefused, hazard}; }
LockAttempt Held(FileHandle file = {}) noexcept { return LockAttempt{LockStatus::kHeld, Hazard::kNone, std::move(file)}; }

bool SameFile(const struct stat& a, const struct stat& b) noexcept { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

const char* NameIn(const std::string& path) noexcept {
  const std::size_t slash = path.find_last_of('/');
  return path.c_str() + (slash == std::string::npos ? 0 : slash + 1);
}

FileHandle OpenAt(int directory, const char* path, int flags) noexcept {
  int fd;
  do {
    // O_NONBLOCK and O_NOCTTY: should a FIFO or a terminal appear here after the check, opening it has no effect.
    fd = openat(directory, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, kFileMode);
  } while (fd == -1 && errno == EINTR);
  return FileHandle(fd);
}

FileHandle Open(const std::string& path, int flags) noexcept { return OpenAt(AT_FDCWD, path.c_str(), flags); }

#ifdef O_PATH
constexpr int kSearch = O_PATH | O_DIRECTORY;
#else
constexpr int kSearch = O_SEARCH;
#endif

// For what is then done in that directory and in no other one. `real`: it is not reached by a link.
FileHandle OpenHome(const std::string& path, bool real) noexcept {
  int fd;
  do {
    fd = open(ParentOf(path).c_str(), kSearch | O_CLOEXEC | (real ? O_NOFOLLOW : 0));
  } while (fd == -1 && errno == EINTR);
  return FileHandle(fd);
}

// All in vain take no longer than a thread takes to start and to tell us that it has the lock. Without sched_yield(2): on a busy
// machine that may come back much later, and the caller has an event loop to serve.
constexpr int kEagerTries = 48;
// Some filesystems ask a server each time.
constexpr auto kEagerness = std::chrono::microseconds(50);

// 0, or errno; EWOULDBLOCK means that somebody else has it.
int Flock(const FileHandle& file) noexcept {
  int result;
  do {
    result = flock(Fd(file), LOCK_EX | LOCK_NB);
  } while (result == -1 && errno == EINTR);
  return result == -1 ? errno : 0;
}

int FlockEagerly(const FileHandle& file) noexcept {
  int error = Flock(file);
  const auto deadline = std::chrono::steady_clock::now() + kEagerness;
  for (int tries = 1; error == EWOULDBLOCK && tries < kEagerTries && std::chrono::steady_clock::now() < deadline; tries++) {
    error = Flock(file);
  }
  return error;
}

Hazard HazardOfDirectory(const struct stat& directory) noexcept {
  if ((directory.st_mode & kWritableByOthers) == 0) return Hazard::kNone;
  const uid_t user = geteuid();
  const bool ours = directory.st_uid == user || user == 0;
  // In a sticky directory only a file's owner and the directory's owner may delete or rename it.
  return (directory.st_mode & S_ISVTX) != 0 && ours ? Hazard::kNone : Hazard::kWritableDirectory;
}

Hazard HazardOfFile(const struct stat& file, const struct stat& directory) noexcept {
  if (S_ISLNK(file.st_mode)) return Hazard::kSymbolicLink;
  if (S_ISDIR(file.st_mode)) return Hazard::kDirectory;
  if (!S_ISREG(file.st_mode)) return Hazard::kNotRegular;
  const uid_t user = geteuid();
  if (file.st_uid != user && !(user == 0 && file.st_uid == directory.st_uid)) return Hazard::kForeignOwner;
  return file.st_nlink > 1 ? Hazard::kHardLinks : Hazard::kNone;
}

// Root in somebody else's directory: its owner may put a link in its place, or another directory, between any two calls. What
// root makes there is given to that owner, whom it would keep out later.
bool IsForeign(const struct stat& there) noexcept { return geteuid() == 0 && there.st_uid != 0; }

void RemoveIfSame(const FileHandle& file, int directory, const char* name) noexcept {
  struct stat ours, there;
  const bool same =
      fstat(Fd(file), &ours) == 0 && fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && SameFile(ours, there);
  if (same) unlinkat(directory, name, 0);
}

// A file that was made here and is not handed out is deleted again, by whoever can lock it: if a rival was quicker to lock
// it, it is the rival's.
class MadeHere {
 public:
  MadeHere(bool made, const FileHandle& file, int directory, const char* name) noexcept
      : made_(made), file_(file), directory_(directory), name_(name) {}
  ~MadeHere() {
    if (made_ && file_ && Flock(file_) != EWOULDBLOCK) RemoveIfSame(file_, directory_, name_);
  }
  MadeHere(const MadeHere&) = delete;
  MadeHere& operator=(const MadeHere&) = delete;

 private:
  const bool made_;
  const FileHandle& file_;
  const int directory_;
  const char* const name_;
};

enum class Exclusion { kYes, kNo, kReplaced };

// Two more descriptors, one after the other, so that a filesystem whose close() drops the file's locks (as POSIX locks
// are dropped) is found out too. `locked` is the file that must refuse them: another one proves nothing.
Result<Exclusion> TestExclusion(const std::string& path, const struct stat& locked) noexcept {
  for (int probe = 0; probe < 2; probe++) {
    struct stat opened;
    FileHandle other = Open(path, S_ISDIR(locked.st_mode) ? O_RDONLY | O_DIRECTORY : O_RDWR);
    if (!other) return errno == ENOENT ? Result<Exclusion>(Exclusion::kReplaced) : Failure{errno, "open"};
    if (fstat(Fd(other), &opened) == -1) return Failure{errno, "fstat"};
    if (!SameFile(opened, locked)) return Exclusion::kReplaced;
    const int error = Flock(other);
    if (error == 0) return Exclusion::kNo;
    if (error != EWOULDBLOCK) return Failure{error, "flock"};
  }
  return Exclusion::kYes;
}

}  // namespace

Result<LockAttempt> TryLockFile(const std::string& path, bool self_test, bool eager) noexcept {
  for (int round = 0; round < kMaxRounds; round++) {
    struct stat directory, before, opened;
    const std::string parent = ParentOf(path);
    if ((self_test ? lstat(parent.c_str(), &directory) : stat(parent.c_str(), &directory)) == -1) return Failure{errno, "stat"};
    if (!S_ISDIR(directory.st_mode)) return Failure{ENOTDIR, "stat"};
    FileHandle home;
    if (IsForeign(directory)) {
      home = OpenHome(path, self_test);
      if (!home || fstat(Fd(home), &directory) == -1) return Failure{errno, "open"};
      if (!IsForeign(directory)) continue;
    }
    const int at = home ? Fd(home) : AT_FDCWD;
    const char* const name = home ? NameIn(path) : path.c_str();
    if (const Hazard hazard = HazardOfDirectory(directory); hazard != Hazard::kNone) return Refused(hazard);

    const bool exists = fstatat(at, name, &before, AT_SYMLINK_NOFOLLOW) == 0;
    if (!exists && errno != ENOENT) return Failure{errno, "lstat"};
    if (exists) {
      if (const Hazard hazard = HazardOfFile(before, directory); hazard != Hazard::kNone) return Refused(hazard);
    }

    FileHandle file = OpenAt(at, name, exists ? O_RDWR : O_RDWR | O_CREAT | O_EXCL);
    if (!file) {
      if (errno == (exists ? ENOENT : EEXIST)) continue;
      return errno == ELOOP ? Result<LockAttempt>(Refused(Hazard::kSymbolicLink)) : Failure{errno, "open"};
    }
    const MadeHere made(!exists, file, at, name);
    const bool given = exists || !home || fchown(Fd(file), directory.st_uid, static_cast<gid_t>(-1)) == 0;
    if (!given) return Failure{errno, "fchown"};
    if (fstat(Fd(file), &opened) == -1) return Failure{errno, "fstat"};
    if (opened.st_nlink == 0) continue;
    if (const Hazard hazard = HazardOfFile(opened, directory); hazard != Hazard::kNone) return Refused(hazard);

    if (const int error = eager ? FlockEagerly(file) : Flock(file); error == EWOULDBLOCK) {
      return Held(std::move(file));
    } else if (error != 0) {
      return Failure{error, "flock"};
    }
    Result<LockAttempt> attempt = ConfirmLock(file, path, self_test);
    if (!attempt.ok()) return attempt;
    if (attempt.value().status == LockStatus::kReplaced) continue;
    if (attempt.value().status == LockStatus::kLocked) attempt.value().file = std::move(file);
    return attempt;
  }
  return Held();
}

bool LocksDirectories() noexcept { return true; }

Result<LockAttempt> TryLockDirectory(const std::string& path) noexcept {
  for (int round = 0; round < kMaxRounds; round++) {
    FileHandle directory = Open(path, O_RDONLY | O_DIRECTORY);
    if (!directory) {
      // Linux says ENOTDIR for a symbolic link too when O_DIRECTORY is set (open(2), O_NOFOLLOW).
      if (errno == ENOTDIR || errno == ELOOP) return Refused(Hazard::kNotDirectory);
      return Failure{errno, "open"};
    }
    if (const int error = Flock(directory); error == EWOULDBLOCK) {
      return Held(std::move(directory));
    } else if (error != 0) {
      return Failure{error, "flock"};
    }
    Result<LockAttempt> attempt = ConfirmLock(directory, path, false);
    if (!attempt.ok()) return attempt;
    if (attempt.value().status == LockStatus::kReplaced) continue;
    attempt.value().file = std::move(directory);
    return attempt;
  }
  return Held();
}

Result<LockAttempt> ConfirmLock(const FileHandle& file, const std::string& path, bool self_test) noexcept {
  struct stat locked, there;
  if (fstat(Fd(file), &locked) == -1) return Failure{errno, "fstat"};
  if (self_test) {
    Result<Exclusion> exclusion = TestExclusion(path, locked);
    if (!exclusion.ok()) return exclusion.failure();
    if (exclusion.value() == Exclusion::kReplaced) return LockAttempt{LockStatus::kReplaced};
    if (exclusion.value() == Exclusion::kNo) return LockAttempt{LockStatus::kNotExclusive};
  }
  if (lstat(path.c_str(), &there) == -1) {
    if (errno == ENOENT || errno == ENOTDIR) return LockAttempt{LockStatus::kReplaced};
    return Failure{errno, "lstat"};
  }
  if (!SameFile(locked, there)) return LockAttempt{LockStatus::kReplaced};
  if (S_ISREG(there.st_mode) && there.st_nlink > 1) return Refused(Hazard::kHardLinks);
  return LockAttempt{LockStatus::kLocked, Hazard::kNone, FileHandle(), locked.st_size == 0};
}

namespace {

Result<Currency> Compare(const FileHandle& file, const std::string& path, struct stat& there) noexcept {
  struct stat ours;
  if (fstat(Fd(file), &ours) == -1) return Failure{errno, "fstat"};
  if (lstat(path.c_str(), &there) == -1) {
    if (errno == ENOENT || errno == ENOTDIR) return Currency::kMissing;
    return Failure{errno, "lstat"};
  }
  return SameFile(ours, there) ? Currency::kCurrent : Currency::kReplaced;
}

}  // namespace

Result<Currency> CheckLock(const FileHandle& file, const std::string& path) noexcept {
  struct stat there;
  return Compare(file, path, there);
}

Result<Done> WriteRecord(const FileHandle& file, const void* data, std::size_t size, bool cut) noexcept {
  ssize_t written;
  do {
    written = pwrite(Fd(file), data, size, 0);
  } while (written == -1 && errno == EINTR);
  if (written == -1) return Failure{errno, "pwrite"};
  // A regular file takes less than it was offered only when the space ends there (pwrite(2)).
  if (static_cast<std::size_t>(written) != size) return Failure{ENOSPC, "pwrite"};
  if (!cut) return Done{};
  int result;
  do {
    result = ftruncate(Fd(file), static_cast<off_t>(size));
  } while (result == -1 && errno == EINTR);
  if (result == -1) return Failure{errno, "ftruncate"};
  return Done{};
}

void Unlock(const FileHandle& file) noexcept { flock(Fd(file), LOCK_UN); }

Result<bool> RemoveLockFile(FileHandle& file, const std::string& path) noexcept {
  struct stat there;
  Result<Currency> currency = Compare(file, path, there);
  if (!currency.ok()) return currency.failure();
  if (currency.value() != Currency::kCurrent) return false;
  if (IsForeign(there)) {
    const FileHandle home = OpenHome(path, false);
    if (home) RemoveIfSame(file, Fd(home), NameIn(path));
  } else if (unlink(path.c_str()) == -1 && errno != ENOENT) {
    return Failure{errno, "unlink"};
  }
  return true;
}

Result<Done> GiveDirectory(const std::string& path) noexcept {
  const FileHandle directory = Open(path, O_RDONLY | O_DIRECTORY);
  struct stat made, parent;
  if (!directory) return Failure{errno, "open"};
  if (fstat(Fd(directory), &made) == -1 || fstatat(Fd(directory), "..", &parent, 0) == -1) return Failure{errno, "fstat"};
  if (made.st_uid != geteuid() || !IsForeign(parent)) return Done{};
  if (fchown(Fd(directory), parent.st_uid, static_cast<gid_t>(-1)) == -1) return Failure{errno, "fchown"};
  return Done{};
}

}  // namespace gateway_lock

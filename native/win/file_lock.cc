// LockFileEx, on handles that share reading and writing, and not deleting.
//
// While anybody owns the lock, or waits for it, its file can so be neither deleted nor renamed nor replaced, and no directory
// above it can be renamed. That is more than POSIX has: there is no second file at the path that somebody could lock meanwhile,
// and nothing to restore. (The comparison of the locked file with the one at the path is made all the same: a filesystem that
// does not keep this promise is found out by it.)
//
// It also means that nobody can delete the file while somebody else has it open, and a holder can't ask for the right to delete
// without letting go first. So it lets go, and opens the file once more, sharing nothing. That succeeds only if no other handle
// is open, so nobody holds the lock then and nobody waits for it, and nobody can come in before the file is gone. Where it does
// not succeed, the file stays, for whoever has it open to delete later.
//
// Two errors pass by themselves and are waited out for a moment: a sharing violation, while somebody deletes the file as above,
// or a virus scanner looks at it; and a deleted file that is still open somewhere (a filesystem without POSIX semantics for
// deletion), which Windows reports as a denial.

#include "../file_lock.h"

#include <errno.h>
#include <windows.h>

#include <chrono>
#include <cstring>

#include "errors.h"
#include "request.h"
#include "wide.h"

// Of ntdll; outside of the namespaces, which would make it a function of this file's own to some compilers.
extern "C" unsigned long __stdcall RtlGetLastNtStatus();

namespace gateway_lock {
namespace {

using Clock = std::chrono::steady_clock;

// Long for a deletion, which takes microseconds: but one that a busy machine interrupts lasts as long as the interruption.
constexpr auto kPatience = std::chrono::milliseconds(500);
// Whoever deletes has let go already; for one who has just come, there is nothing to wait for.
constexpr auto kPatienceToDelete = std::chrono::milliseconds(2);
constexpr int kMaxRounds = 1000;

constexpr DWORD kAccess = GENERIC_READ | GENERIC_WRITE;
constexpr DWORD kShare = FILE_SHARE_READ | FILE_SHARE_WRITE;
constexpr DWORD kShareAll = kShare | FILE_SHARE_DELETE;
// A reparse point is opened itself, whatever it points to. Asynchronous, so that a wait can be given up.
constexpr DWORD kFlags = FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_OVERLAPPED;
// Directories can be opened only so.
constexpr DWORD kFlagsToLook = FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS;

// Not in every edition of the headers (Windows 10, version 1709).
constexpr DWORD kDispositionDelete = 0x1;
constexpr DWORD kDispositionPosixSemantics = 0x2;
constexpr auto kFileDispositionInfoEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(21);
constexpr unsigned long kStatusDeletePending = 0xC0000056;

HANDLE Native(const FileHandle& file) noexcept { return reinterpret_cast<HANDLE>(file.raw()); }

LockAttempt Refused(Hazard hazard) noexcept { return LockAttempt{LockStatus::kRefused, hazard}; }
LockAttempt Held(FileHandle file = {}) noexcept { return LockAttempt{LockStatus::kHeld, Hazard::kNone, std::move(file)}; }

// Without security attributes, a handle is not inherited by child processes.
FileHandle Open(const std::wstring& path, DWORD access, DWORD share, DWORD disposition, DWORD flags) noexcept {
  const HANDLE handle = CreateFileW(path.c_str(), access, share, nullptr, disposition, flags, nullptr);
  return handle == INVALID_HANDLE_VALUE ? FileHandle() : FileHandle(reinterpret_cast<RawHandle>(handle));
}

// Of the call that has just been refused. Only the status behind the error tells a deleted file from a denial.
bool WasDeletePending(DWORD error) noexcept {
  return error == ERROR_DELETE_PENDING || (error == ERROR_ACCESS_DENIED && RtlGetLastNtStatus() == kStatusDeletePending);
}

bool IsMissing(DWORD error) noexcept { return error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND; }

struct Facts {
  bool exists = false;
  FILE_ID_INFO id = {};
  DWORD attributes = 0;
  DWORD links = 0;
  bool empty = false;
  DWORD kind = FILE_TYPE_UNKNOWN;
};

bool SameFile(const Facts& a, const Facts& b) noexcept {
  return a.exists && b.exists && a.id.VolumeSerialNumber == b.id.VolumeSerialNumber &&
         memcmp(&a.id.FileId, &b.id.FileId, sizeof(a.id.FileId)) == 0;
}

Result<Facts> FactsOf(const FileHandle& file) noexcept {
  Facts facts;
  facts.exists = true;
  facts.kind = GetFileType(Native(file));
  if (facts.kind != FILE_TYPE_DISK) return facts;
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(Native(file), &info)) return LastFailure("GetFileInformationByHandle");
  facts.attributes = info.dwFileAttributes;
  facts.links = info.nNumberOfLinks;
  facts.empty = info.nFileSizeHigh == 0 && info.nFileSizeLow == 0;
  // ReFS has numbers of 128 bits. A filesystem without them has the old ones.
  if (!GetFileInformationByHandleEx(Native(file), FileIdInfo, &facts.id, sizeof(facts.id))) {
    facts.id.VolumeSerialNumber = info.dwVolumeSerialNumber;
    memcpy(&facts.id.FileId, &info.nFileIndexHigh, sizeof(info.nFileIndexHigh));
    memcpy(&facts.id.FileId.Identifier[sizeof(info.nFileIndexHigh)], &info.nFileIndexLow, sizeof(info.nFileIndexLow));
  }
  return facts;
}

// Of whatever is at the path; a handle that reads and writes nothing is refused by nobody's share mode.
Result<Facts> Look(const std::wstring& path) noexcept {
  FileHandle file = Open(path, FILE_READ_ATTRIBUTES, kShareAll, OPEN_EXISTING, kFlagsToLook);
  if (file) return FactsOf(file);
  const DWORD error = GetLastError();
  if (IsMissing(error) || WasDeletePending(error)) return Facts{};
  return FailureOf(error, "CreateFileW");
}

Hazard HazardOf(const Facts& facts) noexcept {
  if (facts.kind != FILE_TYPE_DISK) return Hazard::kNotRegular;
  if ((facts.attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) return Hazard::kReparsePoint;
  if ((facts.attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) return Hazard::kDirectory;
  return facts.links > 1 ? Hazard::kHardLinks : Hazard::kNone;
}

Failure LockFailure(DWORD error) noexcept { return FailureOf(error, "LockFileEx"); }

bool IsHeld(DWORD error) noexcept { return error == ERROR_LOCK_VIOLATION; }

// A file that was made here and is not handed out is deleted again, if nobody else has come to it meanwhile.
void Delete(const Facts& ours, const std::wstring& path) noexcept {
  const auto deadline = Clock::now() + kPatienceToDelete;
  FileHandle alone;
  for (;;) {
    alone = Open(path, DELETE | FILE_READ_ATTRIBUTES, 0, OPEN_EXISTING, FILE_FLAG_OPEN_REPARSE_POINT);
    if (alone || GetLastError() != ERROR_SHARING_VIOLATION || Clock::now() >= deadline) break;
    SwitchToThread();
  }
  if (!alone) return;
  Result<Facts> there = FactsOf(alone);
  if (!there.ok() || !SameFile(ours, there.value())) return;
  DWORD posix = kDispositionDelete | kDispositionPosixSemantics;
  if (SetFileInformationByHandle(Native(alone), kFileDispositionInfoEx, &posix, sizeof(posix))) return;
  FILE_DISPOSITION_INFO classic = {TRUE};
  SetFileInformationByHandle(Native(alone), FileDispositionInfo, &classic, sizeof(classic));
}

class MadeHere {
 public:
  MadeHere(bool made, FileHandle& file, const std::wstring& path) noexcept : made_(made), file_(file), path_(path) {}
  ~MadeHere() {
    if (!made_ || !file_) return;
    Result<Facts> ours = FactsOf(file_);
    file_.Reset();
    if (ours.ok()) Delete(ours.value(), path_);
  }
  MadeHere(const MadeHere&) = delete;
  MadeHere& operator=(const MadeHere&) = delete;

 private:
  const bool made_;
  FileHandle& file_;
  const std::wstring& path_;
};

enum class Exclusion { kYes, kNo, kReplaced };

// Two more handles, one after the other, so that a filesystem where the end of one drops the locks of all is found out too.
Result<Exclusion> TestExclusion(const std::wstring& path, const Facts& locked) noexcept {
  for (int probe = 0; probe < 2; probe++) {
    FileHandle other = Open(path, kAccess, kShare, OPEN_EXISTING, kFlags);
    if (!other) return IsMissing(GetLastError()) ? Result<Exclusion>(Exclusion::kReplaced) : LastFailure("CreateFileW");
    Result<Facts> opened = FactsOf(other);
    if (!opened.ok()) return opened.failure();
    if (!SameFile(opened.value(), locked)) return Exclusion::kReplaced;
    Request request;
    const DWORD error = request.TryLock(Native(other));
    if (error == ERROR_SUCCESS) return Exclusion::kNo;
    if (!IsHeld(error)) return LockFailure(error);
  }
  return Exclusion::kYes;
}

}  // namespace

Result<LockAttempt> TryLockFile(const std::string& path, bool self_test, bool) noexcept {
  const std::wstring wide = NativePath(path);
  const auto deadline = Clock::now() + kPatience;
  for (int round = 0; round < kMaxRounds; round++) {
    Result<Facts> before = Look(wide);
    if (!before.ok()) return before.failure();
    const bool exists = before.value().exists;
    if (exists) {
      if (const Hazard hazard = HazardOf(before.value()); hazard != Hazard::kNone) return Refused(hazard);
    }

    FileHandle file = Open(wide, kAccess, kShare, exists ? OPEN_EXISTING : CREATE_NEW, kFlags);
    if (!file) {
      const DWORD error = GetLastError();
      const bool deleted = WasDeletePending(error);
      if (deleted || error == ERROR_SHARING_VIOLATION) {
        if (Clock::now() < deadline) {
          Sleep(1);
          continue;
        }
        return deleted ? Result<LockAttempt>(Held()) : FailureOf(error, "CreateFileW");
      }
      if (exists ? error == ERROR_FILE_NOT_FOUND : error == ERROR_FILE_EXISTS || error == ERROR_ALREADY_EXISTS) continue;
      return FailureOf(error, "CreateFileW");
    }
    const MadeHere made(!exists, file, wide);
    Result<Facts> opened = FactsOf(file);
    if (!opened.ok()) return opened.failure();
    if (const Hazard hazard = HazardOf(opened.value()); hazard != Hazard::kNone) return Refused(hazard);

    Request request;
    if (const DWORD error = request.TryLock(Native(file)); IsHeld(error)) {
      return Held(std::move(file));
    } else if (error != ERROR_SUCCESS) {
      return LockFailure(error);
    }
    Result<LockAttempt> attempt = ConfirmLock(file, path, self_test);
    if (!attempt.ok()) return attempt;
    if (attempt.value().status == LockStatus::kReplaced) continue;
    if (attempt.value().status == LockStatus::kLocked) attempt.value().file = std::move(file);
    return attempt;
  }
  return Held();
}

Result<Done> GiveDirectory(const std::string&) noexcept { return Failure{ENOTSUP, "SetSecurityInfo"}; }

bool LocksDirectories() noexcept { return false; }

Result<LockAttempt> TryLockDirectory(const std::string&) noexcept { return Failure{ENOTSUP, "LockFileEx"}; }

Result<LockAttempt> ConfirmLock(const FileHandle& file, const std::string& path, bool self_test) noexcept {
  const std::wstring wide = NativePath(path);
  Result<Facts> locked = FactsOf(file);
  if (!locked.ok()) return locked.failure();
  if (self_test) {
    Result<Exclusion> exclusion = TestExclusion(wide, locked.value());
    if (!exclusion.ok()) return exclusion.failure();
    if (exclusion.value() == Exclusion::kReplaced) return LockAttempt{LockStatus::kReplaced};
    if (exclusion.value() == Exclusion::kNo) return LockAttempt{LockStatus::kNotExclusive};
  }
  Result<Facts> there = Look(wide);
  if (!there.ok()) return there.failure();
  if (!SameFile(locked.value(), there.value())) return LockAttempt{LockStatus::kReplaced};
  if (there.value().links > 1) return Refused(Hazard::kHardLinks);
  return LockAttempt{LockStatus::kLocked, Hazard::kNone, FileHandle(), locked.value().empty};
}

Result<Currency> CheckLock(const FileHandle& file, const std::string& path) noexcept {
  Result<Facts> ours = FactsOf(file);
  if (!ours.ok()) return ours.failure();
  Result<Facts> there = Look(NativePath(path));
  if (!there.ok()) return there.failure();
  if (!there.value().exists) return Currency::kMissing;
  return SameFile(ours.value(), there.value()) ? Currency::kCurrent : Currency::kReplaced;
}

Result<Done> WriteRecord(const FileHandle& file, const void* data, std::size_t size, bool cut) noexcept {
  Request request;
  DWORD written = 0;
  if (const DWORD error = request.Write(Native(file), data, static_cast<DWORD>(size), written); error != ERROR_SUCCESS) {
    return FailureOf(error, "WriteFile");
  }
  if (written != size) return FailureOf(ERROR_DISK_FULL, "WriteFile");
  if (!cut) return Done{};
  FILE_END_OF_FILE_INFO end;
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(size);
  if (!SetFileInformationByHandle(Native(file), FileEndOfFileInfo, &end, sizeof(end))) {
    return LastFailure("SetFileInformationByHandle");
  }
  return Done{};
}

void Unlock(const FileHandle& file) noexcept {
  Request request;
  request.Unlock(Native(file));
}

Result<bool> RemoveLockFile(FileHandle& file, const std::string& path) noexcept {
  Result<Currency> currency = CheckLock(file, path);
  if (!currency.ok()) return currency.failure();
  if (currency.value() != Currency::kCurrent) return false;
  Result<Facts> ours = FactsOf(file);
  if (!ours.ok()) return ours.failure();
  file.Reset();
  Delete(ours.value(), NativePath(path));
  return true;
}

}  // namespace gateway_lock

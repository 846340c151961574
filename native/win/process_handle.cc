// Windows' own handles of processes: a process keeps its number for as long as anybody has one.

#include "../process_handle.h"

#include <errno.h>
#include <windows.h>

#include "errors.h"

namespace gateway_lock {
namespace {

constexpr DWORD kToWait = SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION;
constexpr int kProbe = 0, kKill = 9;  // as everywhere else
constexpr UINT kExitCode = 1;         // what Node gives a process that it kills

HANDLE Native(const FileHandle& file) noexcept { return reinterpret_cast<HANDLE>(file.raw()); }

}  // namespace

Result<FileHandle> OpenProcess(ProcessId pid) noexcept {
  HANDLE process = ::OpenProcess(kToWait | PROCESS_TERMINATE, FALSE, static_cast<DWORD>(pid));
  // Another user's may be waited for, at most.
  if (process == nullptr && GetLastError() == ERROR_ACCESS_DENIED) {
    process = ::OpenProcess(kToWait, FALSE, static_cast<DWORD>(pid));
  }
  if (process != nullptr) return FileHandle(reinterpret_cast<RawHandle>(process));
  const DWORD error = GetLastError();
  return error == ERROR_INVALID_PARAMETER ? Failure{ESRCH, "OpenProcess", error} : FailureOf(error, "OpenProcess");
}

// To terminate is all that one process can do to another; the other signals are requests.
Result<Done> SignalProcess(const FileHandle& process, int signal) noexcept {
  if (signal != kKill && signal != kProbe) return Failure{ENOTSUP, "TerminateProcess"};
  if (WaitForSingleObject(Native(process), 0) == WAIT_OBJECT_0) return Failure{ESRCH, "TerminateProcess"};
  if (signal == kProbe || TerminateProcess(Native(process), kExitCode)) return Done{};
  const Failure failure = LastFailure("TerminateProcess");
  // It has ended meanwhile: that is denied too.
  return WaitForSingleObject(Native(process), 0) == WAIT_OBJECT_0 ? Failure{ESRCH, "TerminateProcess"} : failure;
}

}  // namespace gateway_lock

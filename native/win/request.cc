#include "request.h"

#include <utility>

namespace gateway_lock {
namespace {

// The last byte but one that an offset can name: both the byte and the one behind it have positive offsets for every driver.
constexpr DWORD kLockedLow = 0xFFFFFFFE;
constexpr DWORD kLockedHigh = 0x7FFFFFFF;
constexpr ULONG_PTR kPending = 0x103;  // STATUS_PENDING
constexpr DWORD kPatience = 1000;      // ms, for a driver that answers later

}  // namespace

Request::Request() noexcept { overlapped_.hEvent = CreateEventW(nullptr, TRUE, FALSE, nullptr); }

Request::~Request() { CloseEvent(); }

void Request::CloseEvent() noexcept {
  if (overlapped_.hEvent != nullptr) CloseHandle(std::exchange(overlapped_.hEvent, nullptr));
}

void Request::MoveTo(DWORD low, DWORD high) noexcept {
  overlapped_.Offset = low;
  overlapped_.OffsetHigh = high;
  overlapped_.Internal = kPending;
}

DWORD Request::Complete(HANDLE file, BOOL done, DWORD& count) noexcept {
  if (!done) {
    const DWORD error = GetLastError();
    if (error != ERROR_IO_PENDING) return error;
  }
  return GetOverlappedResult(file, &overlapped_, &count, TRUE) ? ERROR_SUCCESS : GetLastError();
}

DWORD Request::Write(HANDLE file, const void* data, DWORD size, DWORD& written) noexcept {
  if (event() == nullptr) return ERROR_NO_SYSTEM_RESOURCES;
  MoveTo(0, 0);
  return Complete(file, WriteFile(file, data, size, nullptr, &overlapped_), written);
}

DWORD Request::ReadLockedByte(HANDLE file) noexcept {
  if (event() == nullptr) return ERROR_NO_SYSTEM_RESOURCES;
  char byte;
  DWORD count;
  MoveTo(kLockedLow, kLockedHigh);
  return Complete(file, ReadFile(file, &byte, 1, nullptr, &overlapped_), count);
}

DWORD Request::LockByte(HANDLE file, DWORD flags) noexcept {
  if (event() == nullptr) return ERROR_NO_SYSTEM_RESOURCES;
  MoveTo(kLockedLow, kLockedHigh);
  ResetEvent(event());
  return LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | flags, 0, 1, 0, &overlapped_) ? ERROR_SUCCESS : GetLastError();
}

DWORD Request::TryLock(HANDLE file) noexcept {
  const DWORD error = LockByte(file, LOCKFILE_FAIL_IMMEDIATELY);
  if (error != ERROR_IO_PENDING) return error;
  // On an asynchronous handle a driver may answer later, even to this: a redirector asks its server, and NTFS waits until
  // somebody has let go of an oplock. What it says then is final; to cancel at once would make every lock there look held.
  if (WaitForSingleObject(event(), kPatience) != WAIT_OBJECT_0) Cancel(file);
  DWORD count;
  if (GetOverlappedResult(file, &overlapped_, &count, TRUE)) return ERROR_SUCCESS;
  const DWORD answer = GetLastError();
  return answer == ERROR_OPERATION_ABORTED ? ERROR_TIMEOUT : answer;
}

DWORD Request::Unlock(HANDLE file) noexcept {
  MoveTo(kLockedLow, kLockedHigh);
  return UnlockFileEx(file, 0, 1, 0, &overlapped_) ? ERROR_SUCCESS : GetLastError();
}

DWORD Request::Pend(HANDLE file) noexcept { return LockByte(file, 0); }

DWORD Request::Outcome(HANDLE file) noexcept {
  DWORD count;
  return GetOverlappedResult(file, &overlapped_, &count, FALSE) ? ERROR_SUCCESS : GetLastError();
}

DWORD Request::Cancel(HANDLE file) noexcept { return CancelIoEx(file, &overlapped_) ? ERROR_SUCCESS : GetLastError(); }

}  // namespace gateway_lock

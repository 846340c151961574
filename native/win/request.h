// What is asked of a lock file: reads, writes, and locks of the one byte that stands for its lock.
//
// LockFileEx is mandatory: nobody but the holder can read or write the bytes that are locked, not even the holder by another
// handle. So the byte lies where no file has one, and everybody can read the record. Locking beyond the end of a file is allowed,
// and leaves its length as it is.
#pragma once

#include <windows.h>

namespace gateway_lock {

// A request on an asynchronous handle, as LockFileEx needs it that can be given up. The system may write into it until it has
// completed; all calls but Pend therefore wait for that. They return ERROR_SUCCESS, or what the system said.
class Request {
 public:
  Request() noexcept;
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  ~Request();

  DWORD Write(HANDLE file, const void* data, DWORD size, DWORD& written) noexcept;

  // Reads at the byte that stands for the lock: ERROR_LOCK_VIOLATION if it is locked by any other handle.
  DWORD ReadLockedByte(HANDLE file) noexcept;

  // ERROR_LOCK_VIOLATION if somebody has it; ERROR_TIMEOUT if a driver that promised to answer did not for a second.
  DWORD TryLock(HANDLE file) noexcept;
  DWORD Unlock(HANDLE file) noexcept;

  // Asks for the lock, and comes back at once: ERROR_IO_PENDING if it has to be waited for. The event is set when it is granted
  // or refused, and Outcome tells which: ERROR_IO_INCOMPLETE while it is not.
  DWORD Pend(HANDLE file) noexcept;
  DWORD Outcome(HANDLE file) noexcept;
  // ERROR_NOT_FOUND if the system has no such request any more, or never took it.
  DWORD Cancel(HANDLE file) noexcept;
  HANDLE event() const noexcept { return overlapped_.hEvent; }

  // For a request that never completes: closes the event. The system has its own reference to that; the memory has to stay.
  void CloseEvent() noexcept;

 private:
  DWORD Complete(HANDLE file, BOOL done, DWORD& count) noexcept;
  void MoveTo(DWORD low, DWORD high) noexcept;
  DWORD LockByte(HANDLE file, DWORD flags) noexcept;

  OVERLAPPED overlapped_ = {};
};

}  // namespace gateway_lock

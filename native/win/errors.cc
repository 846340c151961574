// One table for Win32 and Winsock. Where both libuv (src/win/error.c) and this package know an error, they call it the same, so
// that an error from here reads as one of Node's own.

#include "errors.h"

#include <errno.h>
#include <winsock2.h>

namespace gateway_lock {
namespace {

struct Entry {
  unsigned long system;
  int code;
};

constexpr Entry kErrors[] = {
    // Files.
    {ERROR_ACCESS_DENIED, EPERM},           // by the ACL, the read-only attribute, or because it is a directory
    {ERROR_PRIVILEGE_NOT_HELD, EPERM},      // a symbolic link without the right to make one
    {ERROR_WRITE_PROTECT, EROFS},           // the medium
    {ERROR_SHARING_VIOLATION, EBUSY},       // another program has it open and does not share it
    {ERROR_LOCK_VIOLATION, EBUSY},          // bytes that somebody has locked
    {ERROR_DELETE_PENDING, EBUSY},          // deleted, and somebody has it open still
    {ERROR_PIPE_BUSY, EBUSY},               // a named pipe is no file
    {ERROR_FILE_NOT_FOUND, ENOENT},         //
    {ERROR_PATH_NOT_FOUND, ENOENT},         //
    {ERROR_INVALID_DRIVE, ENOENT},          //
    {ERROR_BAD_NETPATH, ENOENT},            // the host of a UNC path
    {ERROR_BAD_NET_NAME, ENOENT},           // its share
    {ERROR_INVALID_NAME, ENOENT},           // characters that no file name has
    {ERROR_BAD_PATHNAME, ENOENT},           //
    {ERROR_DIRECTORY, ENOTDIR},             //
    {ERROR_FILE_EXISTS, EEXIST},            //
    {ERROR_ALREADY_EXISTS, EEXIST},         //
    {ERROR_BUFFER_OVERFLOW, ENAMETOOLONG},  //
    {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
    {ERROR_CANT_RESOLVE_FILENAME, ELOOP},    // links that go round
    {ERROR_DISK_FULL, ENOSPC},               //
    {ERROR_HANDLE_DISK_FULL, ENOSPC},        //
    {ERROR_DISK_QUOTA_EXCEEDED, ENOSPC},     // the C library has no EDQUOT
    {ERROR_TOO_MANY_OPEN_FILES, EMFILE},     //
    {ERROR_NO_SYSTEM_RESOURCES, ENOMEM},     //
    {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},       //
    {ERROR_OUTOFMEMORY, ENOMEM},             //
    {ERROR_INVALID_HANDLE, EBADF},           //
    {ERROR_INVALID_PARAMETER, EINVAL},       //
    {ERROR_INVALID_FUNCTION, ENOSYS},        // a driver that does not have the call: a redirector without locks
    {ERROR_NOT_SUPPORTED, ENOTSUP},          //
    {ERROR_CALL_NOT_IMPLEMENTED, ENOSYS},    //
    {ERROR_OPERATION_ABORTED, ECANCELED},    //
    {ERROR_TIMEOUT, ETIMEDOUT},              // a driver that does not answer
    {ERROR_NOT_READY, EIO},                  // no medium in the drive
    {ERROR_IO_DEVICE, EIO},                  //
    {ERROR_CRC, EIO},                        //
    {ERROR_NO_UNICODE_TRANSLATION, EILSEQ},  // a path that is no Unicode
    // Sockets.
    {WSAEACCES, EACCES},                    // an excluded port range, or an exclusive socket on another address
    {WSAEADDRINUSE, EADDRINUSE},            //
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL},      //
    {WSAEAFNOSUPPORT, EAFNOSUPPORT},        //
    {WSAEPROTONOSUPPORT, EPROTONOSUPPORT},  //
    {WSAEINVAL, EINVAL},                    //
    {WSAEFAULT, EFAULT},                    //
    {WSAENOTSOCK, ENOTSOCK},                //
    {WSAENOBUFS, ENOBUFS},                  // no ports are left, or no memory for the kernel
    {WSAEMFILE, EMFILE},                    //
    {WSAENETDOWN, ENETDOWN},                //
    {WSAEOPNOTSUPP, ENOTSUP},               //
    {WSAHOST_NOT_FOUND, EADDRNOTAVAIL},     // a zone that is no interface here: nothing but literals is looked up
};

}  // namespace

Failure FailureOf(unsigned long error, const char* syscall) noexcept {
  for (const Entry& entry : kErrors) {
    if (entry.system == error) return Failure{entry.code, syscall, error};
  }
  return Failure{EIO, syscall, error};  // the number tells what it was
}

Failure LastFailure(const char* syscall) noexcept { return FailureOf(GetLastError(), syscall); }

}  // namespace gateway_lock

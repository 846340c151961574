// Where Linux and macOS differ about Unix sockets.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "../handle.h"
#include "../local_socket.h"
#include "../result.h"

namespace gateway_lock {

// A socket's path, for as long as this is alive.
struct LocalAddress {
  sockaddr_un storage = {};
  FileHandle directory = {};  // that it begins with, where the whole path would not fit

  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  const char* path() const noexcept { return storage.sun_path; }
};

// ENAMETOOLONG where it does not fit and there is no way around that.
Result<LocalAddress> LocalAddressOf(const std::string& path) noexcept;

// Makes the socket's name, with mode 0600 whatever the umask. False, with errno, and no name.
bool BindPrivately(const SocketHandle& socket, const LocalAddress& address) noexcept;

// None of these is inherited by a child process, not even by one that another thread is just starting, where the system has calls
// for that. They do not wait, and raise no SIGPIPE. Empty, with errno.
SocketHandle OpenLocal() noexcept;
SocketHandle AcceptFrom(const SocketHandle& listener) noexcept;
bool OpenPipe(FileHandle& reader, FileHandle& writer) noexcept;

// For recvmsg(2): so that received descriptors are not inherited either, where there is such a flag.
extern const int kReceiveFlags;
// For sendmsg(2).
extern const int kSendFlags;

}  // namespace gateway_lock

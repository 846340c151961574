// Unix sockets, by which one process gives its descriptors to another one on the same host (unix(7), SCM_RIGHTS).
//
// No call here waits: EAGAIN says that it would have to (handle_wait.h). What is received is not
// inherited by child processes. ENOTSUP where descriptors can't be passed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "handle.h"
#include "process.h"
#include "result.h"

namespace gateway_lock {

// A socket's name in the filesystem, by what it is and not by where it lies.
struct LocalName {
  std::string path;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

struct LocalListener {
  SocketHandle socket;
  LocalName name;
};

// Listens at `path`, for this user alone (0600). EADDRINUSE: there is something; ENAMETOOLONG where the system has no way to so
// long a path.
Result<LocalListener> ListenLocal(const std::string& path) noexcept;

// Deletes the name if it still is that socket's. The socket itself goes on.
void RemoveLocalName(const LocalName& name) noexcept;

// ECONNREFUSED: nobody listens there, though the name is left; ENOENT: there is none; EAGAIN: too many are waiting.
Result<SocketHandle> ConnectLocal(const std::string& path) noexcept;

Result<SocketHandle> AcceptLocal(const SocketHandle& listener) noexcept;

// Who is at the other end: at the moment when it connected, or began to listen. `pid` is 0 where it means nothing here.
struct Peer {
  std::uint32_t user;
  ProcessId pid;
};

Result<Peer> IdentifyPeer(const SocketHandle& socket) noexcept;

// As much as the system takes in one go; the descriptors go with the first byte, or not at all. Linux takes at most 253 of them.
// EPIPE: the other end is closed.
Result<std::size_t> SendLocal(const SocketHandle& socket, const void* data, std::size_t size,
                              const std::vector<RawHandle>& descriptors) noexcept;

struct LocalMessage {
  std::string data;  // empty: the other end is closed
  std::vector<FileHandle> descriptors;
};

// What has come: of several messages with descriptors, one at a time. EMFILE: not all of its descriptors could be opened here;
// those that were are closed again.
Result<LocalMessage> ReceiveLocal(const SocketHandle& socket) noexcept;

// A byte that exactly one of those who have this descriptor can take.
Result<FileHandle> MakeBaton() noexcept;
// Whether it was still there.
Result<bool> TakeBaton(const FileHandle& baton) noexcept;

}  // namespace gateway_lock

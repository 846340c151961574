#include "../local_socket.h"

#include <errno.h>

namespace gateway_lock {
namespace {

// Windows has Unix sockets, and no handles go by them.
constexpr Failure kUnsupported = {ENOTSUP, "sendmsg"};

}  // namespace

Result<LocalListener> ListenLocal(const std::string&) noexcept { return kUnsupported; }

void RemoveLocalName(const LocalName&) noexcept {}

Result<SocketHandle> ConnectLocal(const std::string&) noexcept { return kUnsupported; }

Result<SocketHandle> AcceptLocal(const SocketHandle&) noexcept { return kUnsupported; }

Result<Peer> IdentifyPeer(const SocketHandle&) noexcept { return kUnsupported; }

Result<std::size_t> SendLocal(const SocketHandle&, const void*, std::size_t, const std::vector<RawHandle>&) noexcept {
  return kUnsupported;
}

Result<LocalMessage> ReceiveLocal(const SocketHandle&) noexcept { return kUnsupported; }

Result<FileHandle> MakeBaton() noexcept { return kUnsupported; }

Result<bool> TakeBaton(const FileHandle&) noexcept { return kUnsupported; }

}  // namespace gateway_lock

#include "../local_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "local_system.h"

namespace gateway_lock {
namespace {

// Handovers of one gateway come one at a time; whoever waits here is told to come back.
constexpr int kBacklog = 16;
constexpr std::size_t kBufferSize = 64 * 1024;
// As many as Linux passes in one message (SCM_MAX_FD, scm.h). macOS passes more.
constexpr std::size_t kMaxDescriptors = 253;

int Fd(const SocketHandle& socket) noexcept { return static_cast<int>(socket.raw()); }

// The system puts all of them into one part of the control data, and nothing else was asked for.
void TakeDescriptors(msghdr& message, std::vector<FileHandle>& descriptors) noexcept {
  const cmsghdr* part = CMSG_FIRSTHDR(&message);
  if (part == nullptr || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) return;
  const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; i++) {
    int fd;
    memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
    fcntl(fd, F_SETFD, FD_CLOEXEC);  // where kReceiveFlags could not ask for it
    descriptors.emplace_back(fd);
  }
}

}  // namespace

Result<LocalListener> ListenLocal(const std::string& path) noexcept {
  Result<LocalAddress> address = LocalAddressOf(path);
  if (!address.ok()) return address.failure();
  LocalListener listener;
  listener.socket = OpenLocal();
  if (!listener.socket) return Failure{errno, "socket"};
  // Nobody gets in before listen(2).
  if (!BindPrivately(listener.socket, address.value())) return Failure{errno, "bind"};
  struct stat there;
  const bool ready = lstat(address.value().path(), &there) == 0 && listen(Fd(listener.socket), kBacklog) == 0;
  if (!ready) {
    const Failure failure{errno, "listen"};
    unlink(address.value().path());
    return failure;
  }
  listener.name = LocalName{path, static_cast<std::uint64_t>(there.st_dev), static_cast<std::uint64_t>(there.st_ino)};
  return listener;
}

void RemoveLocalName(const LocalName& name) noexcept {
  Result<LocalAddress> address = LocalAddressOf(name.path);
  struct stat there;
  if (!address.ok() || lstat(address.value().path(), &there) == -1 || !S_ISSOCK(there.st_mode)) return;
  const bool same =
      static_cast<std::uint64_t>(there.st_dev) == name.device && static_cast<std::uint64_t>(there.st_ino) == name.inode;
  if (same) unlink(address.value().path());
}

Result<SocketHandle> ConnectLocal(const std::string& path) noexcept {
  Result<LocalAddress> address = LocalAddressOf(path);
  if (!address.ok()) return address.failure();
  SocketHandle socket = OpenLocal();
  if (!socket) return Failure{errno, "socket"};
  if (connect(Fd(socket), address.value().get(), sizeof(address.value().storage)) == -1) return Failure{errno, "connect"};
  return socket;
}

Result<SocketHandle> AcceptLocal(const SocketHandle& listener) noexcept {
  SocketHandle socket = AcceptFrom(listener);
  if (!socket) return Failure{errno, "accept"};
  return socket;
}

Result<std::size_t> SendLocal(const SocketHandle& socket, const void* data, std::size_t size,
                              const std::vector<RawHandle>& descriptors) noexcept {
  if (descriptors.size() > kMaxDescriptors) return Failure{EINVAL, "sendmsg"};
  iovec bytes = {const_cast<void*>(data), size};
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = static_cast<decltype(message.msg_controllen)>(CMSG_SPACE(descriptors.size() * sizeof(int)));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = static_cast<decltype(part->cmsg_len)>(CMSG_LEN(descriptors.size() * sizeof(int)));
    for (std::size_t i = 0; i < descriptors.size(); i++) {
      const auto fd = static_cast<int>(descriptors[i]);
      memcpy(CMSG_DATA(part) + i * sizeof(int), &fd, sizeof(int));
    }
  }
  ssize_t sent;
  do {
    sent = sendmsg(Fd(socket), &message, kSendFlags);
  } while (sent == -1 && errno == EINTR);
  if (sent == -1) return Failure{errno, "sendmsg"};
  return static_cast<std::size_t>(sent);
}

Result<LocalMessage> ReceiveLocal(const SocketHandle& socket) noexcept {
  LocalMessage received;
  received.data.resize(kBufferSize);
  iovec bytes = {received.data.data(), received.data.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = recvmsg(Fd(socket), &message, kReceiveFlags);
  } while (size == -1 && errno == EINTR);
  if (size == -1) return Failure{errno, "recvmsg"};
  TakeDescriptors(message, received.descriptors);
  if ((message.msg_flags & MSG_CTRUNC) != 0) return Failure{EMFILE, "recvmsg"};
  received.data.resize(static_cast<std::size_t>(size));
  return received;
}

Result<FileHandle> MakeBaton() noexcept {
  FileHandle reader, writer;
  if (!OpenPipe(reader, writer)) return Failure{errno, "pipe"};
  const char byte = 1;
  if (write(static_cast<int>(writer.raw()), &byte, 1) != 1) return Failure{errno, "write"};
  return reader;
}

Result<bool> TakeBaton(const FileHandle& baton) noexcept {
  char byte;
  ssize_t size;
  do {
    size = read(static_cast<int>(baton.raw()), &byte, 1);
  } while (size == -1 && errno == EINTR);
  if (size == -1) return Failure{errno, "read"};
  return size == 1;
}

}  // namespace gateway_lock

// procfs and NETLINK_SOCK_DIAG.
//
// A flock's holder is found by /proc/PID/fdinfo/N, which shows a "lock:" line for the very open file description that
// holds it. /proc/locks is no proof of who: it names the process that took the lock, even after that one has passed
// the descriptor on and died; it leaves out what other pid namespaces took; and on btrfs its device number is not
// stat's. But in the initial pid namespace it lists every flock there is, so an inode that it does not list at all is
// not locked by anybody on this host.

#include "../process.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "../handle.h"

namespace gateway_lock {
namespace {

// The initial pid namespace has this inode number on every Linux (PROC_PID_INIT_INO, include/linux/proc_ns.h).
constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;

// A socket that is bound and does not listen; since Linux 6.8, older ones ignore the bit (include/net/tcp_states.h).
constexpr std::uint32_t kTcpBoundInactive = 13;

int Fd(const FileHandle& file) noexcept { return static_cast<int>(file.raw()); }

FileHandle OpenAt(int directory, const char* path, int flags = O_RDONLY) noexcept {
  return FileHandle(openat(directory, path, flags | O_CLOEXEC));
}

// Files in procfs have no size: read until there is no more.
std::string ReadAll(const FileHandle& file) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(Fd(file), buffer, sizeof(buffer));
    if (count > 0) {
      text.append(buffer, static_cast<std::size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      return text;
    }
  }
}

std::string ReadAll(const char* path) {
  FileHandle file = OpenAt(AT_FDCWD, path);
  return file ? ReadAll(file) : std::string();
}

class Directory {
 public:
  Directory(int parent, const char* name) noexcept {
    FileHandle file = OpenAt(parent, name, O_RDONLY | O_DIRECTORY);
    if (!file) return;
    stream_ = fdopendir(Fd(file));
    if (stream_ != nullptr) file.Take();
  }
  ~Directory() {
    if (stream_ != nullptr) closedir(stream_);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  explicit operator bool() const noexcept { return stream_ != nullptr; }
  int fd() const noexcept { return dirfd(stream_); }
  // The next name that starts with a digit, or null: pids in /proc, descriptors in /proc/PID/fd.
  const char* NextNumber() noexcept {
    while (const dirent* entry = readdir(stream_)) {
      if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') return entry->d_name;
    }
    return nullptr;
  }

 private:
  DIR* stream_ = nullptr;
};

// An open descriptor of some process, as procfs shows it.
struct Descriptor {
  int process;       // /proc/PID
  int descriptors;   // /proc/PID/fd
  const char* name;  // the number
  const char* link;  // what it refers to
};

enum class Visit { kNext, kFound };
enum class Sight { kNotFound, kFound, kHidden };

Sight VisitProcess(const char* pid, const std::function<Visit(const Descriptor&)>& visit) {
  FileHandle process = OpenAt(AT_FDCWD, (std::string("/proc/") + pid).c_str(), O_RDONLY | O_DIRECTORY);
  if (!process) return errno == ENOENT ? Sight::kNotFound : Sight::kHidden;
  Directory descriptors(Fd(process), "fd");
  if (!descriptors) return errno == ENOENT || errno == ESRCH ? Sight::kNotFound : Sight::kHidden;
  char link[256];  // long paths are cut: only how they begin is looked at
  while (const char* name = descriptors.NextNumber()) {
    const ssize_t length = readlinkat(descriptors.fd(), name, link, sizeof(link) - 1);
    if (length == -1) {
      if (errno == EACCES || errno == EPERM) return Sight::kHidden;
      continue;
    }
    link[length] = '\0';
    if (visit(Descriptor{Fd(process), descriptors.fd(), name, link}) == Visit::kFound) return Sight::kFound;
  }
  return Sight::kNotFound;
}

// Calls `visit` for every descriptor of every process that this user may see, the hinted processes first, and `found`
// for each process where it says so, until `found` says enough. Returns whether every process could be looked at.
bool VisitProcesses(const std::vector<ProcessId>& hints, const std::function<Visit(const Descriptor&)>& visit,
                    const std::function<bool(ProcessId)>& found) {
  bool complete = true;
  const auto look = [&](const char* pid) {
    const Sight sight = VisitProcess(pid, visit);
    if (sight == Sight::kHidden) complete = false;
    return sight == Sight::kFound && found(static_cast<ProcessId>(strtol(pid, nullptr, 10)));
  };
  for (const ProcessId hint : hints) {
    if (hint > 0 && look(std::to_string(hint).c_str())) return complete;
  }
  Directory processes(AT_FDCWD, "/proc");
  if (!processes) return false;
  while (const char* pid = processes.NextNumber()) {
    const auto number = static_cast<ProcessId>(strtol(pid, nullptr, 10));
    if (std::find(hints.begin(), hints.end(), number) != hints.end()) continue;
    if (look(pid)) break;
  }
  return complete;
}

bool HoldsFlock(const Descriptor& descriptor) {
  FileHandle file = OpenAt(descriptor.process, (std::string("fdinfo/") + descriptor.name).c_str());
  if (!file) return false;
  const std::string info = ReadAll(file);
  for (std::size_t at = info.find("lock:"); at != std::string::npos; at = info.find("lock:", at + 1)) {
    if (at != 0 && info[at - 1] != '\n') continue;
    const std::size_t flock = info.find("FLOCK", at);
    if (flock != std::string::npos && flock < info.find('\n', at)) return true;
  }
  return false;
}

// What /proc/locks says of an inode: kYes, listed with that device; kNo, not listed in the initial pid namespace, which
// lists all. The kernel hands the table out a page at a time, by position, so that an entry can slip through between two
// reads while others go away: then `whole` is false, and not being listed proves nothing by itself.
Verdict ListedInProcLocks(const struct stat& file, bool& whole) {
  constexpr std::size_t kSurelyOnePage = 4096 - 256;  // no entry is that long, so another would have fitted
  whole = false;
  struct stat pid_namespace;
  if (stat("/proc/self/ns/pid", &pid_namespace) == -1) return Verdict::kUnknown;
  FileHandle locks = OpenAt(AT_FDCWD, "/proc/locks");
  if (!locks) return Verdict::kUnknown;
  const std::string text = ReadAll(locks);
  whole = text.size() < kSurelyOnePage;
  char inode[32], device_and_inode[64];
  snprintf(inode, sizeof(inode), ":%llu ", static_cast<unsigned long long>(file.st_ino));
  snprintf(device_and_inode, sizeof(device_and_inode), " %02x:%02x%s", major(file.st_dev), minor(file.st_dev), inode);
  bool same_inode = false;
  for (std::size_t line = 0; line < text.size();) {
    const std::size_t end = std::min(text.find('\n', line), text.size());
    const std::string entry = text.substr(line, end - line);
    line = end + 1;
    // "-> FLOCK" is a process that waits for it.
    if (entry.find("FLOCK") == std::string::npos || entry.find("->") != std::string::npos) continue;
    if (entry.find(device_and_inode) != std::string::npos) return Verdict::kYes;
    if (entry.find(inode) != std::string::npos) same_inode = true;
  }
  return !same_inode && pid_namespace.st_ino == kInitialPidNamespace ? Verdict::kNo : Verdict::kUnknown;
}

std::uint32_t StatesOf(PortUse use) noexcept {
  switch (use) {
    case PortUse::kListening:
      return 1u << TCP_LISTEN;
    case PortUse::kBound:
      return 1u << kTcpBoundInactive;
    case PortUse::kConnected:
      return 1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_CLOSE_WAIT;
  }
  return 0;
}

struct DiagRequest {
  nlmsghdr header;
  inet_diag_req_v2 query;
};

PortSocket ReadDiag(const nlmsghdr* header) {
  const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
  PortSocket socket;
  socket.ipv6 = message->idiag_family == AF_INET6;
  socket.id = message->idiag_inode;
  char text[INET6_ADDRSTRLEN];
  if (inet_ntop(message->idiag_family, message->id.idiag_src, text, sizeof(text)) != nullptr) socket.address = text;
  int left = static_cast<int>(header->nlmsg_len - NLMSG_LENGTH(sizeof(*message)));
  for (const auto* attribute = reinterpret_cast<const rtattr*>(message + 1); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == INET_DIAG_SKV6ONLY) socket.v6only = *static_cast<const std::uint8_t*>(RTA_DATA(attribute)) != 0;
  }
  return socket;
}

// One dump of one family; the kernel filters by state and local port (sock_diag(7)).
Result<Done> Dump(const SocketHandle& netlink, int family, std::uint16_t port, std::uint32_t states,
                  std::vector<PortSocket>& sockets) {
  DiagRequest request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.query.sdiag_family = static_cast<std::uint8_t>(family);
  request.query.sdiag_protocol = IPPROTO_TCP;
  request.query.idiag_states = states;
  request.query.id.idiag_sport = htons(port);
  const int fd = static_cast<int>(netlink.raw());
  if (send(fd, &request, sizeof(request), 0) == -1) return Failure{errno, "send"};

  alignas(nlmsghdr) char buffer[32768];
  for (;;) {
    const ssize_t received = recv(fd, buffer, sizeof(buffer), 0);
    if (received == -1 && errno == EINTR) continue;
    if (received == -1) return Failure{errno, "recv"};
    auto length = static_cast<std::uint32_t>(received);
    for (auto* header = reinterpret_cast<const nlmsghdr*>(buffer); NLMSG_OK(header, length);
         header = NLMSG_NEXT(header, length)) {
      if (header->nlmsg_type == NLMSG_DONE) return Done{};
      if (header->nlmsg_type == NLMSG_ERROR) return Failure{-static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error, "recv"};
      // A kernel that does not know the port filter sends all.
      if (static_cast<const inet_diag_msg*>(NLMSG_DATA(header))->id.idiag_sport == htons(port))
        sockets.push_back(ReadDiag(header));
    }
  }
}

}  // namespace

ProcessId OwnProcess() noexcept { return getpid(); }

Result<ProcessIdentity> IdentifyProcess(ProcessId pid) noexcept {
  FileHandle file = OpenAt(AT_FDCWD, ("/proc/" + std::to_string(pid) + "/stat").c_str());
  if (!file) {
    // procfs mounted with hidepid shows other users' processes as missing or refuses them; kill(2) tells them from dead ones.
    if (errno != ENOENT && errno != EACCES && errno != EPERM) return Failure{errno, "open"};
    ProcessIdentity hidden;
    hidden.exists = kill(pid, 0) == 0 || errno == EPERM;
    return hidden;
  }
  const std::string text = ReadAll(file);
  // The second field is the command in parentheses, and may contain anything, so count from the last one:
  // field 3 is the state, field 22 the start time (proc_pid_stat(5)).
  const std::size_t command_end = text.rfind(')');
  if (command_end == std::string::npos) return ProcessIdentity{};  // it went between open and read
  std::size_t at = command_end + 2;
  const char state = at < text.size() ? text[at] : 'X';
  for (int field = 3; field < 22 && at != std::string::npos; field++) at = text.find(' ', at + 1);
  if (at == std::string::npos) return Failure{EPROTO, "read"};
  ProcessIdentity identity;
  identity.exists = state != 'Z' && state != 'X' && state != 'x';
  identity.start_time = strtod(text.c_str() + at, nullptr);
  return identity;
}

std::string DescribeCommand(ProcessId pid) noexcept {
  const std::string process = "/proc/" + std::to_string(pid);
  std::string command = ReadAll((process + "/cmdline").c_str());
  if (command.empty()) command = ReadAll((process + "/comm").c_str());
  std::replace(command.begin(), command.end(), '\0', ' ');
  return command;
}

HostIdentity IdentifyHost() noexcept {
  HostIdentity host;
  host.boot_id = ReadAll("/proc/sys/kernel/random/boot_id");
  while (!host.boot_id.empty() && host.boot_id.back() == '\n') host.boot_id.pop_back();
  struct stat pid_namespace;
  if (stat("/proc/self/ns/pid", &pid_namespace) == 0) host.pid_namespace = std::to_string(pid_namespace.st_ino);
  return host;
}

LockEvidence FindLockHolders(const std::string& path, const std::vector<ProcessId>& hints, bool first_only) noexcept {
  LockEvidence evidence;
  struct stat file;
  if (stat(path.c_str(), &file) == -1) {
    // Where there is no file, there is no lock on it.
    evidence.locked = errno == ENOENT || errno == ENOTDIR ? Verdict::kNo : Verdict::kUnknown;
    return evidence;
  }
  const auto holds = [&](const Descriptor& descriptor) {
    // procfs first: stat on a descriptor of a dead network filesystem would hang.
    struct stat opened;
    return descriptor.link[0] == '/' && HoldsFlock(descriptor) &&
                   fstatat(descriptor.descriptors, descriptor.name, &opened, 0) == 0 && opened.st_dev == file.st_dev &&
                   opened.st_ino == file.st_ino
               ? Visit::kFound
               : Visit::kNext;
  };
  const bool complete = VisitProcesses(hints, holds, [&](ProcessId pid) {
    evidence.holders.push_back(pid);
    return first_only;
  });
  evidence.locked = Verdict::kYes;
  if (!evidence.holders.empty()) return evidence;
  bool whole;
  evidence.locked = ListedInProcLocks(file, whole);
  // A table that may be incomplete is enough only together with a look at every process.
  if (evidence.locked == Verdict::kNo && !whole && !complete) evidence.locked = Verdict::kUnknown;
  return evidence;
}

Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept {
  SocketHandle netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink) return Failure{errno, "socket"};
  std::vector<PortSocket> sockets;
  for (const int family : {AF_INET, AF_INET6}) {
    Result<Done> dumped = Dump(netlink, family, port, StatesOf(use), sockets);
    // ENOENT: this family is not there.
    if (!dumped.ok() && dumped.failure().code != ENOENT) return dumped.failure();
  }
  return sockets;
}

ProcessId FindSocketOwner(std::uint64_t id, const std::vector<ProcessId>& hints) noexcept {
  ProcessId owner = 0;
  const std::string link = "socket:[" + std::to_string(id) + "]";
  VisitProcesses(
      hints, [&](const Descriptor& descriptor) { return link == descriptor.link ? Visit::kFound : Visit::kNext; },
      [&](ProcessId pid) {
        owner = pid;
        return true;
      });
  return owner;
}

}  // namespace gateway_lock

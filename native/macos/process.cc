// libproc and sysctl(3).
//
// Whether a file is locked is a question to the kernel's own list of its locks: F_GETLK asks what a lock of the whole file would
// meet, and takes none. macOS keeps flock's locks and fcntl's in one list (lf_advlock, bsd/kern/kern_lockf.c), so the answer is
// good for both. It needs the file open; that has no effect on any lock, because closing a descriptor drops only what went by
// that descriptor, and what this process has by fcntl(2), which it never uses.
//
// Of a flock, the answer does not say who has it. But an open file description that was ever given one is marked for good
// (FWASLOCKED; sys_flock, bsd/kern/kern_descrip.c), and proc_pidfdinfo(3) shows the mark. So while the file is locked, whoever
// has a marked description of it open is its holder, but for a program that unlocked its own and kept the file open; this package
// closes what it unlocks. Descriptors of other users' processes are shown to root alone.
//
// Sockets come from one table with those of all users, by net.inet.tcp.pcblist64, also those that no process has open any more,
// and the ones that are bound and do not listen. Who has one is found by libproc again.

#include "../process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libproc.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "../handle.h"

namespace gateway_lock {
namespace {

// FWASLOCKED of <sys/fcntl.h>, which has it for the kernel alone.
constexpr std::uint32_t kWasLocked = 0x4000;

// An upper limit for every table, should the kernel never be content: eight million descriptors of one process.
constexpr std::size_t kMaxTable = std::size_t{64} << 20;

constexpr double kMicrosecondsPerSecond = 1e6;

int Fd(const FileHandle& file) noexcept { return static_cast<int>(file.raw()); }

// A socket's id is 64 bits of the kernel's; JavaScript has 53 for it.
std::uint64_t SocketId(std::uint64_t handle) noexcept { return handle & ((std::uint64_t{1} << 53) - 1); }

std::string ReadText(const char* name) {
  char text[128];
  std::size_t size = sizeof(text);
  if (sysctlbyname(name, text, &size, nullptr, 0) == -1) return std::string();
  return std::string(text, strnlen(text, size));
}

std::vector<ProcessId> AllProcesses() {
  const int estimate = proc_listallpids(nullptr, 0);
  if (estimate <= 0) return {};
  std::vector<ProcessId> pids(static_cast<std::size_t>(estimate));
  for (;;) {
    // Full means that there may be more: there are always some between the two calls.
    pids.resize(pids.size() + pids.size() / 8 + 32);
    const int count = proc_listallpids(pids.data(), static_cast<int>(pids.size() * sizeof(ProcessId)));
    if (count <= 0) return {};
    const auto found = static_cast<std::size_t>(count);
    if (found >= pids.size() && pids.size() * sizeof(ProcessId) < kMaxTable) continue;
    pids.resize(std::min(found, pids.size()));
    return pids;
  }
}

// Empty where this user may not see them. `table` only spares every process an allocation.
std::size_t ListDescriptors(ProcessId pid, std::vector<proc_fdinfo>& table) {
  constexpr std::size_t kFirstSize = 1024;
  if (table.empty()) table.resize(kFirstSize);
  for (;;) {
    const auto size = static_cast<int>(table.size() * sizeof(proc_fdinfo));
    const int filled = proc_pidinfo(pid, PROC_PIDLISTFDS, 0, table.data(), size);
    if (filled <= 0) return 0;
    if (filled < size || table.size() * sizeof(proc_fdinfo) >= kMaxTable)
      return static_cast<std::size_t>(filled) / sizeof(proc_fdinfo);
    table.resize(table.size() * 2);
  }
}

// Calls `has` for every descriptor of that type of every process that this user may look into, the hinted processes
// first, and `found` for each process where it says so, until `found` says enough.
void VisitProcesses(const std::vector<ProcessId>& hints, std::uint32_t type, const std::function<bool(ProcessId, int)>& has,
                    const std::function<bool(ProcessId)>& found) {
  std::vector<proc_fdinfo> table;
  const auto look = [&](ProcessId pid) {
    const std::size_t count = ListDescriptors(pid, table);
    for (std::size_t i = 0; i < count; i++) {
      if (table[i].proc_fdtype == type && has(pid, table[i].proc_fd)) return found(pid);
    }
    return false;
  };
  for (const ProcessId hint : hints) {
    if (hint > 0 && look(hint)) return;
  }
  for (const ProcessId pid : AllProcesses()) {
    if (pid <= 0 || std::find(hints.begin(), hints.end(), pid) != hints.end()) continue;
    if (look(pid)) return;
  }
}

// The start of struct xtcpcb64 (bsd/netinet/tcp_var.h) with the structs inside it, as macOS has had them since 10.5.
// Written down here because not every SDK has the header.
#pragma pack(push, 4)
struct TcpEntry {
  std::uint32_t length;
  struct {
    std::uint64_t length;
    std::uint64_t pcb;
    in_port_t foreign_port;
    in_port_t local_port;
    std::uint64_t list[2];
    std::uint64_t protocol_pcb;
    std::uint64_t pcb_info;
    std::uint64_t port_list[2];
    std::uint64_t port_head;
    std::uint64_t generation;
    std::int32_t flags;
    std::uint32_t flow;
    std::uint8_t versions;
    std::uint8_t ttl;
    std::uint8_t protocol;
    in6_addr foreign;  // an IPv4 address is its last word
    in6_addr local;
    std::uint8_t ipv4[1];
    struct {
      std::uint8_t hop_limit;
      std::int32_t checksum;
      std::uint16_t interface;
      std::int16_t hops;
    } ipv6;
  } internet;
  struct {
    std::uint32_t length;
    std::uint64_t handle;
    std::int16_t type;
    std::int16_t options;
    std::int16_t linger;
    std::int16_t state;
    std::uint64_t pcb;
    std::int32_t protocol;
    std::int32_t family;
    std::int16_t queue[4];
    std::uint16_t error;
    std::int32_t group;
    std::uint32_t mark;
    std::uint32_t receive[6];
    std::uint32_t send[6];
    std::uint32_t user;
  } socket;
  std::uint64_t alignment;
  std::uint64_t segments;
  std::int32_t duplicates;
  std::int32_t timers[4];
  std::int32_t state;
};
#pragma pack(pop)

static_assert(offsetof(TcpEntry, internet.local_port) == 22 && offsetof(TcpEntry, internet.local) == 116);
static_assert(offsetof(TcpEntry, socket) == 148 && offsetof(TcpEntry, socket.handle) == 152);
static_assert(offsetof(TcpEntry, socket.user) == 252 && offsetof(TcpEntry, state) == 292 && sizeof(TcpEntry) == 296);

// The table begins and ends with a struct xinpgen (bsd/netinet/in_pcb.h).
struct TableEdge {
  std::uint32_t length;
  std::uint32_t count;
  std::uint64_t generation;
  std::uint64_t socket_generation;
};

// TCPS_… of <netinet/tcp_fsm.h>, INP_… of <netinet/in_pcb.h>.
constexpr int kClosed = 0, kListen = 1, kSynSent = 2, kEstablished = 4, kCloseWait = 5;
constexpr std::uint8_t kTakesIpv4 = 1, kTakesIpv6 = 2;

bool IsIn(PortUse use, const TcpEntry& entry) noexcept {
  switch (use) {
    case PortUse::kListening:
      return entry.state == kListen;
    case PortUse::kBound:
      return entry.state == kClosed && entry.internet.foreign_port == 0;
    case PortUse::kConnected:
      return entry.state == kSynSent || entry.state == kEstablished || entry.state == kCloseWait;
  }
  return false;
}

PortSocket Describe(const TcpEntry& entry) {
  PortSocket socket;
  socket.ipv6 = (entry.internet.versions & kTakesIpv6) != 0;
  socket.v6only = socket.ipv6 && (entry.internet.versions & kTakesIpv4) == 0;
  socket.id = SocketId(entry.socket.handle);
  in6_addr address = entry.internet.local;
  // The kernel keeps a link-local address's zone in its second word (in6_embedscope, bsd/netinet6/scope6.c).
  if (socket.ipv6 && IN6_IS_ADDR_LINKLOCAL(&address)) address.s6_addr[2] = address.s6_addr[3] = 0;
  char text[INET6_ADDRSTRLEN];
  const void* binary = socket.ipv6 ? &address.s6_addr[0] : &address.s6_addr[12];
  if (inet_ntop(socket.ipv6 ? AF_INET6 : AF_INET, binary, text, sizeof(text)) != nullptr) socket.address = text;
  return socket;
}

// Every TCP socket of the system; empty on failure, with errno.
std::vector<char> ReadTcpTable() {
  constexpr char kName[] = "net.inet.tcp.pcblist64";
  std::vector<char> table;
  for (;;) {
    std::size_t size = 0;
    // The estimate has an eighth to spare; one that does not do after all ends in ENOMEM (sysctl(3)).
    if (sysctlbyname(kName, nullptr, &size, nullptr, 0) == -1) return {};
    size = std::max(size, table.size() * 2);
    if (size > kMaxTable) {
      errno = ENOMEM;
      return {};
    }
    table.resize(size);
    if (sysctlbyname(kName, table.data(), &size, nullptr, 0) == 0) {
      table.resize(size);
      return table;
    }
    if (errno != ENOMEM) return {};
  }
}

// What a lock of the whole file would meet.
struct Meeting {
  Verdict locked = Verdict::kUnknown;  // also of a FIFO or a device: opening one has effects
  ProcessId process = 0;               // of a lock by fcntl(2), which has an owner; 0 for flock(2)
};

Meeting AskForLock(const std::string& path, const struct stat& file) noexcept {
  Meeting meeting;
  if (!S_ISREG(file.st_mode) && !S_ISDIR(file.st_mode)) return meeting;
  const FileHandle opened(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat there;
  if (!opened || fstat(Fd(opened), &there) == -1 || there.st_dev != file.st_dev || there.st_ino != file.st_ino) return meeting;
  struct flock lock = {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  struct statfs filesystem;
  if (fcntl(Fd(opened), F_GETLK, &lock) == -1 || fstatfs(Fd(opened), &filesystem) == -1) return meeting;
  if (lock.l_type != F_UNLCK) {
    meeting.locked = Verdict::kYes;
    meeting.process = std::max(lock.l_pid, 0);
  } else if ((filesystem.f_flags & MNT_LOCAL) != 0) {
    meeting.locked = Verdict::kNo;  // elsewhere a server has a list of its own, and may keep the two kinds apart
  }
  return meeting;
}

}  // namespace

ProcessId OwnProcess() noexcept { return getpid(); }

// By sysctl and not by proc_pidinfo, which shows the start of other users' processes to root alone.
Result<ProcessIdentity> IdentifyProcess(ProcessId pid) noexcept {
  ProcessIdentity identity;
  if (pid <= 0) return identity;
  int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
  kinfo_proc process = {};
  std::size_t size = sizeof(process);
  const bool refused = sysctl(name, 4, &process, &size, nullptr, 0) == -1;
  if (refused && errno != EPERM) return Failure{errno, "sysctl"};
  if (refused || size < sizeof(process) || process.kp_proc.p_pid != pid) {
    // Nobody of that number, or a sandbox that shows none; kill(2) tells them apart.
    identity.exists = kill(pid, 0) == 0 || errno == EPERM;
    return identity;
  }
  identity.exists = process.kp_proc.p_stat != SZOMB;
  const timeval& start = process.kp_proc.p_starttime;
  identity.start_time = static_cast<double>(start.tv_sec) * kMicrosecondsPerSecond + static_cast<double>(start.tv_usec);
  return identity;
}

// KERN_PROCARGS2: the number of arguments, the path of the program, NULs, the arguments, each ended by a NUL, and then the
// environment, which is nobody's business. Other users' are for root alone; then the path has to do.
std::string DescribeCommand(ProcessId pid) noexcept {
  int limit = 0;
  std::size_t size = sizeof(limit);
  std::vector<char> text;
  if (sysctlbyname("kern.argmax", &limit, &size, nullptr, 0) == 0 && limit > 0) text.resize(static_cast<std::size_t>(limit));
  size = text.size();
  int name[] = {CTL_KERN, KERN_PROCARGS2, pid};
  int count = 0;
  std::string command;
  if (size > 0 && sysctl(name, 3, text.data(), &size, nullptr, 0) == 0 && size > sizeof(count)) {
    memcpy(&count, text.data(), sizeof(count));
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(size);
    auto at = std::find(text.begin() + sizeof(count), end, '\0');
    at = std::find_if(at, end, [](char c) { return c != '\0'; });
    for (; count > 0 && at != end; count--) {
      const auto stop = std::find(at, end, '\0');
      command.append(at, stop).push_back(' ');
      at = stop == end ? end : stop + 1;
    }
  }
  if (!command.empty()) {
    command.pop_back();
    return command;
  }
  char path[PROC_PIDPATHINFO_MAXSIZE];
  const int length = proc_pidpath(pid, path, sizeof(path));
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : std::string();
}

HostIdentity IdentifyHost() noexcept {
  HostIdentity host;
  host.boot_id = ReadText("kern.bootsessionuuid");
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
  const Meeting meeting = AskForLock(path, file);
  evidence.locked = meeting.locked;
  if (meeting.locked != Verdict::kYes) return evidence;
  if (meeting.process != 0) {
    evidence.holders.push_back(meeting.process);
    return evidence;
  }
  const auto holds = [&](ProcessId pid, int fd) {
    vnode_fdinfo info;
    return proc_pidfdinfo(pid, fd, PROC_PIDFDVNODEINFO, &info, sizeof(info)) == static_cast<int>(sizeof(info)) &&
           (info.pfi.fi_openflags & kWasLocked) != 0 && info.pvi.vi_stat.vst_ino == file.st_ino &&
           info.pvi.vi_stat.vst_dev == static_cast<std::uint32_t>(file.st_dev);
  };
  VisitProcesses(hints, PROX_FDTYPE_VNODE, holds, [&](ProcessId pid) {
    evidence.holders.push_back(pid);
    return first_only;
  });
  return evidence;
}

Result<std::vector<PortSocket>> FindPortSockets(std::uint16_t port, PortUse use) noexcept {
  const std::vector<char> table = ReadTcpTable();
  if (table.empty()) return Failure{errno, "sysctl"};
  std::vector<PortSocket> sockets;
  std::uint32_t length = 0;
  std::size_t at = 0;
  if (table.size() >= sizeof(TableEdge)) memcpy(&length, table.data(), sizeof(length));
  if (length < sizeof(TableEdge)) return Failure{EPROTO, "sysctl"};
  for (at = length; table.size() - std::min(at, table.size()) >= sizeof(TableEdge); at += length) {
    memcpy(&length, &table[at], sizeof(length));
    if (length == sizeof(TableEdge)) return sockets;
    // An entry of another shape: better none than a wrong one.
    if (length < sizeof(TcpEntry) || length > table.size() - at) return Failure{EPROTO, "sysctl"};
    TcpEntry entry;
    memcpy(&entry, &table[at], sizeof(entry));
    if (entry.internet.local_port == htons(port) && IsIn(use, entry)) sockets.push_back(Describe(entry));
  }
  // With no socket at all, there is no second edge.
  return sockets;
}

ProcessId FindSocketOwner(std::uint64_t id, const std::vector<ProcessId>& hints) noexcept {
  ProcessId owner = 0;
  if (id == 0) return owner;
  const auto is_it = [&](ProcessId pid, int fd) {
    socket_fdinfo info;
    return proc_pidfdinfo(pid, fd, PROC_PIDFDSOCKETINFO, &info, sizeof(info)) == static_cast<int>(sizeof(info)) &&
           SocketId(info.psi.soi_so) == id;
  };
  VisitProcesses(hints, PROX_FDTYPE_SOCKET, is_it, [&](ProcessId pid) {
    owner = pid;
    return true;
  });
  return owner;
}

}  // namespace gateway_lock

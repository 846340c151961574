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

#include "../process.h"

#include <errno.h>
#include <fcntl.h>
#include <libproc.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/proc.h>
#include <sys/proc_info.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include <algorithm>

#include "../handle.h"
#include "descriptors.h"

namespace gateway_lock {
namespace {

// FWASLOCKED of <sys/fcntl.h>, which has it for the kernel alone.
constexpr std::uint32_t kWasLocked = 0x4000;

constexpr double kMicrosecondsPerSecond = 1e6;

int Fd(const FileHandle& file) noexcept { return static_cast<int>(file.raw()); }

std::string ReadText(const char* name) {
  char text[128];
  std::size_t size = sizeof(text);
  if (sysctlbyname(name, text, &size, nullptr, 0) == -1) return std::string();
  return std::string(text, strnlen(text, size));
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

std::vector<LockEvidence> FindLockHolders(const std::vector<std::string>& paths, const std::vector<ProcessId>& hints,
                                          bool first_only) noexcept {
  struct Target {
    struct stat file;
    std::vector<ProcessId>* holders;
  };
  std::vector<LockEvidence> evidence(paths.size());
  std::vector<Target> targets;
  for (std::size_t i = 0; i < paths.size(); i++) {
    struct stat file;
    if (stat(paths[i].c_str(), &file) == -1) {
      // Where there is no file, there is no lock on it.
      evidence[i].locked = errno == ENOENT || errno == ENOTDIR ? Verdict::kNo : Verdict::kUnknown;
      continue;
    }
    const Meeting meeting = AskForLock(paths[i], file);
    evidence[i].locked = meeting.locked;
    if (meeting.locked == Verdict::kYes && meeting.process != 0) evidence[i].holders.push_back(meeting.process);
    if (meeting.locked == Verdict::kYes && meeting.process == 0) targets.push_back(Target{file, &evidence[i].holders});
  }
  if (targets.empty()) return evidence;

  VisitDescriptors(hints, PROX_FDTYPE_VNODE, [&](ProcessId pid, int fd) {
    vnode_fdinfo info;
    if (proc_pidfdinfo(pid, fd, PROC_PIDFDVNODEINFO, &info, sizeof(info)) != static_cast<int>(sizeof(info))) return false;
    if ((info.pfi.fi_openflags & kWasLocked) == 0) return false;
    bool enough = first_only;
    for (const Target& target : targets) {
      const bool known = std::find(target.holders->begin(), target.holders->end(), pid) != target.holders->end();
      const bool wanted = !known && (target.holders->empty() || !first_only);
      const vinfo_stat& opened = info.pvi.vi_stat;
      const bool same = opened.vst_ino == target.file.st_ino && opened.vst_dev == static_cast<std::uint32_t>(target.file.st_dev);
      if (wanted && same) target.holders->push_back(pid);
      enough = enough && !target.holders->empty();
    }
    return enough;
  });
  return evidence;
}

}  // namespace gateway_lock

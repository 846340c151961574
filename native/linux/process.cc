// procfs.
//
// A flock's holder is found by /proc/PID/fdinfo/N, which shows a "lock:" line for the very open file description that
// holds it. /proc/locks is no proof of who: it names the process that took the lock, even after that one has passed
// the descriptor on and died; it leaves out what other pid namespaces took; and on btrfs its device number is not
// stat's. But in the initial pid namespace it lists every flock there is, so an inode that it does not list at all is
// not locked by anybody on this host.
//
// Which file a descriptor refers to is asked of procfs first, and of the file itself only when procfs shows our inode number
// with a lock: stat(2) on a descriptor of a dead network filesystem would hang. A name proves nothing: the same file may be
// bind-mounted under another one, and a path of another mount namespace or another root means something else there.

#include "../process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "procfs.h"

namespace gateway_lock {
namespace {

// The initial pid namespace has this inode number on every Linux (PROC_PID_INIT_INO, include/linux/proc_ns.h).
constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;

using Inode = unsigned long long;

// The rest of the line of fdinfo that begins with `name`; empty if there is none.
std::string_view FieldOf(std::string_view info, std::string_view name) noexcept {
  for (std::size_t line = 0; line < info.size();) {
    const std::size_t end = std::min(info.find('\n', line), info.size());
    if (info.compare(line, name.size(), name) == 0) return info.substr(line + name.size(), end - line - name.size());
    line = end + 1;
  }
  return {};
}

// The kernel's own number of the file's inode, which on overlayfs and others is not always the one that stat(2) says. Since
// Linux 5.14; 0 before.
Inode InodeOf(std::string_view info) noexcept {
  std::string_view field = FieldOf(info, "ino:");
  field.remove_prefix(std::min(field.find_first_not_of(" \t"), field.size()));
  Inode inode = 0;
  std::from_chars(field.data(), field.data() + field.size(), inode);
  return inode;
}

// Locks by flock(2) come first (show_fd_locks, fs/locks.c), and an open file description has one of them at most.
bool ShowsFlock(std::string_view info) noexcept { return FieldOf(info, "lock:").find("FLOCK") != std::string_view::npos; }

// Half of all descriptors that have a path are these, and to ask for more takes three times as long as to read the link. What
// is there is no file that could be bind-mounted there by accident.
bool IsDevice(std::string_view link) noexcept { return link == "/dev/null" || link.rfind("/dev/pts/", 0) == 0; }

// A file or directory whose lock somebody asks about.
struct Target {
  struct stat file;
  Inode inode;  // as InodeOf
  LockEvidence* evidence;

  bool Is(std::string_view info, const Descriptor& descriptor) const noexcept {
    struct stat opened;
    const Inode number = InodeOf(info);
    if (number != 0 && inode != 0 && number != inode) return false;
    return descriptor.Stat(opened) && opened.st_dev == file.st_dev && opened.st_ino == file.st_ino;
  }
};

// O_PATH opens nothing: neither a FIFO's other end nor a lease on the file notices.
Inode InodeAt(const std::string& path) {
  const FileHandle file = OpenAt(AT_FDCWD, path.c_str(), O_PATH);
  return file ? InodeOf(ReadAll(("/proc/self/fdinfo/" + std::to_string(file.raw())).c_str())) : 0;
}

// What /proc/locks says of the inodes that are locked. The kernel hands the table out a page at a time, by position, so that an
// entry can slip through between two reads while others go away: then not being listed proves nothing by itself. What has gone
// away while a table was read is missing in the next one, so two that are the same have missed nothing.
class LockTable {
 public:
  LockTable() {
    const bool was_read = Read();
    is_whole_ = text_.size() < kSurelyOnePage;
    struct stat pid_namespace;
    lists_all_ = was_read && stat("/proc/self/ns/pid", &pid_namespace) == 0 && pid_namespace.st_ino == kInitialPidNamespace;
  }

  // Reads it again until nothing can be missing, a few times at most; it may then say something else.
  bool Complete() {
    constexpr int kReadings = 4;
    for (int reading = 2; !is_whole_ && reading <= kReadings; reading++) {
      const std::string last = std::move(text_);
      is_whole_ = Read() && text_ == last;
    }
    return is_whole_;
  }

  // kYes, listed with that device; kNo, not listed in the initial pid namespace, which lists all.
  Verdict Lists(const Target& target) const {
    const Inode inode = target.inode != 0 ? target.inode : static_cast<Inode>(target.file.st_ino);
    char device_and_inode[64];
    snprintf(device_and_inode, sizeof(device_and_inode), " %02x:%02x:%llu ", major(target.file.st_dev), minor(target.file.st_dev),
             inode);
    const std::string_view any_device = strrchr(device_and_inode, ':');
    bool same_inode = false;
    for (std::size_t line = 0; line < text_.size();) {
      const std::size_t end = std::min(text_.find('\n', line), text_.size());
      const std::string_view entry = std::string_view(text_).substr(line, end - line);
      line = end + 1;
      // "-> FLOCK" is a process that waits for it.
      if (entry.find("FLOCK") == std::string_view::npos || entry.find("->") != std::string_view::npos) continue;
      if (entry.find(device_and_inode) != std::string_view::npos) return Verdict::kYes;
      if (entry.find(any_device) != std::string_view::npos) same_inode = true;
    }
    return !same_inode && lists_all_ ? Verdict::kNo : Verdict::kUnknown;
  }

 private:
  static constexpr std::size_t kSurelyOnePage = 4096 - 256;  // no entry is that long, so another would have fitted

  // A page at a time, as the kernel hands it out. After one with room left there is nothing more, and to be told so would take
  // another 4 to 8 ms: every read waits for a grace period of RCU (locks_start, fs/locks.c).
  bool Read() {
    text_.clear();
    const FileHandle file = OpenAt(AT_FDCWD, "/proc/locks");
    char page[4096];
    ssize_t count = -1;
    do {
      do {
        count = file ? read(static_cast<int>(file.raw()), page, sizeof(page)) : -1;
      } while (file && count == -1 && errno == EINTR);
      if (count > 0) text_.append(page, static_cast<std::size_t>(count));
    } while (count >= static_cast<ssize_t>(kSurelyOnePage));
    return count >= 0;
  }

  std::string text_;
  bool is_whole_;
  bool lists_all_;
};

}  // namespace

ProcessId OwnProcess() noexcept { return getpid(); }

Result<ProcessIdentity> IdentifyProcess(ProcessId pid) noexcept {
  const bool is_shown = IsOwnProcfs();
  // Of the first thread, which has the start time and the state of the process: for /proc/PID/stat the kernel visits all threads.
  const std::string id = std::to_string(pid);
  const std::string text = is_shown ? ReadAll(("/proc/" + id + "/task/" + id + "/stat").c_str()) : "";
  if (text.empty()) {
    // procfs mounted with hidepid shows other users' processes as missing or refuses them; kill(2) tells them from dead ones.
    if (is_shown && errno != ENOENT && errno != ESRCH && errno != EACCES && errno != EPERM) return Failure{errno, "open"};
    ProcessIdentity hidden;
    hidden.exists = kill(pid, 0) == 0 || errno == EPERM;
    return hidden;
  }
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
  if (!IsOwnProcfs()) return "";
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

std::vector<LockEvidence> FindLockHolders(const std::vector<std::string>& paths, const std::vector<ProcessId>& hints,
                                          bool first_only) noexcept {
  std::vector<LockEvidence> evidence(paths.size());
  std::vector<Target> targets;
  for (std::size_t i = 0; i < paths.size(); i++) {
    Target target = {{}, 0, &evidence[i]};
    if (stat(paths[i].c_str(), &target.file) == 0) {
      target.inode = InodeAt(paths[i]);
      targets.push_back(target);
    } else if (errno == ENOENT || errno == ENOTDIR) {
      evidence[i].locked = Verdict::kNo;  // where there is no file, there is no lock on it
    }
  }
  if (targets.empty()) return evidence;

  const bool complete = VisitDescriptors(hints, [&](ProcessId pid, const Descriptor& descriptor) {
    if (descriptor.link()[0] != '/' || IsDevice(descriptor.link())) return false;
    char buffer[1024];
    const std::string_view info = descriptor.ReadInfo(buffer, sizeof(buffer));
    if (!ShowsFlock(info)) return false;
    bool enough = first_only;
    for (const Target& target : targets) {
      std::vector<ProcessId>& holders = target.evidence->holders;
      const bool known = std::find(holders.begin(), holders.end(), pid) != holders.end();
      if (!known && (holders.empty() || !first_only) && target.Is(info, descriptor)) holders.push_back(pid);
      enough = enough && !holders.empty();
    }
    return enough;
  });

  std::optional<LockTable> table;
  for (const Target& target : targets) {
    target.evidence->locked = Verdict::kYes;
    if (!target.evidence->holders.empty()) continue;
    if (!table) table.emplace();
    target.evidence->locked = table->Lists(target);
    // A table that may be incomplete is enough only together with a look at every process.
    if (target.evidence->locked == Verdict::kNo && !complete)
      target.evidence->locked = table->Complete() ? table->Lists(target) : Verdict::kUnknown;
  }
  return evidence;
}

}  // namespace gateway_lock

#include "procfs.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

namespace gateway_lock {
namespace {

int Fd(const FileHandle& file) noexcept { return static_cast<int>(file.raw()); }

ssize_t Read(const FileHandle& file, char* buffer, std::size_t size) noexcept {
  ssize_t count;
  do {
    count = read(Fd(file), buffer, size);
  } while (count == -1 && errno == EINTR);
  return count;
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

// For the descriptors of a process that was reaped meanwhile, procfs says EACCES as for those that are nobody's business
// (proc_fd_access_allowed, fs/proc/base.c).
bool IsGone(ProcessId pid) noexcept { return kill(pid, 0) == -1 && errno == ESRCH; }

// What `visit` says; `hidden` if the process could not be looked at.
bool VisitProcess(int processes, ProcessId pid, const std::function<bool(ProcessId, const Descriptor&)>& visit, bool& hidden) {
  Directory descriptors(processes, (std::to_string(pid) + "/fd").c_str());
  if (!descriptors) {
    if (errno != ENOENT && errno != ESRCH && !IsGone(pid)) hidden = true;
    return false;
  }
  char link[256];
  while (const char* name = descriptors.NextNumber()) {
    const ssize_t length = readlinkat(descriptors.fd(), name, link, sizeof(link));
    if (length == -1) {
      if (errno != EACCES && errno != EPERM) continue;
      if (!IsGone(pid)) hidden = true;
      return false;
    }
    const std::string_view text(link, static_cast<std::size_t>(length));
    if (visit(pid, Descriptor(descriptors.fd(), name, text))) return true;
  }
  return false;
}

}  // namespace

bool IsOwnProcfs() noexcept {
  char self[16] = "";
  return readlink("/proc/self", self, sizeof(self) - 1) > 0 && strtol(self, nullptr, 10) == getpid();
}

FileHandle OpenAt(int directory, const char* path, int flags) noexcept {
  return FileHandle(openat(directory, path, flags | O_CLOEXEC));
}

// Files in procfs have no size: read until there is no more.
std::string ReadAll(const char* path) {
  std::string text;
  char buffer[4096];
  const FileHandle file = OpenAt(AT_FDCWD, path);
  if (!file) return text;
  for (ssize_t count; (count = Read(file, buffer, sizeof(buffer))) > 0;) text.append(buffer, static_cast<std::size_t>(count));
  return text;
}

bool ReadLines(const char* path, const std::function<void(std::string_view)>& line) {
  const FileHandle file = OpenAt(AT_FDCWD, path);
  if (!file) return false;
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t count = Read(file, buffer, sizeof(buffer));
    if (count <= 0) return count == 0;
    text.append(buffer, static_cast<std::size_t>(count));
    std::size_t start = 0;
    for (std::size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
      line(std::string_view(text).substr(start, end - start));
    }
    text.erase(0, start);
  }
}

std::string_view Descriptor::ReadInfo(char* buffer, std::size_t size) const noexcept {
  char path[64];
  snprintf(path, sizeof(path), "../fdinfo/%s", name_);
  const FileHandle file = OpenAt(directory_, path);
  const ssize_t count = file ? Read(file, buffer, size) : 0;
  return std::string_view(buffer, count > 0 ? static_cast<std::size_t>(count) : 0);
}

bool Descriptor::Stat(struct stat& file) const noexcept { return fstatat(directory_, name_, &file, 0) == 0; }

bool VisitDescriptors(const std::vector<ProcessId>& hints, const std::function<bool(ProcessId, const Descriptor&)>& visit) {
  if (!IsOwnProcfs()) return false;
  bool hidden = false;
  bool sees_init = false;
  Directory processes(AT_FDCWD, "/proc");
  if (!processes) return false;
  for (const ProcessId hint : hints) {
    if (hint > 0 && VisitProcess(processes.fd(), hint, visit, hidden)) return !hidden;
  }
  while (const char* name = processes.NextNumber()) {
    const auto pid = static_cast<ProcessId>(strtol(name, nullptr, 10));
    if (pid == 1) sees_init = true;
    if (std::find(hints.begin(), hints.end(), pid) != hints.end()) continue;
    if (VisitProcess(processes.fd(), pid, visit, hidden)) break;
  }
  // With the mount option hidepid, procfs leaves out what is not this user's; there is a first process everywhere.
  return sees_init && !hidden;
}

}  // namespace gateway_lock

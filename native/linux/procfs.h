// What procfs says of processes and of the files that they have open (proc(5)).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "../handle.h"
#include "../process.h"

namespace gateway_lock {

// Whether /proc shows our own pid namespace. Where that is a new one and /proc an old one, every number there means somebody else
// here (pid_namespaces(7)).
bool IsOwnProcfs() noexcept;

FileHandle OpenAt(int directory, const char* path, int flags = O_RDONLY) noexcept;

// Empty where it can't be read: files in procfs that have anything to say are not empty.
std::string ReadAll(const char* path);

// Calls `line` for each line of the file; false, with errno, where the file can't be read.
bool ReadLines(const char* path, const std::function<void(std::string_view)>& line);

// A descriptor of some process.
class Descriptor {
 public:
  Descriptor(int directory, const char* name, std::string_view link) noexcept : directory_(directory), name_(name), link_(link) {}

  // What it refers to: a path begins with "/", and its end may be cut off.
  std::string_view link() const noexcept { return link_; }
  // /proc/PID/fdinfo, cut off after `size` bytes.
  std::string_view ReadInfo(char* buffer, std::size_t size) const noexcept;
  // Waits for ever where the file lies on a network filesystem whose server is dead.
  bool Stat(struct stat& file) const noexcept;

 private:
  const int directory_;  // /proc/PID/fd
  const char* const name_;
  const std::string_view link_;
};

// Calls `visit` for every descriptor of every process that this user may see, the hinted processes first, until it returns true.
// Whether every process could be looked at.
bool VisitDescriptors(const std::vector<ProcessId>& hints, const std::function<bool(ProcessId, const Descriptor&)>& visit);

}  // namespace gateway_lock
